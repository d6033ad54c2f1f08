"""What a store is: a log that can be followed, and nothing else.

Any number of processes append to one log and follow it. Each message gets the next sequence number of the whole log,
and every follower sees all messages in that order. ``epoch`` names the contents of the log: when some of them may have
been lost, the log goes on under a new epoch, and followers get ``Lost``.

Publishes come in groups, because a durable store commits a group at the cost of one. Within a group each publish stands
for itself: all of its messages or none, in order, side by side in the log.

The interface is made of calls back rather than of coroutines, because a log that need not wait (in memory, or on a disk
that is not synced) is then read, answered and delivered within one turn of the hub's loop: a task for each step costs
30 µs of a publish that takes 50. A log that does wait calls back later, from the same event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple, Protocol

import msgspec

from ..errors import Refused
from ..limits import Retention
from ..message import Message


class Lost(Exception):
    """The log cannot say what came after a follower's place: evicted meanwhile, or another epoch. Load it anew."""


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
    """The log has it. ``sequence`` is the last message's. ``repeated``: it had it before, under the same key."""

    epoch: str
    sequence: int
    subscribers: Mapping[str, int]
    repeated: bool = False


Outcome = Receipt | Refused
Done = Callable[[Sequence[Outcome]], None]
News = Callable[[Sequence[Message]], None]


class Retained(NamedTuple):
    """What is still kept, oldest first, the highest sequence number ever evicted, the highest ever given (0: none), and
    the epoch of all this.

    The head is not the last message's number where that one's ttl is over. Whoever follows from there misses nothing,
    and does not see again what is over.
    """

    messages: list[Message]
    floor: int
    head: int
    epoch: str


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
        """Calls ``done`` once, with one outcome for each publish: its receipt, KeyReused, or Unavailable where nothing
        of it was stored. Before it returns, where the log need not wait. One group at a time.
        """

    async def retained(self) -> Retained: ...

    async def follow(self, after: int, epoch: str, news: News) -> None:
        """Calls ``news`` with every message appended after that one by anybody, in order, none missing, none twice.

        Goes on until it is cancelled. Raises Lost, also where ``epoch`` is not the log's any more.
        """

    def health(self) -> Health: ...

    async def close(self) -> None: ...


def retain(messages: Iterable[Message], retention: Retention, now_ms: int, floor: int) -> tuple[list[Message], int]:
    """What of ``messages`` (oldest first) a store keeps, and the floor after that. The rules that all stores share:

    - a message whose ttl is over, or whose key came again in its channel, is dropped; that is no loss, and the floor
      stays;
    - beyond a channel's count, the age and the byte budget, the oldest go, and the floor rises to the last of them.
    """
    kept: list[Message] = []
    seen: set[tuple[str, str]] = set()
    counts: dict[str, int] = {}
    left_bytes = retention.bytes
    over = False  # from here back all go: in each channel what goes is older than what stays, whatever a clock said
    for message in sorted(messages, key=attrgetter("sequence"), reverse=True):
        if message.key is not None:
            if (message.channel, message.key) in seen:
                continue
            seen.add((message.channel, message.key))
        if message.ttl_s is not None and message.time_ms + message.ttl_s * 1000 <= now_ms:
            continue
        count = counts.get(message.channel, 0)
        if count < retention.count:
            left_bytes -= weight(message)
            over = over or left_bytes < 0 or message.time_ms < now_ms - retention.age_s * 1000
        if over or count >= retention.count:
            floor = max(floor, message.sequence)
            continue
        counts[message.channel] = count + 1
        kept.append(message)
    kept.reverse()
    return kept, floor


MESSAGE_OVERHEAD_BYTES = 256  # what holds a payload: the message, its places in lists and dicts


def weight(message: Message) -> int:
    """The bytes of memory that the message counts as in a byte budget: its payload, and what holds it."""
    return len(message.data) + MESSAGE_OVERHEAD_BYTES
