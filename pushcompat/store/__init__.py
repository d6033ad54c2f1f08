"""The shared log. ``base`` defines what a store is; this module alone knows which there are."""

from __future__ import annotations

from ..errors import ConfigError
from ..limits import Retention
from .base import Store
from .memory import MemoryStore

SCHEMES = ("memory:",)


def open_store(url: str, retention: Retention) -> Store:
    """The store that ``url`` names. Raises ConfigError."""
    if url == "memory:":
        return MemoryStore(retention)
    raise ConfigError(f"unknown store {url!r}; use one of: {', '.join(SCHEMES)}")
