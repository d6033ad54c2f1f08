"""By what repeats are recognised; tests/store/contract.py has what stores do with it."""

from __future__ import annotations

import pytest

from pushcompat.access.grant import Grant
from pushcompat.access.replays import REPLAY_S
from pushcompat.errors import KeyReused
from pushcompat.hub.idempotency import item_ids, of_request
from pushcompat.message import Message

SHOP = Grant(publisher="shop")
SIGNED = Grant(publisher="shop", signed=True)


def test_ids_are_separate_from_keys_and_those_that_are_signed_from_others_and_last_as_long_as_signatures() -> None:
    made = []
    for grant in (SHOP, SIGNED):
        key = of_request(grant, b"1", "application/json", ["a"], {}, b"[]")
        unnamed, item = item_ids(grant, [Message("a", b"x"), Message("a", b"x")], [None, "1"])
        assert unnamed is None
        assert item is not None
        made += [key, item]
    assert len({idempotency.publisher for idempotency in made}) == 4
    assert [idempotency.lifetime_s for idempotency in made] == [0.0, 0.0, REPLAY_S, REPLAY_S]
    assert len({idempotency.key for idempotency in made}) == 1


def test_an_id_may_be_in_a_batch_twice_with_the_same_content_only() -> None:
    same = [Message("a", b"x"), Message("b", b"x"), Message("a", b"x")]
    first, _, again = item_ids(SHOP, same, ["1", "2", "1"])
    assert first == again
    with pytest.raises(KeyReused) as refused:
        item_ids(SHOP, same, ["2", "1", "1"])
    assert refused.value.detail.startswith("message 2 of the batch: ")
