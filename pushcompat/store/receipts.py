"""The responses to publishes with an Idempotency-Key, for as long as repeats are recognised.

Bounded by bytes: a publisher can send keys faster than they expire. Beyond the bound the oldest are dropped early;
``window_s`` is the effective window, and is in the metrics.
"""

from __future__ import annotations

from collections import OrderedDict

from ..errors import KeyReused
from ..limits import Retention
from .base import Idempotency, Receipt

_NEVER = float("inf")
_ENTRY_BYTES = 768  # size of an entry without its key: the digest, the receipt, its dict entry

_Entry = tuple[bytes, float, Receipt]  # digest, time when it was stored, first receipt


class Receipts:
    """Times are monotonic, in seconds."""

    def __init__(self, retention: Retention) -> None:
        self._window_s = retention.idempotency_s
        self._budget_bytes = retention.idempotency_bytes
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._bytes = 0
        self._expires_at = _NEVER  # when the oldest one expires, or earlier
        self._shortened_s: float | None = None  # the age of the last one that was dropped early

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def window_s(self) -> float:
        return self._window_s if self._shortened_s is None else min(self._window_s, self._shortened_s)

    def find(self, repeat: Idempotency, now: float) -> Receipt | KeyReused | None:
        """The first receipt for this key, or KeyReused if it was for another publish."""
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
        if name in self._entries:  # expired, and used again by another process
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
        """Returns the time when it was stored."""
        _, stored_at, _ = self._entries.pop(name)
        self._bytes -= _ENTRY_BYTES + len(name[1])
        return stored_at


def answer(first: Receipt, digest: bytes, repeat: Idempotency) -> Receipt | KeyReused:
    """The outcome of a repeat of a publish that had ``digest`` and got ``first``."""
    if digest != repeat.digest:
        return KeyReused("this Idempotency-Key was used with another body; use a new key for each publish")
    return Receipt(first.epoch, first.sequence, first.subscribers, repeated=True)


def most_entries(retention: Retention) -> int:
    """The maximum number of entries, for keys of any length."""
    return retention.idempotency_bytes // _ENTRY_BYTES
