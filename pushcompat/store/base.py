"""The interface of a store: a log that can be followed.

Any number of processes append to one log and follow it. Each message gets the next sequence number of the whole log,
and every follower sees all messages in that order. ``epoch`` identifies the contents of the log: if some of them may
have been lost, the log continues under a new epoch, and followers get ``Lost``.

Floors record evictions: a channel's floor is the highest sequence number evicted from it. The global floor is the
minimum floor of every channel; it rises only if there are too many floors and the lowest are merged into it. With one
floor for all channels, a busy channel would make each reload a ``reset`` for all subscribers.

Publishes come in groups, because a durable store commits a group at the cost of one. Within a group each publish is
atomic, and its messages are in order and contiguous in the log.

The interface uses callbacks instead of coroutines, so that publishes to a log in memory are stored, answered and
delivered within one turn of the hub's loop: a task for each step would cost 30 µs of a publish that takes 50. A log
that waits for a disk or a network calls back later, from the same event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import nsmallest
from operator import attrgetter
from typing import NamedTuple, Protocol

import msgspec

from ..errors import KeyReused, RequestError
from ..limits import Retention
from ..message import ACCESS_LOG, Message


class Lost(Exception):
    """Messages after a follower's position were evicted, or the epoch has changed. Reload the log."""


class StoreError(Exception):
    """The log cannot be read now; the message is for the operator."""


class Idempotency(msgspec.Struct, frozen=True):
    """The idempotency key of a publish: a repeat gets the first response. ``digest``: hash of the request. Or the id of
    an item of a batch: a repeat is not appended. ``digest``: hash of the item.

    ``lifetime_s``: remembered for so long, whatever the configured window is, and not forgotten earlier to save memory:
    beyond the budget such publishes are refused. 0: the configured window.
    """

    publisher: str
    key: str
    digest: bytes
    lifetime_s: float = 0.0


class Publish(msgspec.Struct, eq=False):
    """The drafts of one request. ``subscribers``, by channel, is part of the response and is stored with its key.
    ``ids``: those of the drafts, if any has one; all ids and the key have the same lifetime.
    """

    drafts: Sequence[Message]
    subscribers: Mapping[str, int] = msgspec.field(default_factory=dict)
    idempotency: Idempotency | None = None
    ids: Sequence[Idempotency | None] | None = None


class Receipt(msgspec.Struct, frozen=True):
    """The publish is in the log. ``sequence``: of the last message that was appended. ``repeated``: none was, because
    the publish was stored before, with the same key, or all of its drafts were, with the same ids; ``sequence`` is then
    that of the last of these. ``again``: the indexes of the drafts that were not appended, because of their ids.
    ``replicas``: the number of replicas that have it, if the store is configured to wait for them.
    """

    epoch: str
    sequence: int
    subscribers: Mapping[str, int]
    repeated: bool = False
    replicas: int | None = None
    again: Sequence[int] = ()


Outcome = Receipt | RequestError
Done = Callable[[Sequence[Outcome]], None]
News = Callable[[Sequence[Message]], None]


class Retained(NamedTuple):
    """The retained messages, oldest first, and the floors, head and epoch of the same state: read in one transaction,
    if the store has transactions.

    ``floor`` is the global floor, ``floors`` those of channels that are above it, channels without messages included.
    ``head`` is the highest sequence number ever given (0: none). If the last message has expired, it is higher than
    that of the last retained message. Following from ``head`` misses nothing, and does not return expired messages.
    """

    messages: list[Message]
    floor: int
    head: int
    epoch: str
    floors: Mapping[str, int] = {}


class Health(NamedTuple):
    """``problem`` is a message for the operator, None while subscribers can be served: a log that is full is no problem
    here, but it is not ``writable``. The others describe what is in memory.
    """

    problem: str | None = None
    idempotency_keys: int = 0
    idempotency_window_s: float = (
        0.0  # how long a repeat is currently recognised; shorter than configured under pressure
    )
    writable: bool = True  # the last attempt to write succeeded


class Store(Protocol):
    epoch: str

    async def open(self) -> None:
        """Opens the log. Raises ConfigError if that fails."""

    def append(self, group: Sequence[Publish], done: Done) -> None:
        """Calls ``done`` once, with one outcome for each publish: its receipt, KeyReused, StoreFull, or Unavailable if
        it was not stored, or if that is unknown: a repeat with the same key is not stored twice. Of a publish with ids,
        the drafts whose ids are known are not appended, and the others are, atomically; if an id is known with another
        digest, none is. A log that need not wait calls ``done`` before ``append`` returns. One group at a time.
        """

    async def retained(self) -> Retained:
        """Raises StoreError if the log cannot be read now."""

    async def head(self) -> tuple[str, int]:
        """The log's epoch and the highest sequence number that any process was given before this call. Raises
        StoreError.

        A subscriber may be ahead of this process, if another process was faster. If it is ahead of this number, it is
        ahead of the log.
        """

    async def follow(self, after: int, epoch: str, news: News) -> None:
        """Calls ``news`` with every message that any process appended after ``after``, in order, without gaps or
        duplicates.

        Runs until it is cancelled. Raises Lost if ``epoch`` is no longer the log's, or if any message after ``after``
        was evicted, from any channel (the floor of one channel is not enough). If the log cannot be read, it waits, and
        ``health`` reports the problem.
        """

    def health(self) -> Health: ...

    async def close(self) -> None: ...


def id_reused(index: int) -> KeyReused:
    """The outcome of a batch: the id of this item is known with another digest."""
    return KeyReused(
        f"message {index} of the batch: its id was used for another message; use a new id for each message"
    )


MOST_FLOORS = 10_000  # maximum number of channels' floors; about 150 bytes each


class Kept(NamedTuple):
    """The messages that ``retain`` keeps, and the floors after that. ``evicted`` is the highest sequence number that
    was evicted now or before, not counting replaced and expired messages.
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
    """The messages to retain, of ``messages`` (oldest first). The rules of all stores:

    - expired messages, and messages replaced by a newer one with the same key, are dropped; that is no loss, and does
      not raise the floor;
    - beyond a channel's maximum number and age, and the byte budget of all channels, the oldest messages are evicted,
      and the floors of their channels rise to the last of them;
    - nothing is evicted from the access log, and it does not count in the byte budget;
    - if there are too many floors, the lowest are merged into the global one (``fold``).
    """
    kept: list[Message] = []
    raised = dict(floors or {})
    seen: set[tuple[str, str]] = set()
    left: dict[str, int] = {}  # how many more of each channel are kept
    oldest_ms: dict[str, float] = {}
    left_bytes = retention.bytes
    for message in sorted(messages, key=attrgetter("sequence"), reverse=True):
        channel, sequence = message.channel, message.sequence
        if message.key is not None:
            if (channel, message.key) in seen:
                continue
            seen.add((channel, message.key))
        if message.ttl_s is not None and message.time_ms + message.ttl_s * 1000 <= now_ms:
            continue
        if channel == ACCESS_LOG:
            kept.append(message)
            continue
        if channel not in left:
            left[channel], age_s = retention.of(channel)
            oldest_ms[channel] = now_ms - age_s * 1000
        if left[channel] and left_bytes >= 0 and message.time_ms >= oldest_ms[channel]:
            left_bytes -= weight(message)
            if left_bytes >= 0:
                left[channel] -= 1
                kept.append(message)
                continue
        left[channel] = 0  # all older ones are evicted too, even if the clock jumped
        raised[channel] = max(raised.get(channel, 0), sequence)
        evicted = max(evicted, sequence)
    kept.reverse()
    return Kept(kept, *fold(raised, floor), evicted)


def fold(floors: Mapping[str, int], floor: int, most: int = MOST_FLOORS) -> tuple[int, dict[str, int]]:
    """The global floor, and the floors of channels above it: at most ``most``; the lowest are merged into the global
    one.
    """
    above = {channel: own for channel, own in floors.items() if own > floor}
    if len(above) > most:
        floor = nsmallest(len(above) - most, above.values())[-1]
        above = {channel: own for channel, own in above.items() if own > floor}
    return floor, above


MESSAGE_OVERHEAD_BYTES = 256  # overhead of a payload: the message object, and its entries in lists and dicts


def weight(message: Message) -> int:
    """The bytes that the message counts in a byte budget: its payload, and the overhead."""
    return len(message.data) + MESSAGE_OVERHEAD_BYTES
