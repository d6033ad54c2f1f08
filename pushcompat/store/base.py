"""What a store is: a log that can be tailed, and nothing else.

Any number of processes append to one log and follow it. Each message gets the next sequence number of the whole log,
and every follower sees all messages in that order. ``epoch`` names the log's contents: when some of them may have
been lost, the log goes on under a new epoch, and followers are told ``Lost``.

Publishes come in groups, because a durable store commits a group at the cost of one. Within a group each publish stands
for itself: all of its messages or none, in order, side by side in the log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple, Protocol

import msgspec

from ..errors import KeyReused
from ..limits import Retention
from ..message import Message


class Lost(Exception):
    """The log can not say what came after a follower's place: trimmed meanwhile, or another log. Load it anew."""


class Idempotency(msgspec.Struct, frozen=True):
    """Makes a publish that comes again return the first answer. ``digest`` is of all that was published."""

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


class Retained(NamedTuple):
    """What is still kept, oldest first, the highest sequence number ever evicted, and the highest ever given (0: none).

    The head is not the last message's number where that one's ttl is over. Whoever follows from there misses nothing,
    and does not see again what is over.
    """

    messages: list[Message]
    floor: int
    head: int


class Store(Protocol):
    epoch: str

    async def append(self, publishes: Sequence[Publish]) -> list[Receipt | KeyReused]:
        """One outcome for each publish. Raises Unavailable where nothing of the group was done."""

    async def retained(self) -> Retained: ...

    def follow(self, after: int) -> AsyncIterator[Sequence[Message]]:
        """Every message appended after that one by anybody, in order, none missing, none twice.

        Raises Lost, also where the epoch is another one since ``retained`` was asked.
        """

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


def weight(message: Message) -> int:
    """The bytes of memory that the message counts as in a byte budget: its payload, and what holds it."""
    return len(message.data) + 256
