from __future__ import annotations

import re
from pathlib import Path

from pushcompat.errors import CloseCode

PROTOCOL = (Path(__file__).parent.parent / "docs" / "protocol.md").read_text()


def test_the_protocol_lists_every_close_code_with_its_meaning() -> None:
    rows = re.findall(r"^\| (\d{4}) \| (.*?) \|", PROTOCOL, re.MULTILINE)
    assert [(int(code), meaning) for code, meaning in rows] == [(int(code), code.meaning) for code in CloseCode]
