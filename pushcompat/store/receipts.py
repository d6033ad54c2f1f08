"""The answers to publishes with an Idempotency-Key, for as long as a repeat of them is recognised.

Bounded by count and by bytes: a publisher can send keys faster than their window ends. Beyond the bound the oldest go
before their time; ``window_s`` says how short the window has become, and is in the metrics.
"""

from __future__ import annotations

from collections import OrderedDict

from ..errors import KeyReused
from ..limits import Retention
from .base import Idempotency, Receipt

_NEVER = float("inf")
_ENTRY_BYTES = 768  # what an entry takes beside its key: the digest, the receipt, its place in the dict

_Entry = tuple[bytes, float, Receipt]  # digest, when it was stored, the first answer


class Receipts:
    """Times are monotonic, in seconds."""

    def __init__(self, retention: Retention) -> None:
        self._window_s = retention.idempotency_s
        self._budget_bytes = retention.idempotency_bytes
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._bytes = 0
        self._expires_at = _NEVER  # when the oldest one does, or before
        self._shortened_s: float | None = None  # the age of the last one that was dropped before its time

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def window_s(self) -> float:
        return self._window_s if self._shortened_s is None else min(self._window_s, self._shortened_s)

    def find(self, repeat: Idempotency, now: float) -> Receipt | KeyReused | None:
        """The first answer to this key, or KeyReused where it was to another publish."""
        if now >= self._expires_at:
            self._expire(now)
        entry = self._entries.get((repeat.publisher, repeat.key))
        if entry is None:
            return None
        digest, _, receipt = entry
        return answer(receipt, digest, repeat)

    def keep(self, publish: Idempotency, receipt: Receipt, now: float) -> None:
        if not self._entries:
            self._expires_at = now + self._window_s
        name = publish.publisher, publish.key
        if name in self._entries:  # its window is over, and another process has used it again since
            self._drop(name)
        self._entries[name] = publish.digest, now, receipt
        self._bytes += _ENTRY_BYTES + len(publish.key)
        while self._bytes > self._budget_bytes and len(self._entries) > 1:
            self._shortened_s = now - self._drop_oldest()

    def _expire(self, now: float) -> None:
        self._expires_at = _NEVER
        while self._entries:
            stored_at = next(iter(self._entries.values()))[1]
            if stored_at + self._window_s > now:
                self._expires_at = stored_at + self._window_s
                break
            self._drop_oldest()
            self._shortened_s = None

    def _drop_oldest(self) -> float:
        return self._drop(next(iter(self._entries)))

    def _drop(self, name: tuple[str, str]) -> float:
        """Returns when it was stored."""
        _, stored_at, _ = self._entries.pop(name)
        self._bytes -= _ENTRY_BYTES + len(name[1])
        return stored_at


def answer(first: Receipt, digest: bytes, repeat: Idempotency) -> Receipt | KeyReused:
    """To a publish with the same key as one with that digest, which was answered with ``first``."""
    if digest != repeat.digest:
        return KeyReused("this Idempotency-Key was used with another body; use a new key for each publish")
    return Receipt(first.epoch, first.sequence, first.subscribers, repeated=True)


def most_entries(retention: Retention) -> int:
    """How many there may be, whatever their keys."""
    return retention.idempotency_bytes // _ENTRY_BYTES
