"""What one of several processes has of the limits."""

from __future__ import annotations

import pytest

from pushcompat.limits import Limits


@pytest.mark.parametrize(("workers", "shares"), [(1, [10]), (3, [3, 3, 4]), (4, [2, 2, 3, 3]), (16, [1] * 16)])
def test_the_most_connections_are_divided_exactly(workers: int, shares: list[int]) -> None:
    limits = Limits(max_connections=10)
    parts = [limits.of_worker(number, workers, spread=True).max_connections for number in range(1, workers + 1)]
    assert parts == shares


@pytest.mark.parametrize(("most", "workers", "part"), [(100, 4, 40), (100, 2, 72), (3, 2, 3), (10_000, 4, 2650)])
def test_an_address_has_its_share_on_each_worker_and_as_much_more_as_the_spread_is_uneven(
    most: int, workers: int, part: int
) -> None:
    limits = Limits(max_connections_per_address=most, handshake_rate=most / 10)
    worker = limits.of_worker(1, workers, spread=True)
    assert worker.connections_per_address == part
    assert worker.handshake_rate == pytest.approx(part / 10, rel=0.1)


def test_an_address_may_have_all_its_connections_on_one_worker_if_the_kernel_does_not_spread_them() -> None:
    limits = Limits(max_connections_per_address=100, handshake_rate=5.0)
    worker = limits.of_worker(1, 4, spread=False)
    assert (worker.connections_per_address, worker.handshake_rate) == (100, 5.0)


def test_half_of_a_workers_connections_are_for_one_address_by_default() -> None:
    assert Limits(max_connections=1000).of_worker(1, 4, spread=True).connections_per_address == 125


def test_the_application_gets_as_many_questions_from_all_workers_together() -> None:
    assert [Limits().of_worker(1, workers, spread=True).authorize_at_once for workers in (1, 2, 3, 32)] == [16, 8, 6, 1]


def test_a_publisher_has_its_whole_rate_on_the_worker_that_it_is_connected_to() -> None:
    assert Limits(publish_rate=50.0).of_worker(1, 4, spread=True).publish_rate == 50.0
