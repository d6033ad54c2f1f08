"""The responses to publishes with an Idempotency-Key, and the ids of items of batches, for as long as repeats are
recognised.

Bounded by bytes: a publisher can send keys faster than they expire. Beyond the bound the oldest are dropped early;
``window_s`` is the effective window, and is in the metrics. Those with a lifetime of their own are kept apart, within
a bound of their own, and are not dropped early: beyond it, further ones are refused.
"""

from __future__ import annotations

from collections import OrderedDict

from ..errors import KeyReused, RequestError, Unavailable
from ..limits import Retention
from .base import Idempotency, Receipt

_NEVER = float("inf")
_ENTRY_BYTES = 768  # size of an entry without its key: the digest, the receipt, its dict entry
_INDEX_BYTES = 36  # size of an index in ``Receipt.again``
_RETRY_S = 60

_Entry = tuple[bytes, float, Receipt]  # digest, time when it was stored, first receipt


class Receipts:
    """Times are monotonic, in seconds."""

    def __init__(self, retention: Retention) -> None:
        self._recent = _Entries(retention.idempotency_s)
        self._lasting = _Entries(0.0)
        self._budget_bytes = retention.idempotency_bytes  # of each
        self._shortened_s: float | None = None  # the age of the last one that was dropped early

    def __len__(self) -> int:
        return len(self._recent.by_name) + len(self._lasting.by_name)

    @property
    def window_s(self) -> float:
        window_s = self._recent.window_s
        return window_s if self._shortened_s is None else min(window_s, self._shortened_s)

    def find(self, repeat: Idempotency, now: float) -> Receipt | RequestError | None:
        """The first receipt for this key, or KeyReused if it was for another publish. Unavailable: there is no room to
        remember it for its lifetime.
        """
        entries = self._lasting if repeat.lifetime_s else self._recent
        if now >= entries.expires_at and entries.expire(now) and entries is self._recent:
            self._shortened_s = None
        entry = entries.by_name.get((repeat.publisher, repeat.key))
        if entry is None:
            return no_room() if entries.bytes > self._budget_bytes and entries is self._lasting else None
        digest, _, receipt = entry
        return answer(receipt, digest, repeat)

    def keep(self, publish: Idempotency, receipt: Receipt, now: float) -> None:
        if publish.lifetime_s:
            self._lasting.window_s = publish.lifetime_s
            self._lasting.keep(publish, receipt, now)
            return
        recent = self._recent
        recent.keep(publish, receipt, now)
        while recent.bytes > self._budget_bytes and len(recent.by_name) > 1:
            self._shortened_s = now - recent.drop_oldest()


class _Entries:
    """All are remembered for ``window_s``. ``expires_at``: when the oldest one expires, or earlier."""

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self.by_name: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self.bytes = 0
        self.expires_at = _NEVER

    def keep(self, publish: Idempotency, receipt: Receipt, now: float) -> None:
        if not self.by_name:
            self.expires_at = now + self.window_s
        name = publish.publisher, publish.key
        if name in self.by_name:  # expired, and used again by another process
            self._drop(name)
        self.by_name[name] = publish.digest, now, receipt
        self.bytes += _size(publish.key, receipt)

    def expire(self, now: float) -> bool:
        """Whether one has expired."""
        self.expires_at = _NEVER
        before = len(self.by_name)
        while self.by_name:
            stored_at = next(iter(self.by_name.values()))[1]
            if stored_at + self.window_s > now:
                self.expires_at = stored_at + self.window_s
                break
            self.drop_oldest()
        return len(self.by_name) < before

    def drop_oldest(self) -> float:
        """Returns the time when it was stored."""
        return self._drop(next(iter(self.by_name)))

    def _drop(self, name: tuple[str, str]) -> float:
        _, stored_at, receipt = self.by_name.pop(name)
        self.bytes -= _size(name[1], receipt)
        return stored_at


def _size(key: str, receipt: Receipt) -> int:
    return _ENTRY_BYTES + len(key) + _INDEX_BYTES * len(receipt.again)


def no_room() -> Unavailable:
    """The outcome of a publish whose key cannot be remembered for its lifetime."""
    return Unavailable("too many signed publishes at once, and nothing was published; retry later", _RETRY_S)


def answer(first: Receipt, digest: bytes, repeat: Idempotency) -> Receipt | KeyReused:
    """The outcome of a repeat of a publish that had ``digest`` and got ``first``."""
    if digest != repeat.digest:
        return KeyReused("this Idempotency-Key was used with another body; use a new key for each publish")
    return Receipt(first.epoch, first.sequence, first.subscribers, repeated=True, again=first.again)


def most_entries(retention: Retention) -> int:
    """The maximum number of entries, for keys of any length."""
    return retention.idempotency_bytes // _ENTRY_BYTES
