"""Which channels are occupied: reports to an application when a channel gets its first subscriber and loses its last.

A change is reported after it has lasted for ``settle_s``: reloading a page or restarting the server reports nothing.
One of all processes that share the log reports: the first by name, once it has been the first for the duration of a
lease. The reported state is kept in the registry, as a *mark* of the channel, so that the next process continues where
this one died:

    (none)            reported as vacated, or never reported
    occupied          reported as occupied
    occupied ID N     being reported, as webhook ID, with N subscribers
    vacated ID 0

A change is marked before it is sent, and again when the receiver has accepted it. So a process that takes over sends
the same change with the same id, by which the receiver recognises it. Only one change of a channel is sent at a time:
the order is kept, and a receiver that was unavailable for an hour gets the current state, not every change.
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

_MAX_PENDING = 10_000
_SLICE = 1024  # channels that are checked before yielding to other tasks


class Notifier(Protocol):
    """Sends changes to an application. ``on_accepted(change)`` is called for each that was accepted."""

    def start(self, on_accepted: Callable[[Change], None]) -> None: ...

    def notify(self, change: Change) -> None: ...

    def forget(self) -> None:
        """Drops changes that were not accepted yet: another process sends them."""


class Occupancy:
    def __init__(
        self, history: History, settle_s: float, notifier: Notifier, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._history = history
        self._settle_s = settle_s
        self._notifier = notifier
        self._clock = clock
        self._marks: dict[str, str] = {}
        self._due: OrderedDict[str, float] = (
            OrderedDict()
        )  # when to report channels that differ from their reported state
        self._unsaved: dict[str, str] = {}
        self._starting: dict[str, Change] = {}  # sent once their marks are saved
        self._pending: set[str] = set()
        self._first_since: float | None = None
        self.leading = False

    def start(self) -> None:
        self._notifier.start(self._accepted)

    # The reporting process

    def may_lead(self, *, first: bool, alone: bool = False) -> bool:
        """Whether this process must take over now. ``first``: by name; ``alone``: there is no registry."""
        if not first:
            self.drop()
            return False
        now = self._clock()
        if self._first_since is None:
            self._first_since = now
        return not self.leading and (alone or now >= self._first_since + LEASE_S)

    async def lead(self, marks: Mapping[str, str]) -> None:
        """Takes over, from these marks."""
        self.leading = True
        self._marks = dict(marks)
        for channel, mark in marks.items():
            kind, _, rest = mark.partition(" ")
            id, _, count = rest.partition(" ")
            if id:
                self._pending.add(channel)
                self._notifier.notify(Change(id, kind, channel, int(count)))
        names = list({*marks, *self._history.names, *self._history.others})
        for start in range(0, len(names), _SLICE):
            self.look(names[start : start + _SLICE])
            await asyncio.sleep(0)

    def drop(self) -> None:
        """Another process reports from now on."""
        self._first_since = None
        if self.leading:
            self.leading = False
            self._notifier.forget()
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
        """The marks to save now; the caller then calls ``saved`` or ``failed``."""
        due, now = self._due, self._clock()
        while due and len(self._pending) < _MAX_PENDING:
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
            self._notifier.notify(change)

    def failed(self, marks: Mapping[str, str]) -> None:
        if self.leading:
            self._unsaved = {**marks, **self._unsaved}

    def _accepted(self, change: Change) -> None:
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
    """The mark of a channel while the change is being sent."""
    return f"{change.kind} {change.id} {change.subscribers}"
