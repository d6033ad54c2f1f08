from __future__ import annotations

import pytest

from pushcompat.client.position import EARLIEST, Position


def cursor(number: int, epoch: str = "e0000000") -> str:
    return f"{epoch}-{number:015d}"


OTHER = "e1111111"


@pytest.mark.parametrize(
    ("start", "reached", "then"),
    [
        ("", cursor(5), cursor(5)),
        (cursor(5), cursor(6), cursor(6)),
        (cursor(5), cursor(4), cursor(5)),
        (cursor(5), cursor(6, OTHER), cursor(5)),  # a reset follows
        ("no cursor", cursor(6), "no cursor"),  # the same
        ("", EARLIEST, ""),
        (cursor(5), EARLIEST, cursor(5)),
        (EARLIEST, EARLIEST, EARLIEST),
        (EARLIEST, cursor(5), cursor(5)),
    ],
)
def test_a_position_moves_within_its_epoch_and_forwards(start: str, reached: str, then: str) -> None:
    position = Position(start)
    position.reached(reached)
    assert position.requested == then


def test_the_opening_cursor_is_not_yet_a_position_after_earliest() -> None:
    position = Position(EARLIEST)
    position.opened(cursor(5))
    assert position.requested == EARLIEST
    position.reached(cursor(5))
    assert position.requested == cursor(5)


def test_the_opening_cursor_of_one_connection_is_not_that_of_the_next() -> None:
    position = Position(EARLIEST)
    position.opened(cursor(5))
    position.connecting()
    assert position.received(cursor(7))
    assert position.requested == EARLIEST


def test_a_position_named_after_earliest_is_not_before_the_last_message() -> None:
    position = Position(EARLIEST)
    position.received(cursor(7))
    position.reached(cursor(5))
    assert position.requested == cursor(7)


def test_a_message_of_another_epoch_is_news() -> None:
    position = Position(cursor(5))
    assert position.received(cursor(3, OTHER))
    assert not position.received(cursor(3, OTHER))


@pytest.mark.parametrize(
    ("start", "received", "named", "contradicts"),
    [
        (EARLIEST, cursor(3), cursor(9, OTHER), True),
        (EARLIEST, cursor(3), cursor(9), False),
        (EARLIEST, cursor(3), EARLIEST, False),
        (EARLIEST, cursor(3), "", False),
        (EARLIEST, None, cursor(9, OTHER), False),
        (cursor(2), cursor(3), cursor(9, OTHER), False),
    ],
)
def test_after_earliest_another_epoch_is_met_with_the_last_message(
    start: str, received: str | None, named: str, contradicts: bool
) -> None:
    position = Position(start)
    if received:
        position.received(received)
    requested = position.requested
    assert position.contradicts(named) is contradicts
    assert position.requested == (received if contradicts else requested)


def test_a_reset_is_taken_whatever_it_names() -> None:
    for start in ("", EARLIEST, cursor(5)):
        position = Position(start)
        position.reset(cursor(2, OTHER))
        assert position.requested == cursor(2, OTHER)


def test_the_mark_changes_with_each_message_and_cursor_that_is_new() -> None:
    position = Position(EARLIEST)
    marks = [position.mark]
    for step in (
        lambda: position.received(cursor(1)),
        lambda: position.reached(cursor(2)),
        lambda: position.received(cursor(3)),
    ):
        step()
        marks.append(position.mark)
        step()
        assert position.mark == marks[-1]
    assert len(set(marks)) == 4
