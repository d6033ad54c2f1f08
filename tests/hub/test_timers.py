"""The wheel that all deadlines are on."""

from __future__ import annotations

import weakref

from hypothesis import given
from hypothesis import strategies as st

from pushcompat.hub.timers import NEVER, TimerWheel


class Deadline:
    def __init__(self) -> None:
        self.deadline = self.bucket = NEVER


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 200), st.integers(0, 40)), max_size=20))
def test_each_item_is_due_at_the_deadline_that_was_set_last(moves: list[tuple[int, int, int]]) -> None:
    """Each move: who, for which time from then on, and how long until the next move."""
    wheel: TimerWheel[Deadline] = TimerWheel(0)
    all_timed = [Deadline() for _ in range(4)]
    for who, ahead, pause in [*moves, (0, 0, 300)]:
        timed = all_timed[who]
        wheel.set(timed, wheel.now + ahead)
        for _ in range(pause):
            wanted = {id(t) for t in all_timed if t.deadline <= wheel.now + 1}
            assert {id(t) for t in wheel.advance(wheel.now + 1)} == wanted
    assert all(timed.deadline == NEVER for timed in all_timed)


def test_the_wheel_frees_items_without_a_deadline() -> None:
    wheel: TimerWheel[Deadline] = TimerWheel(0)
    timed = Deadline()
    wheel.set(timed, 620)
    timed.deadline = NEVER
    gone = weakref.ref(timed)
    del timed
    assert gone() is not None
    assert list(wheel.advance(30)) == []
    assert gone() is None


def places(wheel: TimerWheel[Deadline]) -> int:
    return sum(map(len, wheel._buckets.values()))


def test_moving_a_deadline_later_is_no_work_until_the_old_one_comes_up() -> None:
    wheel: TimerWheel[Deadline] = TimerWheel(0)
    timed = Deadline()
    for deadline in range(5, 25):
        wheel.set(timed, deadline)
    assert places(wheel) == 1
    assert list(wheel.advance(23)) == []
    assert list(wheel.advance(24)) == [timed]
    assert places(wheel) == 0


def test_a_stale_place_in_an_earlier_bucket_yields_nothing() -> None:
    wheel: TimerWheel[Deadline] = TimerWheel(0)
    timed = Deadline()
    for deadline in (9, 5, 2):
        wheel.set(timed, deadline)
    assert list(wheel.advance(2)) == [timed]
    wheel.set(timed, 9)  # now twice in that bucket, and once in an earlier one
    assert places(wheel) == 3
    assert list(wheel.advance(8)) == []
    assert places(wheel) == 2
    assert list(wheel.advance(20)) == [timed]
    assert places(wheel) == 0


def test_a_deadline_that_is_over_comes_up_at_the_next_tick() -> None:
    wheel: TimerWheel[Deadline] = TimerWheel(100)
    timed = Deadline()
    wheel.set(timed, 7)
    assert list(wheel.advance(100)) == []
    assert list(wheel.advance(101)) == [timed]


def test_a_deadline_that_was_cancelled_does_not_come_up() -> None:
    wheel: TimerWheel[Deadline] = TimerWheel(0)
    timed = Deadline()
    wheel.set(timed, 5)
    wheel.cancel(timed)
    assert list(wheel.advance(50)) == []
    assert places(wheel) == 0
