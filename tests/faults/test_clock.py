"""Wall-clock jumps: nothing is evicted, and no additional heartbeat is sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pushcompat.hub.history import History
from pushcompat.hub.timers import NEVER, TimerWheel
from pushcompat.limits import Retention
from pushcompat.message import Message
from pushcompat.store.base import Idempotency, Outcome, Publish, Receipt
from pushcompat.store.memory import MemoryStore

from ..harness import Client, Server, running

DAY_S = 86_400.0

# Python runs a module of this name before anything else.
SITECUSTOMIZE = """
import os, time
steady, path = time.time, os.environ["TEST_CLOCK_OFFSET"]
def jumping():
    with open(path) as file:
        return steady() + float(file.read())
time.time = jumping
"""


class JumpingServer(Server):
    """A server whose time of day can be set."""

    offset: Path

    def jump(self, seconds: float) -> None:
        # In one step: the server may read the file at any time.
        new = self.offset.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self.offset)


@pytest.fixture
def jumping(tmp_path: Path) -> Iterator[JumpingServer]:
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE)
    offset = tmp_path / "offset"
    offset.write_text("0")
    env = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}", "TEST_CLOCK_OFFSET": str(offset)}
    for server in running(tmp_path / "state", "--history-age", "60", kind=JumpingServer, env=env):
        assert isinstance(server, JumpingServer)
        server.offset = offset
        yield server


def retained(client: Client, channel: str) -> list[dict[str, object]]:
    client.request("GET", f"/channels/{channel}?cursor=earliest")
    messages: list[dict[str, object]] = json.loads(client.response()[2])["messages"]
    return messages


@pytest.mark.parametrize("days", [1, -1, 400])
def test_a_server_whose_clock_is_set_evicts_nothing_and_says_nothing(jumping: JumpingServer, days: int) -> None:
    with jumping.connect() as stream, jumping.connect() as client:
        stream.request("GET", "/channels/chat?format=json", Accept="text/event-stream")
        assert stream.head()[0] == 200
        assert [json.loads(stream.event()["data"])["control"] for _ in range(2)] == ["open", "ping"]
        jumping.publish("chat?ttl=30", "before")
        before = json.loads(stream.event()["data"])
        first = jumping.publish("chat", "once", Idempotency_Key="k")["id"]
        assert json.loads(stream.event()["data"])["data"] == "once"

        jumping.jump(days * DAY_S)
        # Deadlines and history are looked after once a second: a poll that was held has been through that.
        client.request("GET", "/channels/other?wait=2")
        assert client.response()[0] == 200
        after = json.loads(jumping.publish("chat", "after") and stream.event()["data"])
        assert after["data"] == "after", "nothing was said in between"
        assert round((after["time"] - before["time"]) / DAY_S / 1000) == days, "the clock did jump"
        assert [m["data"] for m in retained(client, "chat")] == ["before", "once", "after"]
        assert jumping.publish("chat", "once", Idempotency_Key="k")["id"] == first


# Part by part


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def message(sequence: int, time_s: float, ttl_s: float | None = None) -> Message:
    return Message("chat", b"x", sequence=sequence, time_ms=int(time_s * 1000), ttl_s=ttl_s)


@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S])
def test_history_goes_by_the_time_that_passed_and_not_by_what_messages_say(jump_s: float) -> None:
    steady = Clock()
    history = History(Retention(age_s=60), clock=steady)
    wall_s = 1_764_000_000.0

    def pass_time(seconds: int) -> None:
        for _ in range(seconds):
            steady.now += 1
            history.expire()

    history.append(message(1, wall_s, ttl_s=90))
    pass_time(30)
    history.append(message(2, wall_s + 30 + jump_s))
    pass_time(1)
    channel = history.channel("chat")
    assert [m.sequence for m in channel.after(0)] == [1, 2]
    channel.served_up_to = 2
    pass_time(31)  # the first one is too old now, the second is not
    assert [m.sequence for m in channel.after(0)] == [2]
    assert channel.floor == 1


class Deadline:
    def __init__(self) -> None:
        self.deadline = self.bucket = NEVER


def test_a_wheel_that_was_stopped_for_an_hour_yields_each_item_once() -> None:
    """A machine that sleeps or is starved: nobody gets the heartbeats of the hour that was missed."""
    wheel: TimerWheel[Deadline] = TimerWheel(100)
    beating = [Deadline() for _ in range(3)]
    for timed in beating:
        wheel.set(timed, 115)
    called = []
    for timed in wheel.advance(100 + 3600):
        called.append(timed)
        wheel.set(timed, 100 + 3600 + 15)
    assert called == beating
    assert list(wheel.advance(100 + 3600)) == []
    assert list(wheel.advance(100 + 3600 + 15)) == beating


def test_a_wheel_that_is_given_an_earlier_time_stays_where_it_is() -> None:
    wheel: TimerWheel[Deadline] = TimerWheel(100)
    timed = Deadline()
    wheel.set(timed, 105)
    assert list(wheel.advance(90)) == []
    assert wheel.now == 100
    assert list(wheel.advance(105)) == [timed]


@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S])
def test_a_store_whose_clock_jumps_keeps_from_its_followers_nothing(jump_s: float) -> None:
    """Enough is appended that the store trims its log, which it does by age too."""

    async def follow() -> list[int]:
        wall, steady = Clock(1_764_000_000.0), Clock()
        store = MemoryStore(Retention(age_s=60), wall, steady)
        followed: list[int] = []
        following = asyncio.ensure_future(
            store.follow(0, store.epoch, lambda batch: followed.extend(m.sequence for m in batch))
        )
        await asyncio.sleep(0)
        for n in range(10):
            if n == 5:
                wall.now += jump_s
            store.append([Publish([Message("chat", b"x") for _ in range(2000)])], lambda outcomes: None)
        following.cancel()
        return followed

    assert asyncio.run(follow()) == list(range(1, 20_001))


@pytest.mark.parametrize("jump_s", [DAY_S, -DAY_S])
def test_a_store_whose_clock_jumps_knows_a_repeated_publish(jump_s: float) -> None:
    async def publish_thrice() -> list[int]:
        wall, steady = Clock(1_764_000_000.0), Clock()
        store = MemoryStore(Retention(idempotency_s=60), wall, steady)

        async def publish() -> int:
            outcomes: list[Outcome] = []
            store.append([Publish([Message("chat", b"x")], {}, Idempotency("p", "k", b"d"))], outcomes.extend)
            (receipt,) = outcomes
            assert isinstance(receipt, Receipt)
            return receipt.sequence

        first = await publish()
        wall.now += jump_s
        steady.now += 59
        second = await publish()
        steady.now += 2
        return [first, second, await publish()]

    assert asyncio.run(publish_thrice()) == [1, 1, 2]
