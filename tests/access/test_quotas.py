from __future__ import annotations

from pushcompat.access.quotas import Quota


def taken(quota: Quota, seconds: float, step: float = 0.01) -> int:
    """How often one can be taken within this time by who tries all the time."""
    steps = round(seconds / step)
    return sum(quota.take(1, 1000 + number * step) == 0 for number in range(steps))


def test_a_quota_gives_its_rate_and_first_what_was_saved_up() -> None:
    assert abs(taken(Quota(5.0, burst_s=10), 20) - (5 * 20 + 5 * 10)) <= 1


def test_a_used_up_quota_tells_when_it_is_not() -> None:
    quota = Quota(0.5, burst_s=4)
    now = 1000.0
    while (wait_s := quota.take(1, now)) == 0:
        pass
    assert 0 < wait_s <= 2
    assert quota.take(1, now + wait_s - 0.01) > 0
    assert quota.take(1, now + wait_s) == 0


def test_a_refusal_takes_nothing() -> None:
    one, other = Quota(1.0), Quota(1.0)
    for quota in (one, other):
        quota.take(100, 1000)
    waits = [one.take(1, 1000) for _ in range(5)]
    assert waits == [other.take(1, 1000)] * 5


def test_a_batch_larger_than_the_quota_is_possible_and_paid_later() -> None:
    quota = Quota(10.0, burst_s=1)
    assert quota.take(1000, 1000) == 0
    assert quota.take(1, 1000) == 99.0
    assert quota.take(1, 1099) == 0


def test_unused_quota_is_saved_up_for_a_bounded_time_only() -> None:
    quota = Quota(1.0, burst_s=5)
    quota.take(1, 0.0)
    assert sum(quota.take(1, 1e6) == 0 for _ in range(100)) == 6


def test_a_quota_is_full_when_nothing_of_it_is_used() -> None:
    quota = Quota(2.0)
    assert quota.is_full(1000)
    quota.take(3, 1000)
    assert [quota.is_full(now) for now in (1001.4, 1001.5)] == [False, True]
