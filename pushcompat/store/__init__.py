"""The shared log. ``base`` defines the interface of a store; only this module has the list of stores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

from ..errors import ConfigError
from ..limits import Retention
from .base import Store
from .memory import MemoryStore
from .presence import Registry
from .redis.urls import without_password
from .sqlite import SqliteStore


def open_store(url: str, retention: Retention, state_dir: Path) -> Store:
    """The store for ``url``; ``state_dir`` is the default directory of a store on disk. Raises ConfigError."""
    scheme, colon, _ = url.partition(":")
    shown = without_password(url)
    store = SCHEMES.get(scheme) if colon else None
    if store is None:
        available = ", ".join(f"{name}:" for name in SCHEMES)
        raise ConfigError(f"--store {shown!r}: unknown kind of store; available: {available}")
    try:
        return store(url, retention, state_dir)
    except ConfigError as error:
        raise ConfigError(f"--store {shown!r}: {error}") from None


@runtime_checkable
class _Shared(Protocol):
    def registry(self) -> Registry: ...


def registry_of(store: Store) -> Registry | None:
    """Where the processes of the log exchange subscriber counts. None: the log cannot be shared."""
    return store.registry() if isinstance(store, _Shared) else None


def _memory(url: str, retention: Retention, _state_dir: Path) -> Store:
    if url != "memory:":
        raise ConfigError("nothing may follow memory:")
    return MemoryStore(retention)


def _redis(url: str, retention: Retention, _state_dir: Path) -> Store:
    try:
        from .redis.store import RedisStore
    except ImportError as error:
        raise ConfigError(f"this needs the package {error.name}: pip install 'pushcompat[redis]'") from None
    return RedisStore(url, retention)


# By scheme; their ConfigErrors do not name the option
SCHEMES: dict[str, Callable[[str, Retention, Path], Store]] = {
    "sqlite": SqliteStore.from_url,
    "memory": _memory,
    "redis": _redis,
    "rediss": _redis,
    "redis+unix": _redis,
    "redis+sentinel": _redis,
}
