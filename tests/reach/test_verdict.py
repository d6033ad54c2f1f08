from __future__ import annotations

import pytest

from .verdict import complaints

RESET = None


@pytest.mark.parametrize("seen", [[1, 2, 3, 4], [2, 3, 4], [3, 4]], ids=str)
def test_each_once_and_in_order_is_right_from_wherever_it_had_begun(seen: list[int]) -> None:
    assert complaints(seen, expected={3, 4}) == []


@pytest.mark.parametrize(
    ("seen", "complaint"),
    [
        ([], "1 never came"),
        ([2, 3, 4], "1 is missing"),
        ([1, 2, 4], "3 is missing"),
        ([1, 2, 3], "4 never came"),
        ([1, 2, 2, 3, 4], "2 came again"),
        ([1, 2, 3, 4, 1], "1 came again"),
        ([1, 3, 2, 4], "2 came after 3"),
        ([1, 2, RESET, 3, 4], "reset, although nothing was lost"),
    ],
    ids=str,
)
def test_one_that_is_lost_repeated_or_out_of_order_is_found(seen: list[int | None], complaint: str) -> None:
    assert complaint in complaints(seen, expected={1, 2, 3, 4})


def test_numbers_that_are_not_expected_may_come_or_not() -> None:
    assert complaints([1, 4], expected={1, 4}) == []
    assert complaints([1, 2, 4], expected={1, 4}) == []


def test_a_reset_excuses_the_gap_that_it_stands_in_and_no_other() -> None:
    assert complaints([1, RESET, 4], expected={1, 2, 3, 4}, history_lost=True) == []
    assert complaints([1, RESET, 3, 5], expected={1, 2, 3, 4, 5}, history_lost=True) == ["4 is missing"]
    assert complaints([1, RESET, 2], expected={1, 2, 3}, history_lost=True) == ["3 never came"]
    assert complaints([1, 2, RESET, 2, 3], expected={1, 2, 3}, history_lost=True) == ["2 came again"]


def test_a_lost_history_has_to_be_told() -> None:
    assert complaints([1, 2, 3], expected={1, 2, 3}, history_lost=True) == ["no reset, although history was lost"]
