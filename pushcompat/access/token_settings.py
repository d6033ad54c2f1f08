"""The options of subscriber tokens. It does not import PyJWT, so that the command line starts without it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class TokenSettings(NamedTuple):
    """What the configuration says about tokens; the options have the same names. Without keys there are no tokens."""

    key_files: tuple[Path, ...] = ()
    key: str | None = None  # a secret for HS256
    audience: tuple[str, ...] = ()
    issuer: str | None = None
    leeway_s: float = 10.0
    max_age_s: float = 366 * 86400.0
    cookie: str | None = None  # that may hold the token

    @property
    def given(self) -> bool:
        return bool(self.key_files or self.key)

    def __repr__(self) -> str:
        return f"TokenSettings({len(self.key_files)} files)"  # never the key


DEFAULTS = TokenSettings()
