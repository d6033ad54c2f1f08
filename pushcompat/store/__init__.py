"""The shared log. ``base`` defines what a store is; this module alone knows which there are."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import ConfigError
from ..limits import Retention
from .base import Store
from .memory import MemoryStore

SCHEMES: dict[str, Callable[[Retention], Store]] = {"memory:": MemoryStore}


def open_store(url: str, retention: Retention) -> Store:
    """The store that ``url`` names. Raises ConfigError."""
    scheme, colon, rest = url.partition(":")
    store = SCHEMES.get(scheme + colon)
    if store is None:
        raise ConfigError(f"--store {url!r}: there is no such kind of store; available: {', '.join(SCHEMES)}")
    if rest:
        raise ConfigError(f"--store {url!r}: nothing may follow {scheme}:")
    return store(retention)
