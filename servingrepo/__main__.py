"""`python -m servingrepo` and the `servingrepo` command."""

from __future__ import annotations

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    # `python -m` looks for modules in the current directory first, and that may be a run. What was imported up to
    # here may come from there, nothing after it. `python -P -m` and the `servingrepo` command never look there.
    del sys.path[0]


def main() -> None:
    """Run the command line and exit with its code."""
    import gc

    # What a command makes, it needs until its end: looking for garbage among 100,000 entries of an index is an
    # eighth of a verification's time.
    gc.set_threshold(50_000, 20, 50)

    from servingrepo.cli.main import end, run

    end(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
