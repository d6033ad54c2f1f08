"""A registry in this process, which tests can lose."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from pushcompat.store.base import StoreError
from pushcompat.store.presence import KEPT_NOTES, Exchanged


class LocalRegistry:
    def __init__(self) -> None:
        self.works = True
        self.lose()

    def lose(self) -> None:
        self._number = 0
        self._beats: dict[str, int] = {}
        self._marks: dict[str, str] = {}
        self._notes: list[tuple[int, str, bytes]] = []
        self._wholes: dict[str, tuple[int, str, bytes]] = {}

    async def open(self) -> None:
        pass

    async def marks(self) -> Mapping[str, str]:
        return dict(self._marks)

    async def exchange(
        self, process: str, note: bytes, whole: bytes, after: int, gone: Mapping[str, int], marks: Mapping[str, str]
    ) -> Exchanged:
        if not self.works:
            raise StoreError("the registry does not work")
        self._beats[process] = self._beats.get(process, 0) + 1
        for name, beat in gone.items():
            if self._beats.get(name) == beat:
                del self._beats[name]
                self._wholes.pop(name, None)
        self._marks.update(marks)
        self._marks = {channel: mark for channel, mark in self._marks.items() if mark}
        own = 0
        if note:
            own = self._number = self._number + 1
            self._notes = [*self._notes, (own, process, note)][-KEPT_NOTES:]
        if whole:
            self._wholes[process] = own, process, whole
        await asyncio.sleep(0)  # an answer takes its time
        first = self._notes[0][0] if self._notes else self._number + 1
        notes = [entry for entry in (*self._notes, *self._wholes.values()) if entry[0] > after]
        return Exchanged(self._number, own, first, dict(self._beats), notes)

    async def close(self, process: str) -> None:
        self._beats.pop(process, None)
        self._wholes.pop(process, None)
