"""Which channels are occupied: tells an application when a channel gets its first subscriber, and loses its last.

A change is told when it has lasted for ``settle_s``: a page that reloads makes no noise, nor does a restart. Of all
processes that share the log one tells: the first by name, once it has been that for as long as a lease. What was told
is kept on the board, as a *mark* of the channel, so that the next one goes on where this one died:

    (none)            told as vacated, or never told
    occupied          told as occupied
    occupied ID N     is being told, as webhook ID, with N subscribers
    vacated ID 0

A change is marked before it is sent, and marked again when the receiver has taken it. So whoever goes on sends the same
change with the same id, which the receiver knows it by. While a channel's change is on its way there is no other one
of that channel: the order is kept, and a receiver that is away for an hour gets the result, not the history.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from ..changes import OCCUPIED, VACATED, Change
from ..store.presence import LEASE_S
from .history import History

_MOST_PENDING = 10_000
_SLICE = 1024  # channels that are looked at before others have their turn


class Teller(Protocol):
    """Sends changes to whoever wants to know. ``on_told(change)`` is called for each that was taken."""

    def start(self, on_told: Callable[[Change], None]) -> None: ...

    def tell(self, change: Change) -> None: ...

    def forget(self) -> None:
        """Sends none of those that were not taken yet: another process does."""


class Occupancy:
    def __init__(
        self, history: History, settle_s: float, teller: Teller, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._history = history
        self._settle_s = settle_s
        self._teller = teller
        self._clock = clock
        self._marks: dict[str, str] = {}
        self._due: OrderedDict[str, float] = OrderedDict()  # channels that differ from what was told, and until when
        self._unsaved: dict[str, str] = {}
        self._starting: dict[str, Change] = {}  # to be sent when their marks are saved
        self._pending: set[str] = set()
        self._first_since: float | None = None
        self.leading = False

    def start(self) -> None:
        self._teller.start(self._told)

    # Who tells

    def may_lead(self, *, first: bool, alone: bool = False) -> bool:
        """Whether this process is to take over now. ``first``: by name; ``alone``: there is no board."""
        if not first:
            self.drop()
            return False
        now = self._clock()
        if self._first_since is None:
            self._first_since = now
        return not self.leading and (alone or now >= self._first_since + LEASE_S)

    async def lead(self, marks: Mapping[str, str]) -> None:
        """Goes on from there."""
        self.leading = True
        self._marks = dict(marks)
        for channel, mark in marks.items():
            kind, _, rest = mark.partition(" ")
            id, _, count = rest.partition(" ")
            if id:
                self._pending.add(channel)
                self._teller.tell(Change(id, kind, channel, int(count)))
        names = list({*marks, *self._history.names, *self._history.others})
        for start in range(0, len(names), _SLICE):
            self.look(names[start : start + _SLICE])
            await asyncio.sleep(0)

    def drop(self) -> None:
        """Another process tells from now on."""
        self._first_since = None
        if self.leading:
            self.leading = False
            self._teller.forget()
            for kept in (self._marks, self._due, self._unsaved, self._starting, self._pending):
                kept.clear()

    # Changes

    def look(self, names: Iterable[str]) -> None:
        """The numbers of subscribers of these channels may have changed."""
        if not self.leading:
            return
        due = self._clock() + self._settle_s
        for name in names:
            if name in self._pending:
                continue
            if (self._count(name) > 0) != (self._marks.get(name) == OCCUPIED):
                self._due.setdefault(name, due)
            else:
                self._due.pop(name, None)

    def settle(self) -> dict[str, str]:
        """The marks that are to be saved now; ``saved`` or ``failed`` follows."""
        due, now = self._due, self._clock()
        while due and len(self._pending) < _MOST_PENDING:
            name, when = next(iter(due.items()))
            if when > now:
                break
            del due[name]
            count = self._count(name)
            change = Change(f"msg_{secrets.token_hex(12)}", OCCUPIED if count else VACATED, name, count)
            self._starting[name] = change
            self._pending.add(name)
            self._mark(name, _in_flight(change))
        marks, self._unsaved = self._unsaved, {}
        return marks

    def saved(self) -> None:
        starting, self._starting = self._starting, {}
        for change in starting.values():
            self._teller.tell(change)

    def failed(self, marks: Mapping[str, str]) -> None:
        if self.leading:
            self._unsaved = {**marks, **self._unsaved}

    def _told(self, change: Change) -> None:
        channel = change.channel
        if self._marks.get(channel) != _in_flight(change):
            return
        self._pending.discard(channel)
        self._mark(channel, OCCUPIED if change.kind == OCCUPIED else "")
        self.look([channel])

    def _mark(self, channel: str, mark: str) -> None:
        self._unsaved[channel] = mark
        if mark:
            self._marks[channel] = mark
        else:
            self._marks.pop(channel, None)

    def _count(self, name: str) -> int:
        return self._history.subscribers_everywhere(name, self._history.find(name))


def _in_flight(change: Change) -> str:
    """The mark of a channel while the change is being told."""
    return f"{change.kind} {change.id} {change.subscribers}"
