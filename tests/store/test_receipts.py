"""Receipts: for how long a repeat is recognised, and that they are bounded."""

from __future__ import annotations

import pytest

from pushcompat.errors import KeyReused, Unavailable
from pushcompat.limits import Retention
from pushcompat.store.base import Idempotency, Receipt
from pushcompat.store.receipts import _ENTRY_BYTES, Receipts

RECEIPT = Receipt("epoch123", 7, {"a": 2})


def publish(key: str, publisher: str = "me", digest: bytes = b"digest") -> Idempotency:
    return Idempotency(publisher, key, digest)


def test_a_repeat_gets_the_first_answer_marked_as_repeated() -> None:
    receipts = Receipts(Retention())
    receipts.keep(publish("k"), RECEIPT, 0.0)
    assert receipts.find(publish("k"), 1.0) == Receipt("epoch123", 7, {"a": 2}, repeated=True)
    assert receipts.find(publish("other"), 1.0) is None


def test_a_key_is_its_publishers_own() -> None:
    receipts = Receipts(Retention())
    receipts.keep(publish("k"), RECEIPT, 0.0)
    assert receipts.find(publish("k", publisher="another"), 1.0) is None


def test_a_key_with_another_body_is_refused_and_the_first_answer_stays() -> None:
    receipts = Receipts(Retention())
    receipts.keep(publish("k"), RECEIPT, 0.0)
    assert isinstance(receipts.find(publish("k", digest=b"another"), 1.0), KeyReused)
    assert isinstance(receipts.find(publish("k"), 1.0), Receipt)


def test_a_key_is_forgotten_when_its_window_ends_and_its_place_is_free() -> None:
    receipts = Receipts(Retention(idempotency_s=60.0))
    receipts.keep(publish("k"), RECEIPT, 0.0)
    receipts.keep(publish("l"), RECEIPT, 30.0)
    assert isinstance(receipts.find(publish("k"), 59.9), Receipt)
    assert receipts.find(publish("k"), 60.0) is None
    assert isinstance(receipts.find(publish("l"), 60.0), Receipt)
    assert (len(receipts), receipts._recent.bytes) == (1, _ENTRY_BYTES + 1)
    assert receipts.find(publish("l"), 90.0) is None
    assert (len(receipts), receipts._recent.bytes, receipts.window_s) == (0, 0, 60.0)


def test_a_key_that_another_process_has_used_again_keeps_nothing_else_longer_and_counts_once() -> None:
    receipts = Receipts(Retention(idempotency_s=60.0))
    receipts.keep(publish("k"), RECEIPT, 0.0)
    receipts.keep(publish("l"), RECEIPT, 30.0)
    receipts.keep(publish("k"), RECEIPT, 70.0)
    assert receipts.find(publish("l"), 90.0) is None
    assert (len(receipts), receipts._recent.bytes) == (1, _ENTRY_BYTES + 1)


@pytest.mark.parametrize("length", [1, 256])
def test_beyond_their_budget_the_oldest_go_and_the_window_says_how_short_it_has_become(length: int) -> None:
    fitting = 10
    receipts = Receipts(Retention(idempotency_s=300.0, idempotency_bytes=fitting * (_ENTRY_BYTES + length)))
    keys = [chr(ord("A") + number) * length for number in range(fitting + 5)]
    for second, key in enumerate(keys):
        assert receipts.window_s == (300.0 if second <= fitting else 10.0)
        receipts.keep(publish(key), RECEIPT, float(second))
    known = [key for key in keys if receipts.find(publish(key), 15.0)]
    assert known == keys[5:]
    assert len(receipts) == fitting


def test_the_window_is_whole_again_when_all_that_was_under_pressure_is_over() -> None:
    receipts = Receipts(Retention(idempotency_s=60.0, idempotency_bytes=2 * _ENTRY_BYTES))
    for second in range(5):
        receipts.keep(publish(str(second)), RECEIPT, float(second))
    assert receipts.window_s < 60.0
    receipts.find(publish("any"), 100.0)
    assert receipts.window_s == 60.0


def test_keys_with_a_lifetime_have_a_budget_of_their_own_within_which_none_goes_early() -> None:
    receipts = Receipts(Retention(idempotency_s=10.0, idempotency_bytes=2 * _ENTRY_BYTES))
    lasting = [Idempotency("me", key, b"digest", 60.0) for key in "abc"]
    for second, key in enumerate(lasting[:2]):
        assert receipts.find(key, float(second)) is None
        receipts.keep(key, RECEIPT, float(second))
    for second in range(20):
        receipts.keep(publish(str(second)), RECEIPT, float(second))
    assert isinstance(receipts.find(lasting[2], 59.0), Unavailable)
    assert all(isinstance(receipts.find(key, 59.0), Receipt) for key in lasting[:2])
    assert receipts.window_s < 10.0
    assert receipts.find(lasting[2], 60.0) is None
    assert isinstance(receipts.find(lasting[1], 60.0), Receipt)


def test_one_answer_is_kept_whatever_the_budget() -> None:
    receipts = Receipts(Retention(idempotency_bytes=0))
    for key in "ab":
        receipts.keep(publish(key), RECEIPT, 0.0)
        assert isinstance(receipts.find(publish(key), 0.0), Receipt)
    assert len(receipts) == 1
