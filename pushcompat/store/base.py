"""What a store is: a log that can be followed, and nothing else.

Any number of processes append to one log and follow it. Each message gets the next sequence number of the whole log,
and every follower sees all messages in that order. ``epoch`` names the contents of the log: when some of them may have
been lost, the log goes on under a new epoch, and followers get ``Lost``.

What was evicted is told by floors: a channel's floor is the highest sequence number evicted from it. The global floor
is every channel's least one, and rises only where floors are too many and the lowest of them are folded into it. With
one floor for all, a busy channel would make each reload a ``reset`` for everybody.

Publishes come in groups, because a durable store commits a group at the cost of one. Within a group each publish stands
for itself: all of its messages or none, in order, side by side in the log.

The interface is made of calls back rather than of coroutines, because a log that need not wait (in memory, or on a disk
that is not synced) is then read, answered and delivered within one turn of the hub's loop: a task for each step costs
30 µs of a publish that takes 50. A log that does wait calls back later, from the same event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import nsmallest
from operator import attrgetter
from typing import NamedTuple, Protocol

import msgspec

from ..errors import RequestError
from ..limits import Retention
from ..message import Message


class Lost(Exception):
    """The log cannot say what came after a follower's place: evicted meanwhile, or another epoch. Load it anew."""


class StoreError(Exception):
    """The log cannot be read now; the message is a sentence for the operator."""


class Idempotency(msgspec.Struct, frozen=True):
    """Makes a repeated publish return the first answer. ``digest`` is of all that was published."""

    publisher: str
    key: str
    digest: bytes


class Publish(msgspec.Struct, eq=False):
    """The drafts of one request. ``subscribers``, by channel, is part of the answer and so is kept with its key."""

    drafts: Sequence[Message]
    subscribers: Mapping[str, int] = msgspec.field(default_factory=dict)
    idempotency: Idempotency | None = None


class Receipt(msgspec.Struct, frozen=True):
    """The log has it. ``sequence`` is the last message's. ``repeated``: it had it before, under the same key.
    ``replicas``: how many have it too, where a store was told to wait for that.
    """

    epoch: str
    sequence: int
    subscribers: Mapping[str, int]
    repeated: bool = False
    replicas: int | None = None


Outcome = Receipt | RequestError
Done = Callable[[Sequence[Outcome]], None]
News = Callable[[Sequence[Message]], None]


class Retained(NamedTuple):
    """What is still kept, oldest first, and the floors, the head and the epoch of just these contents: read in one
    transaction, where a store has such.

    ``floor`` is the global floor, ``floors`` those of channels that are above it, channels without messages included.
    ``head`` is the highest sequence number ever given (0: none). It is not the last message's where that one's ttl is
    over. Whoever follows from there misses nothing, and does not see again what is over.
    """

    messages: list[Message]
    floor: int
    head: int
    epoch: str
    floors: Mapping[str, int] = {}


class Health(NamedTuple):
    """``problem`` is a sentence for the operator, None while the log works; the others are what it holds in memory."""

    problem: str | None = None
    idempotency_keys: int = 0
    idempotency_window_s: float = 0.0  # for how long a repeat is recognised now; shorter than asked for under pressure


class Store(Protocol):
    epoch: str

    async def open(self) -> None:
        """Makes the log ready. Raises ConfigError where it cannot be."""

    def append(self, group: Sequence[Publish], done: Done) -> None:
        """Calls ``done`` once, with one outcome for each publish: its receipt, KeyReused, StoreFull, or Unavailable
        where nothing of it was stored, or that is not known: a repeat with the same key will not double it. Before it
        returns, where the log need not wait. One group at a time.
        """

    async def retained(self) -> Retained:
        """Raises StoreError where the log cannot be read now."""

    async def head(self) -> tuple[str, int]:
        """The log's epoch and the highest sequence number given, by anybody, before this was asked. Raises StoreError.

        A subscriber may be ahead of this process, which another was faster than. One ahead of this is ahead of the log.
        """

    async def follow(self, after: int, epoch: str, news: News) -> None:
        """Calls ``news`` with every message appended after that one by anybody, in order, none missing, none twice.

        Goes on until it is cancelled. Raises Lost where ``epoch`` is not the log's any more, or where anything after
        ``after`` was evicted meanwhile, from whichever channel (a floor of one channel says nothing of another's).
        Waits for a log that cannot be read now; ``health`` tells.
        """

    def health(self) -> Health: ...

    async def close(self) -> None: ...


MOST_FLOORS = 10_000  # of channels; about 150 bytes each


class Kept(NamedTuple):
    """What ``retain`` keeps, and the floors after that. ``evicted`` is the highest sequence number that it evicted or
    was told of: whatever the reason, but not a message that was replaced or whose ttl is over.
    """

    messages: list[Message]
    floor: int
    floors: dict[str, int]
    evicted: int


def retain(
    messages: Iterable[Message],
    retention: Retention,
    now_ms: int,
    floor: int = 0,
    floors: Mapping[str, int] | None = None,
    evicted: int = 0,
) -> Kept:
    """What of ``messages`` (oldest first) a store keeps. The rules that all stores share:

    - a message whose ttl is over, or whose key came again in its channel, is dropped; that is no loss, and no floor
      rises;
    - beyond a channel's count, the age and the byte budget, the oldest go, and the floors of their channels rise to the
      last of them;
    - floors that are too many fold into the global one (``fold``).
    """
    kept: list[Message] = []
    raised = dict(floors or {})
    seen: set[tuple[str, str]] = set()
    counts: dict[str, int] = {}
    left_bytes = retention.bytes
    over = False  # from here back all go: in each channel what goes is older than what stays, whatever a clock said
    for message in sorted(messages, key=attrgetter("sequence"), reverse=True):
        channel, sequence = message.channel, message.sequence
        if message.key is not None:
            if (channel, message.key) in seen:
                continue
            seen.add((channel, message.key))
        if message.ttl_s is not None and message.time_ms + message.ttl_s * 1000 <= now_ms:
            continue
        count = counts.get(channel, 0)
        if count < retention.count:
            left_bytes -= weight(message)
            over = over or left_bytes < 0 or message.time_ms < now_ms - retention.age_s * 1000
        if over or count >= retention.count:
            raised[channel] = max(raised.get(channel, 0), sequence)
            evicted = max(evicted, sequence)
            continue
        counts[channel] = count + 1
        kept.append(message)
    kept.reverse()
    return Kept(kept, *fold(raised, floor), evicted)


def fold(floors: Mapping[str, int], floor: int, most: int = MOST_FLOORS) -> tuple[int, dict[str, int]]:
    """The global floor, and those of channels that are above it: at most so many, the lowest go into the global one."""
    above = {channel: own for channel, own in floors.items() if own > floor}
    if len(above) > most:
        floor = nsmallest(len(above) - most, above.values())[-1]
        above = {channel: own for channel, own in above.items() if own > floor}
    return floor, above


MESSAGE_OVERHEAD_BYTES = 256  # what holds a payload: the message, its places in lists and dicts


def weight(message: Message) -> int:
    """The bytes of memory that the message counts as in a byte budget: its payload, and what holds it."""
    return len(message.data) + MESSAGE_OVERHEAD_BYTES
