"""A group of publishes as arguments of the script ``APPEND``, and what its answer says about each of them.

A batch whose items have ids is a group of its own: whether it is refused depends on what the log has.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from ...errors import KeyReused
from ..base import Idempotency, Outcome, Publish, Receipt, id_reused
from .entries import NONCE_BYTES, pack

_KEY_BYTES = 16
_MAX_MESSAGES = 1000
_MAX_BYTES = 4 * 1024 * 1024


class _Answer(msgspec.Struct, array_like=True):
    """What is stored with a key, or an id, besides the sequence number. ``skipped``: the numbers of a batch's messages
    that were not appended, with blanks between.
    """

    digest: bytes
    subscribers: Mapping[str, int]
    skipped: str = ""


_decode = msgspec.msgpack.Decoder(_Answer).decode
_encode = msgspec.msgpack.Encoder().encode


class Stored(NamedTuple):
    """The script's answer. ``head``: before the group. ``found``: what was stored before, by the number of the key."""

    epoch: str
    head: int
    replicas: int | None
    found: Mapping[int, bytes]


class Request:
    """The same each time it is sent. ``keyed``: the number of keys in ``arguments``. ``items``: how many of these are
    ids of items.
    """

    items = 0

    def __init__(self, group: Sequence[Publish], time_ms: int) -> None:
        self.group = group
        self.nonce = secrets.token_bytes(NONCE_BYTES)
        self.unanswered = False  # it was sent, and may be stored or not
        self.lifetime_s = _lifetime_s(group[0])
        self.arguments = self._arguments(time_ms)

    @property
    def keyed(self) -> int:
        return len(self._keyed)

    def _arguments(self, time_ms: int) -> list[bytes | int]:
        self._keyed: list[int] = []  # the publishes with a key that is new in this group
        self._again: dict[int, int] = {}  # those with the key of an earlier one in this group: its index
        keys: dict[tuple[str, str], int] = {}
        head: list[bytes | int] = []
        packed: list[bytes] = []
        for index, publish in enumerate(self.group):
            idempotency = publish.idempotency
            if idempotency is not None:
                name = idempotency.publisher, idempotency.key
                if name in keys:
                    self._again[index] = keys[name]
                    continue
                keys[name] = index
                self._keyed.append(index)
                answer = _encode((idempotency.digest, publish.subscribers))
                head += _field(idempotency), answer, len(packed) + 1, len(packed) + len(publish.drafts)
            packed += [pack(draft, time_ms) for draft in publish.drafts]
        return [*head, *packed]

    def outcomes(self, stored: Stored) -> list[Outcome]:
        sequence = stored.head
        found = {self._keyed[number]: receipt for number, receipt in stored.found.items()}
        outcomes: list[Outcome] = []
        for index, publish in enumerate(self.group):
            first = self._again.get(index)
            if first is not None:
                outcomes.append(_repeated(publish, self.group[first], outcomes[first]))
            elif index in found:
                outcomes.append(_first_answer(publish, found[index]))
            else:
                sequence += len(publish.drafts)
                outcomes.append(Receipt(stored.epoch, sequence, publish.subscribers, replicas=stored.replicas))
        return outcomes


class BatchRequest(Request):
    """A batch whose items have ids. Of items with the same id only the first is sent: they are equal."""

    @property
    def keyed(self) -> int:
        return self.items + (self.group[0].idempotency is not None)

    def _arguments(self, time_ms: int) -> list[bytes | int]:
        (publish,) = self.group
        assert publish.ids is not None
        self._positions: list[int] = []  # of the messages that are sent
        self._items: list[int] = []  # positions of those with an id
        seen: set[str] = set()
        head: list[bytes | int] = []
        packed: list[bytes] = []
        for position, (draft, item) in enumerate(zip(publish.drafts, publish.ids, strict=True)):
            if item is not None:
                if item.key in seen:
                    continue
                seen.add(item.key)
                self._items.append(position)
                head += _field(item), _encode((item.digest, {})), len(packed) + 1, len(packed) + 1
            self._positions.append(position)
            packed.append(pack(draft, time_ms))
        self.items = len(self._items)
        if publish.idempotency is not None:
            answer = _encode((publish.idempotency.digest, publish.subscribers, ""))[:-1]  # the script adds the text
            head = [_field(publish.idempotency), answer, 1, len(packed), *head]
        return [*head, *packed]

    def outcomes(self, stored: Stored) -> list[Outcome]:
        (publish,) = self.group
        found = dict(stored.found)
        if publish.idempotency is not None:
            if 0 in found:
                return [self._first_answer(publish, found[0])]
            found = {number - 1: receipt for number, receipt in found.items()}
        return [self._outcome(publish, stored, {self._items[number]: receipt for number, receipt in found.items()})]

    def _outcome(self, publish: Publish, stored: Stored, found: Mapping[int, bytes]) -> Outcome:
        assert publish.ids is not None
        epoch, sequence = "", 0
        for position, receipt in found.items():
            item, earlier = publish.ids[position], _parse(receipt)
            if item is None or earlier.answer.digest != item.digest:
                return id_reused(position)
            if earlier.sequence > sequence:
                epoch, sequence = earlier.epoch, earlier.sequence
        again = self._not_appended(found)
        appended = len(self._positions) - len(found)
        if not appended:
            return Receipt(epoch, sequence, publish.subscribers, repeated=True, again=again)
        head = stored.head + appended
        return Receipt(stored.epoch, head, publish.subscribers, replicas=stored.replicas, again=again)

    def _first_answer(self, publish: Publish, receipt: bytes) -> Outcome:
        outcome = _first_answer(publish, receipt)
        if not isinstance(outcome, Receipt):
            return outcome
        skipped = map(int, _parse(receipt).answer.skipped.split())
        return replace(outcome, again=self._not_appended([self._positions[number - 1] for number in skipped]))

    def _not_appended(self, skipped: Iterable[int]) -> tuple[int, ...]:
        """And those that were not sent."""
        assert self.group[0].ids is not None
        sent = set(self._positions)
        return tuple(sorted([*skipped, *(n for n in range(len(self.group[0].ids)) if n not in sent)]))


def request_of(part: Sequence[Publish], time_ms: int) -> Request:
    has_ids = part[0].ids is not None and any(part[0].ids)
    return BatchRequest(part, time_ms) if has_ids else Request(part, time_ms)


def parts(group: Sequence[Publish]) -> Iterator[Sequence[Publish]]:
    """The group in parts that the server stores within a few milliseconds. All keys of a part have one lifetime."""
    start = messages = size = 0
    for index, publish in enumerate(group):
        if index > start and not _fit(group[start], publish):
            yield group[start:index]
            start, messages, size = index, 0, 0
        messages += len(publish.drafts)
        size += sum([len(draft.data) for draft in publish.drafts])
        if messages >= _MAX_MESSAGES or size >= _MAX_BYTES:
            yield group[start : index + 1]
            start, messages, size = index + 1, 0, 0
    if start < len(group):
        yield group[start:]


def _fit(one: Publish, other: Publish) -> bool:
    return one.ids is None and other.ids is None and _lifetime_s(one) == _lifetime_s(other)


def _lifetime_s(publish: Publish) -> float:
    idempotency = publish.idempotency
    if idempotency is None and publish.ids is not None:
        idempotency = next(filter(None, publish.ids), None)
    return 0.0 if idempotency is None else idempotency.lifetime_s


def _field(idempotency: Idempotency) -> bytes:
    return sha256(f"{idempotency.publisher}\n{idempotency.key}".encode()).digest()[:_KEY_BYTES]


class _Earlier(NamedTuple):
    epoch: str
    sequence: int
    answer: _Answer


def _parse(receipt: bytes) -> _Earlier:
    sequence, _, epoch, packed = receipt.split(b" ", 3)
    return _Earlier(epoch.decode(), int(sequence), _decode(packed))


def _first_answer(publish: Publish, receipt: bytes) -> Outcome:
    assert publish.idempotency is not None
    epoch, sequence, answer = _parse(receipt)
    if answer.digest != publish.idempotency.digest:
        return _reused()
    return Receipt(epoch, sequence, answer.subscribers, repeated=True)


def _repeated(publish: Publish, first: Publish, outcome: Outcome) -> Outcome:
    assert publish.idempotency is not None
    assert first.idempotency is not None
    if publish.idempotency.digest != first.idempotency.digest:
        return _reused()
    return replace(outcome, repeated=True) if isinstance(outcome, Receipt) else outcome


def _reused() -> KeyReused:
    return KeyReused("this Idempotency-Key was used with another body; use a new key for each publish")
