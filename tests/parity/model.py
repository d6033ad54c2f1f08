"""Reference model: which events a subscriber may receive. It knows nothing of passes, caches or sockets.

The log is lists: all that was ever published, and for each channel what of it is retained, and its floor. A subscriber
is a cursor; every event that it receives must be allowed at that cursor:

- a message is after the cursor, is what was published, and skips nothing that was pending;
- a cursor skips nothing that was pending;
- a reset is sent only if history is gone, and names every channel in which something is skipped;
- nothing of a log of another epoch is sent before a reset.

Pending are all messages of its channels after its cursor, except expired and replaced ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pushcompat.message import EARLIEST, Message, parse_cursor
from pushcompat.store.base import Kept

from .wires import Event

CHANNELS = ("a", "b", "c")


@dataclass(eq=False)
class Entry:
    sequence: int
    channel: str
    data: str
    key: str | None = None
    until: float | None = None  # when its ttl is over
    born: float = 0.0
    replaced: bool = False  # by a later one with its key


class Log:
    """One epoch's."""

    def __init__(self, epoch: str, count: int) -> None:
        self.epoch = epoch
        self.head = 0
        self.now = 0.0
        self._count = count
        self.entries: list[Entry] = []
        self.windows: dict[str, list[Entry]] = {name: [] for name in CHANNELS}
        self.floors = dict.fromkeys(CHANNELS, 0)

    def publish(self, drafts: Sequence[Message]) -> None:
        for draft in drafts:
            self.head += 1
            until = None if draft.ttl_s is None else self.now + draft.ttl_s
            entry = Entry(self.head, draft.channel, draft.data.decode(), draft.key, until, self.now)
            for earlier in self.entries:
                if entry.key is not None and (earlier.channel, earlier.key) == (entry.channel, entry.key):
                    earlier.replaced = True
            self.entries.append(entry)
            window = self.windows[draft.channel]
            window[:] = [e for e in window if not e.replaced] + [entry]
        for name in {draft.channel for draft in drafts}:
            while len(self.windows[name]) > self._count:
                self._evict(name)

    def grow_older(self, seconds: float, age_s: float) -> None:
        self.now += seconds
        for name, window in self.windows.items():
            window[:] = [entry for entry in window if not self._is_over(entry)]
            while window and window[0].born < self.now - age_s:
                self._evict(name)

    def trim_before_read(self, count: int) -> None:
        """Nobody here saw what they were, so there may have been some in each channel."""
        for _ in range(count):
            self.head += 1
            self.entries += [Entry(self.head, name, "unseen") for name in CHANNELS]
        for name in CHANNELS:
            self.windows[name].clear()
            self.floors[name] = self.head

    def after_fail_over(self, epoch: str, kept: Iterable[Message], head: int) -> Log:
        """The log that goes on under another epoch with what is left of this one."""
        log = Log(epoch, self._count)
        log.now, log.head = self.now, head
        log.floors = dict.fromkeys(CHANNELS, head)  # at most: what was evicted before may be asked for
        numbers = {message.sequence for message in kept}
        log.entries = [entry for entry in self.entries if entry.sequence in numbers]
        for entry in log.entries:
            log.windows[entry.channel].append(entry)
        return log

    def reload(self, kept: Kept) -> None:
        """What is retained, and what was evicted, is what the store says."""
        numbers = {message.sequence for message in kept.messages}
        for name in CHANNELS:
            window = self.windows[name] = [e for e in self.entries if e.channel == name and e.sequence in numbers]
            own_floor = window[0].sequence - 1 if window else kept.floor
            self.floors[name] = max(self.floors[name], kept.floors.get(name, 0), min(own_floor, kept.floor))

    def _evict(self, name: str) -> None:
        self.floors[name] = max(self.floors[name], self.windows[name].pop(0).sequence)

    def _is_over(self, entry: Entry) -> bool:
        return entry.until is not None and entry.until <= self.now

    def pending(self, names: Iterable[str], after: int, through: int) -> list[Entry]:
        return [
            entry
            for entry in self.entries
            if after < entry.sequence <= through
            and entry.channel in names
            and not entry.replaced
            and not self._is_over(entry)
        ]


class Logs:
    """All epochs that there were."""

    def __init__(self, log: Log) -> None:
        self.now = log
        self._by_epoch = {log.epoch: log}

    def go_on(self, log: Log) -> None:
        self.now = self._by_epoch[log.epoch] = log

    def find(self, cursor: str) -> tuple[Log | None, int]:
        epoch, sequence = parse_cursor(cursor) or ("", 0)
        return self._by_epoch.get(epoch), sequence


class Reader:
    """Tracks a subscriber's cursor, and checks its events."""

    def __init__(self, logs: Logs, channels: Sequence[str]) -> None:
        self._logs = logs
        self.channels = channels
        self.cursor: str | None = None
        self._ignored: set[int] = set()  # gone already when it asked for the earliest
        self._from_earliest = False
        self.asks_earliest = False  # no place that it was named would do to resume from

    def resume(self) -> None:
        self._ignored = set()
        self._from_earliest = self.asks_earliest = False

    def start_now(self) -> None:
        self.resume()
        self.cursor = None

    def start_at_the_earliest(self) -> None:
        self._from_earliest = True
        log = self._logs.now
        kept = {entry.sequence for window in log.windows.values() for entry in window}
        self._ignored = {entry.sequence for entry in log.entries} - kept
        self.cursor = f"{log.epoch}-{0:015d}"

    @property
    def has_pending(self) -> bool:
        """Whether something must still be sent to it."""
        if self.cursor is None:
            return True
        log, sequence = self._logs.find(self.cursor)
        return log is not self._logs.now or bool(self._pending(log, sequence, log.head))

    def take(self, event: Event) -> None:
        if event.kind == "reset":
            self.asks_earliest = False
            self._reset(event)
        elif event.kind == "message":
            self._message(event)
        elif event.cursor is not None:
            self._stand(event.cursor)

    def _pending(self, log: Log, after: int, through: int) -> list[Entry]:
        return [entry for entry in log.pending(self.channels, after, through) if entry.sequence not in self._ignored]

    def _message(self, event: Event) -> None:
        self.asks_earliest = False
        log, sequence, after = self._step(event)
        (entry,) = [e for e in log.entries if e.sequence == sequence and e.data == event.data]
        assert entry.channel in self.channels
        assert event.channel in (entry.channel, None)
        assert sequence > after, "a second time"
        assert self._pending(log, after, sequence - 1) == [], "a silent hole"
        self.cursor = event.cursor

    def _stand(self, cursor: str) -> None:
        if cursor == EARLIEST:
            assert self._from_earliest
            self.asks_earliest = True
            return
        if self.cursor is None:
            log, sequence = self._logs.find(cursor)
            assert log is not None
            assert sequence <= log.head
        elif self._logs.find(cursor)[0] is not None:
            log, sequence, after = self._step(Event("", cursor))
            assert sequence >= after, "back"
            assert self._pending(log, after, sequence) == [], "a silent hole"
        self.cursor = cursor

    def _step(self, event: Event) -> tuple[Log, int, int]:
        assert event.cursor is not None
        assert self.cursor is not None
        log, sequence = self._logs.find(event.cursor)
        before, after = self._logs.find(self.cursor)
        assert log is not None
        assert log is before, "another log, and no reset"
        return log, sequence, after

    def _reset(self, event: Event) -> None:
        assert event.cursor is not None
        assert self.cursor is not None
        log, sequence = self._logs.find(event.cursor)
        before, after = self._logs.find(self.cursor)
        assert log is not None
        assert list(event.channels) == [name for name in self.channels if name in event.channels]
        if log is not before:
            assert tuple(event.channels) == tuple(self.channels)
        else:
            assert sequence >= after, "back"
            assert any(log.floors[name] > after for name in self.channels), "a needless reset"
            assert {entry.channel for entry in self._pending(log, after, sequence)} <= set(event.channels)
            for name in event.channels:
                assert log.floors[name] > after or any(e.channel == name and e.sequence > after for e in log.entries)
        self.cursor = event.cursor
