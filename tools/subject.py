#!/usr/bin/env python3
"""Refuse a commit whose subject is too long: git's commit-msg hook, by way of `make hooks`."""

import sys
from pathlib import Path

LONGEST = 72

subject = Path(sys.argv[1]).read_text(encoding="utf-8").partition("\n")[0]
if len(subject) > LONGEST:
    sys.exit(f"the subject has {len(subject)} characters, at most {LONGEST} are allowed: {subject}")
