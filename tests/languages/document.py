"""The programs of docs/clients.md: what its sections install, and what they run."""

from __future__ import annotations

import re
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "clients.md"


def blocks(heading: str, language: str) -> list[str]:
    """The code blocks in this language of the section with this heading."""
    _, found, rest = DOCUMENT.read_text().partition(f"\n## {heading}\n")
    assert found, heading
    return re.findall(rf"^```{language}\n(.*?)^```", rest.partition("\n## ")[0], re.DOTALL | re.MULTILINE)


def with_table(table: str) -> str:
    """The document, with another table of results."""
    begin, end = "<!-- table -->\n", "<!-- end of table -->"
    before, _, rest = DOCUMENT.read_text().partition(begin)
    return before + begin + table + end + rest.partition(end)[2]
