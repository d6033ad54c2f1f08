"""Addresses to listen on: ``HOST:PORT``, ``[IPv6]:PORT`` or ``unix:PATH``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

_HOST_AND_PORT = re.compile(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^\[\]:/\s]+)):(\d{1,5})")


class Address(NamedTuple):
    """Port 0: any free one. ``path``: of a Unix socket, which then replaces host and port."""

    host: str
    port: int
    path: Path | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(text: str) -> Address:
    """Raises ValueError with a sentence."""
    kind, found, path = text.partition(":")
    if found and kind == "unix" and path:
        return Address("", 0, Path(path))
    match = _HOST_AND_PORT.fullmatch(text)
    if match is None or int(match[3]) > 65535:
        raise ValueError(f"{text!r} is not an address; use HOST:PORT, [IPv6]:PORT or unix:PATH")
    return Address(match[1] or match[2], int(match[3]))
