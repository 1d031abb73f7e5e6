"""Write the rules of doctor into docs/doctor.md: `make house`."""

from __future__ import annotations

import re
from pathlib import Path

from servingrepo.verbs.doctor_rules import RULES

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "doctor.md"


def table() -> str:
    """Return the rules as a table."""
    rows = [
        f"| `{one.slug}` | {one.severity} | {one.means} | {one.consequence} | {one.fix} |"
        for one in RULES
    ]
    head = "| slug | severity | what is wrong | what happens at the next restart or reload | fix |"
    return "\n".join([head, "| --- | --- | --- | --- | --- |", *rows]) + "\n"


def described(text: str) -> str:
    """Return the document with the rules as they are now."""
    return re.sub(
        r"(<!-- rules -->\n).*(<!-- /rules -->)",
        lambda match: f"{match[1]}{table()}{match[2]}",
        text,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    DOCUMENT.write_text(described(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
