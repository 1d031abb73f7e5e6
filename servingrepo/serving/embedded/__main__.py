"""`python -m servingrepo.serving.embedded` runs the embedded server."""

from __future__ import annotations

import sys

from servingrepo.serving.embedded import main

sys.exit(main(sys.argv[1:]))
