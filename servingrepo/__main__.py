"""`python -m servingrepo` and the `servingrepo` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    import gc

    from servingrepo.cli.main import run

    code = run(sys.argv[1:])
    # The interpreter's last collection would visit every module only to find that all of it goes: 10 ms.
    gc.freeze()
    sys.exit(code)


if __name__ == "__main__":
    main()
