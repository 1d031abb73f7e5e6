"""`python -m servingrepo.embedded` runs the embedded server."""

from __future__ import annotations

import sys

from servingrepo.embedded import main

sys.exit(main(sys.argv[1:]))
