"""A log that waits, as one on a disk or behind a network does."""

from __future__ import annotations

from collections.abc import Sequence

from pushcompat.limits import Retention
from pushcompat.store.base import Done, Publish
from pushcompat.store.memory import MemoryStore


class SlowStore(MemoryStore):
    """Stores a group when the test says so."""

    def __init__(self) -> None:
        super().__init__(Retention())
        self.groups: list[tuple[Sequence[Publish], Done]] = []

    def append(self, group: Sequence[Publish], done: Done) -> None:
        self.groups.append((group, done))

    def store(self) -> None:
        super().append(*self.groups.pop(0))
