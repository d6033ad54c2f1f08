"""Turns: one at a time, another when something was left, and none after the end; and when clients should come back."""

from __future__ import annotations

import asyncio

import pytest

from pushcompat.hub.context import Context
from pushcompat.limits import Limits
from pushcompat.metrics import Metrics


class Turns:
    """A context whose turns are noted. ``left``: how many of them leave something to do."""

    def __init__(self, left: int = 0) -> None:
        self.context = Context(Limits(), Metrics())
        self.taken = 0
        self.left = left
        self.schedules = 0  # how often each turn asks for another

    def start(self) -> None:
        self.context.start(self.turn)

    def turn(self) -> bool:
        self.taken += 1
        for _ in range(self.schedules):
            self.context.schedule_turn()
        assert not self.context.turn_scheduled
        return self.taken <= self.left

    async def run(self) -> None:
        """Lets the event loop do what is scheduled."""
        while self.context.turn_scheduled:
            await asyncio.sleep(0)


def test_a_turn_that_is_scheduled_again_and_again_is_taken_once() -> None:
    async def scenario() -> None:
        turns = Turns()
        turns.start()
        for _ in range(3):
            turns.context.schedule_turn()
        assert (turns.taken, turns.context.turn_scheduled) == (0, True)
        await turns.run()
        assert turns.taken == 1
        turns.context.schedule_turn()
        await turns.run()
        assert turns.taken == 2

    asyncio.run(scenario())


def test_as_long_as_something_is_left_turns_follow_and_other_tasks_get_their_turn_in_between() -> None:
    async def scenario() -> None:
        turns = Turns(left=5)
        turns.start()
        turns.context.schedule_turn()
        seen = []
        while turns.context.turn_scheduled:
            await asyncio.sleep(0)
            seen.append(turns.taken)
        assert turns.taken == 6
        assert len(set(seen)) >= 6

    asyncio.run(scenario())


def test_work_scheduled_in_a_turn_is_done_before_it_ends() -> None:
    """So it asks for no other turn."""

    async def scenario() -> None:
        turns = Turns()
        turns.schedules = 3
        turns.start()
        turns.context.schedule_turn()
        await turns.run()
        assert turns.taken == 1

    asyncio.run(scenario())


def test_a_turn_may_be_scheduled_after_one_that_failed() -> None:
    async def scenario() -> None:
        errors = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context["exception"]))
        turns = Turns()

        def failing_once() -> bool:
            turns.turn()
            return bool(1 // (turns.taken - 1) > 1)

        turns.context.start(failing_once)
        for _ in range(2):
            turns.context.schedule_turn()
            await turns.run()
        assert turns.taken == 2
        assert [type(error) for error in errors] == [ZeroDivisionError]

    asyncio.run(scenario())


def test_ready_sockets_start_no_turn_where_one_is_scheduled() -> None:
    async def scenario() -> None:
        turns = Turns()
        turns.start()
        turns.context._on_ready()
        assert turns.taken == 1
        turns.context.schedule_turn()
        turns.context._on_ready()
        assert turns.taken == 1
        await turns.run()
        assert turns.taken == 2

    asyncio.run(scenario())


def test_after_the_end_no_turn_is_taken() -> None:
    async def scenario() -> None:
        turns = Turns()
        turns.start()
        turns.context.schedule_turn()
        turns.context.stop()
        await asyncio.sleep(0)
        assert turns.taken == 0

    asyncio.run(scenario())


@pytest.mark.parametrize(("draining", "least", "most"), [(False, 500, 3000), (True, 2000, 5000)])
def test_clients_come_back_at_random_times_and_later_if_the_server_stops(draining: bool, least: int, most: int) -> None:
    context = Context(Limits(), Metrics())
    context.draining = draining
    times = [context.retry_ms() for _ in range(2000)]
    assert least <= min(times) < least + 100
    assert most - 100 < max(times) <= most
