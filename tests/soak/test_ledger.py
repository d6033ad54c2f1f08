"""The judge of a soak: it must see what it is there for."""

from __future__ import annotations

import pytest

from ..parity.wires import Event
from .ledger import Ledger, Record, Verdict

EPOCH, OTHER = "aaaaaaaa", "bbbbbbbb"


def at(sequence: int, epoch: str = EPOCH) -> str:
    return f"{epoch}-{sequence:015d}"


def message(sequence: int, data: str | None = None, channel: str = "a", epoch: str = EPOCH) -> Event:
    return Event("message", at(sequence, epoch), data or f"data {sequence}", channel)


def ping(sequence: int) -> Event:
    return Event("ping", at(sequence))


def judged(*events: Event, acknowledged: int = 3, loses: bool = False, epoch: str = EPOCH) -> Verdict:
    """Of one subscriber to channel a, which began at 0; all messages are of that channel."""
    ledger, record = Ledger(), Record(["a"])
    for sequence in range(1, acknowledged + 1):
        ledger.acknowledge(at(sequence, epoch), "a", f"data {sequence}")
    for event in (Event("open", at(0)), *events):
        record.take(event)
    return ledger.judge([record], loses=loses)


def faults(verdict: Verdict) -> dict[str, int]:
    names = ("lost", "repeated", "disordered", "needless_resets", "silent")
    return {name: count for name in names if (count := getattr(verdict, name))}


def test_each_once_and_in_order_is_right() -> None:
    verdict = judged(message(1), message(2), ping(2), message(3))
    assert (faults(verdict), verdict.delivered) == ({}, 3)


def test_a_message_that_was_passed_over_is_lost() -> None:
    assert faults(judged(message(1), message(3))) == {"lost": 1}


def test_a_ping_passes_over_messages_too() -> None:
    assert faults(judged(message(1), ping(3))) == {"lost": 2}


def test_another_payload_under_the_id_is_a_loss() -> None:
    assert faults(judged(message(1), message(2, "other"), message(3))) == {"lost": 1}


def test_an_id_that_comes_twice_is_a_repeat() -> None:
    assert faults(judged(message(1), message(2), message(2), message(3))) == {"repeated": 1}


def test_a_publish_that_is_in_the_log_twice_is_a_repeat() -> None:
    assert faults(judged(message(1), message(2), message(3), message(4, "data 2"))) == {"repeated": 1}


def test_an_earlier_one_behind_a_later_is_out_of_order() -> None:
    assert faults(judged(message(2), message(1), message(3))) == {"disordered": 1}


def test_a_subscriber_that_does_not_reach_the_end_is_silent() -> None:
    assert faults(judged(message(1))) == {"silent": 1}


@pytest.mark.parametrize(
    ("events", "wrong"),
    [
        ((message(1), Event("reset", at(3))), {}),
        ((message(1), message(2), message(3), Event("reset", at(3))), {"needless_resets": 1}),
    ],
)
def test_a_reset_is_needless_where_nothing_was_passed_over(events: tuple[Event, ...], wrong: dict[str, int]) -> None:
    verdict = judged(*events)
    assert (faults(verdict), verdict.resets) == (wrong, 1)


@pytest.mark.parametrize(("loses", "wrong"), [(True, {}), (False, {"needless_resets": 1})])
def test_another_log_is_right_only_where_the_log_may_be_lost(loses: bool, wrong: dict[str, int]) -> None:
    events = (Event("reset", at(0, OTHER)), message(1, epoch=OTHER))
    assert faults(judged(*events, acknowledged=1, loses=loses, epoch=OTHER)) == wrong


@pytest.mark.parametrize(("loses", "wrong"), [(True, {}), (False, {"repeated": 1, "needless_resets": 1})])
def test_a_publish_may_be_in_two_logs_only_where_the_log_may_be_lost(loses: bool, wrong: dict[str, int]) -> None:
    events = (message(1), Event("reset", at(0, OTHER)), message(1, epoch=OTHER))
    assert faults(judged(*events, acknowledged=1, loses=loses, epoch=OTHER)) == wrong


def test_messages_that_break_the_protocol_are_errors() -> None:
    record = Record(["a"])
    with pytest.raises(ValueError, match="not asked for"):
        record.take(message(1, channel="b"))
    with pytest.raises(ValueError, match="not a cursor"):
        record.take(Event("ping", "7"))
