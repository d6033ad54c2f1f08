"""What happens to a server of the log, and what nodes that share it say then.

A publish gets an id, or a 503 (507) whose repeat does not double it. Every node goes on, and knows of each loss.
"""

from __future__ import annotations

import asyncio
import re
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace

from pushcompat.errors import StoreFull, Unavailable
from pushcompat.limits import Retention
from pushcompat.store.base import Lost, Publish, Receipt
from pushcompat.store.redis import follower, link, writer
from pushcompat.store.redis.request import Request
from pushcompat.store.redis.store import RedisStore

from .contract import ALL, Follower, append_group, draft, fill, shown
from .engines import Engine, Relay, Sentinels, running, sentinels, until
from .nodes import Log, Node, following

DURABLE = "--appendonly", "yes", "--appendfsync", "always"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with running(tmp_path / "engine", "redis", *DURABLE) as server:
        yield server


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is waited for when a server stands still."""
    monkeypatch.setattr(writer, "_CALL_S", 0.3)
    monkeypatch.setattr(writer, "_PROBE_S", 0.1)
    monkeypatch.setattr(link, "_CALL_S", 0.3)
    monkeypatch.setattr(link, "_CONNECT_S", 0.3)
    monkeypatch.setattr(follower, "_BLOCK_MS", 100)
    monkeypatch.setattr(follower, "_READ_S", 0.4)
    monkeypatch.setattr(follower, "_CHECK_S", 0.1)


@asynccontextmanager
async def nodes(url: str, timeout_s: float = 5.0, retention: Retention = ALL) -> AsyncIterator[tuple[Node, Node]]:
    log = Log()
    pair = tuple(Node(RedisStore(url, retention, timeout_s=timeout_s), log, name) for name in "ab")
    async with following(*pair):
        yield pair[0], pair[1]


async def healthy(*of: Node) -> None:
    await until(lambda: not any(node.store.health().problem for node in of), "the log works again")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_that_ends_and_comes_back_has_what_was_acknowledged_under_another_epoch(
    engine: Engine, number: int
) -> None:
    async def scenario() -> None:
        async with nodes(engine.url()) as (a, b):
            await a.publish("1")
            await b.seen("1")
            epoch = a.epoch
            await asyncio.to_thread(engine.stop, number)
            await until(lambda: a.store.health().problem and b.store.health().problem, "both nodes notice")
            publishing = asyncio.ensure_future(a.publish("2"))
            await asyncio.to_thread(engine.start)
            assert isinstance(await publishing, Receipt)
            for node in (a, b):
                await node.seen("1", "2")
                assert node.epoch != epoch
            await healthy(a, b)
            assert not a.log.lost(await b.store.retained())

    asyncio.run(scenario())


def test_a_server_that_stays_away_is_an_honest_503_within_the_publishers_patience_and_then_at_once(
    engine: Engine,
) -> None:
    async def scenario() -> None:
        async with nodes(engine.url(), timeout_s=0.5) as (a, _):
            await asyncio.to_thread(engine.stop, signal.SIGKILL)
            assert isinstance(await a.publish("1"), Unavailable)
            for _ in range(20):
                outcome = await a.publish("1")
                assert isinstance(outcome, Unavailable)
                assert "nothing was stored" in outcome.detail
                assert ("Retry-After", "2") in outcome.headers
            await asyncio.to_thread(engine.start)
            await healthy(a)
            await a.publish("1")
            await a.publish("1")
            await a.seen("1")
            assert a.data == ["1"]

    asyncio.run(asyncio.wait_for(scenario(), 10))


@pytest.mark.parametrize("how", ["SIGSTOP", "CLIENT PAUSE"])
def test_a_server_that_stands_still_keeps_publishers_waiting_and_stores_each_publish_once(
    engine: Engine, how: str
) -> None:
    async def scenario() -> None:
        async with nodes(engine.url(), timeout_s=10.0) as (a, b):
            await a.publish("1")
            epoch = a.epoch
            if how == "SIGSTOP":
                engine.send_signal(signal.SIGSTOP)
            else:
                engine.ask("CLIENT", "PAUSE", "1500")
            publishing = [asyncio.ensure_future(node.publish(node.name)) for node in (a, b)]
            await until(lambda: a.store.health().problem and b.store.health().problem, "both nodes notice")
            if how == "SIGSTOP":
                engine.send_signal(signal.SIGCONT)
            assert all(isinstance(outcome, Receipt) for outcome in await asyncio.gather(*publishing))
            for node in (a, b):
                await node.seen("1", "a", "b")
                assert sorted(node.data) == ["1", "a", "b"]
                assert node.epoch == epoch

    asyncio.run(scenario())


def test_a_publish_that_was_refused_while_the_server_stood_still_is_not_doubled_by_its_repeat(engine: Engine) -> None:
    async def scenario() -> None:
        async with nodes(engine.url(), timeout_s=0.3) as (a, b):
            await a.publish("0")
            engine.send_signal(signal.SIGSTOP)
            outcome = await a.publish("1")
            assert isinstance(outcome, Unavailable)
            assert "may have stored" in outcome.detail
            engine.send_signal(signal.SIGCONT)
            await healthy(b)
            assert isinstance(await b.publish("1"), Receipt)
            await b.publish("2")
            await b.seen("1", "2")
            assert b.data == ["0", "1", "2"]

    asyncio.run(scenario())


def test_a_copy_of_a_command_that_arrives_late_is_not_stored_again(engine: Engine) -> None:
    async def scenario() -> None:
        async with Relay(engine.port) as relay, nodes(relay.url("pushcompat")) as (a, b):
            await a.publish("1")
            relay.hold()
            publishing = asyncio.ensure_future(a.publish("2"))
            await until(lambda: a.store.health().problem, "it was sent, and not answered")
            relay.release()  # with what was held
            assert isinstance(await publishing, Receipt)
            await a.publish("3")
            for node in (a, b):
                await node.seen("1", "2", "3")
                assert node.data == ["1", "2", "3"]

    asyncio.run(scenario())


def test_a_group_whose_fence_has_gone_is_not_stored_again(engine: Engine) -> None:
    async def scenario() -> None:
        store = RedisStore(engine.url(), ALL)
        await store.open()
        await fill(store, "c", "1")
        sending = store._writer
        request = Request([Publish([draft("c", "2")])], int(time.time() * 1000))
        sending._number += 1
        await sending._attempt(request)
        engine.ask("DEL", sending.fence)
        request.unanswered = True  # as if the answer had been lost
        with pytest.raises(Unavailable, match="may have stored"):
            await sending._attempt(request)
        await fill(store, "c", "3")
        assert shown((await store.retained()).messages) == ["c:1", "c:2", "c:3"]
        await store.close()

    asyncio.run(scenario())


def test_a_group_that_is_sent_again_after_a_new_epoch_keeps_its_number(engine: Engine) -> None:
    async def scenario() -> None:
        store, other = RedisStore(engine.url(), ALL), RedisStore(engine.url(), ALL)
        await store.open()
        sending = store._writer
        request = Request([Publish([draft("c", "1")])], int(time.time() * 1000))
        await until(lambda: sending.fence, "it is registered")
        sending._number += 1
        (first,) = await sending._attempt(request)
        engine.ask("HSET", "{pushcompat}:state", "ident", "another server")
        await other.open()  # makes a new epoch
        request.unanswered = True  # as if the answer had been lost
        (again,) = await sending._attempt(request)
        assert isinstance(first, Receipt)
        assert again == replace(first, epoch=other.epoch)
        assert again != first
        assert shown((await store.retained()).messages) == ["c:1"]
        for each in (store, other):
            await each.close()

    asyncio.run(scenario())


def test_a_connection_that_was_closed_while_it_was_idle_is_replaced_without_a_problem(
    engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        store = RedisStore(engine.url(), ALL)
        await store.open()
        for number in range(3):
            await fill(store, "c", str(number))
            engine.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert shown((await store.retained()).messages) == ["c:0", "c:1", "c:2"]
        assert store.health().problem is None
        await store.close()

    asyncio.run(scenario())
    assert not caplog.records


def test_a_connection_for_publishes_that_breaks_while_it_is_idle_is_noticed(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pushcompat.store.redis.store._KEEP_ALIVE_S", 0.0)

    async def scenario() -> None:
        async with nodes(engine.url()) as (a, _):
            sending = a.store._writer  # type: ignore[attr-defined]
            before = sending._link
            await before._connection.disconnect(nowait=True)
            await until(lambda: sending._link not in (before, None), "there is another one")
            assert isinstance(await a.publish("1"), Receipt)

    asyncio.run(scenario())


def test_a_large_group_is_stored_in_parts_each_publish_in_one_piece(engine: Engine) -> None:
    async def scenario() -> None:
        store = RedisStore(engine.url(), Retention(count=10_000))
        await store.open()
        group = [Publish([draft("c", f"{n}.{part}") for part in range(300)]) for n in range(10)]
        outcomes = await append_group(store, [*group, Publish([draft("c", "y" * 2**20)]), *group])
        sequences = [outcome.sequence for outcome in outcomes if isinstance(outcome, Receipt)]
        assert sequences == [*range(300, 3001, 300), 3001, *range(3301, 6002, 300)]
        assert (await store.head())[1] == 6001
        await store.close()

    asyncio.run(scenario())


def test_connections_that_are_killed_all_the_time_lose_and_repeat_nothing(engine: Engine) -> None:
    async def scenario() -> None:
        async with nodes(engine.url(), timeout_s=20.0) as (a, b):
            epoch = a.epoch

            async def storm() -> None:
                for _ in range(60):
                    await asyncio.to_thread(engine.ask, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                    await asyncio.sleep(0.01)

            async def publish(node: Node) -> None:
                for _ in range(150):
                    assert isinstance(await node.publish(), Receipt)

            await asyncio.gather(storm(), publish(a), publish(b))
            for node in (a, b):
                await node.seen(*a.log.acknowledged)
                assert len(node.data) == 300
                assert node.epoch == epoch

    asyncio.run(scenario())


def test_a_flushed_server_is_a_new_epoch_and_the_log_goes_on(engine: Engine) -> None:
    async def scenario() -> None:
        async with nodes(engine.url()) as (a, b):
            await a.publish("1")
            await b.seen("1")
            epoch = a.epoch
            engine.ask("FLUSHALL")
            assert isinstance(await a.publish("2"), Receipt)
            for node in (a, b):
                await node.seen("2")
                assert node.epoch != epoch
                assert node.data == ["2"]

    asyncio.run(scenario())


def test_a_flushed_server_is_noticed_though_nobody_publishes(engine: Engine) -> None:
    async def scenario() -> None:
        async with nodes(engine.url()) as (a, b):
            await a.publish("1")
            await b.seen("1")
            epoch = a.epoch
            engine.ask("FLUSHALL")
            await until(lambda: a.epoch != epoch and b.epoch == a.epoch, "both nodes have the new epoch")

    asyncio.run(scenario())


def test_a_log_that_was_replaced_by_as_long_a_one_is_noticed(engine: Engine) -> None:
    """An old copy of all keys is restored, and as much is published as was there before."""

    async def scenario() -> None:
        async with nodes(engine.url("x")) as (a, b), nodes(engine.url("y")) as (other, _):
            for node in (a, other):
                for number in range(3):
                    await node.publish(f"{node is other}{number}")
            await b.seen("False2")
            epoch = a.epoch
            engine.ask("COPY", "{y}:log", "{x}:log", "REPLACE")
            await until(lambda: a.epoch != epoch and b.epoch == a.epoch, "both nodes have a new epoch")
            await a.publish("new")
            await b.seen("new")

    asyncio.run(scenario())


def test_a_server_that_starts_from_an_old_dump_is_a_new_epoch(tmp_path: Path) -> None:
    async def scenario() -> None:
        with running(tmp_path / "engine") as engine:
            async with nodes(engine.url()) as (a, b):
                await a.publish("kept")
                engine.ask("SAVE")
                await a.publish("lost")
                await b.seen("kept", "lost")
                epoch = a.epoch
                await asyncio.to_thread(engine.stop, signal.SIGKILL)
                await asyncio.to_thread(engine.start)
                receipt = await b.publish("new")
                assert isinstance(receipt, Receipt)
                assert receipt.epoch != epoch
                for node in (a, b):
                    await node.seen("kept", "new")
                    assert node.data == ["kept", "new"]

    asyncio.run(scenario())


def test_a_server_that_is_out_of_memory_is_507_and_goes_on_when_there_is_room(engine: Engine) -> None:
    async def scenario() -> None:
        async with nodes(engine.url()) as (a, b):
            await a.publish("1")
            await b.seen("1")
            engine.ask("CONFIG", "SET", "maxmemory", "1")
            outcome = await a.publish("2")
            assert isinstance(outcome, StoreFull)
            health = a.store.health()
            assert (health.problem, health.writable) == (None, False)  # subscribers can be served
            assert (await b.store.retained()).head == 1
            engine.ask("CONFIG", "SET", "maxmemory", "0")
            assert isinstance(await a.publish("2"), Receipt)
            await b.seen("1", "2")
            assert a.store.health().writable

    asyncio.run(scenario())


def test_a_server_that_has_run_out_of_memory_gets_room_when_the_log_is_trimmed(engine: Engine) -> None:
    async def scenario() -> None:
        async with nodes(engine.url(), retention=Retention(count=10)) as (a, b):
            used = re.search(r"used_memory:(\d+)", engine.ask("INFO", "memory"))
            assert used is not None
            engine.ask("CONFIG", "SET", "maxmemory", str(int(used[1]) + 2_000_000))
            outcomes = []
            while not outcomes or isinstance(outcomes[-1], Receipt):
                outcomes.append(await a.publish(f"{len(outcomes)}" + "x" * 20_000))
            assert isinstance(outcomes[-1], StoreFull)
            await until(lambda: a.store.health().writable, "there is room")  # after a snapshot of the last ten
            assert isinstance(await a.publish("more"), Receipt)
            await b.seen("more")
            assert len((await b.store.retained()).messages) == 10

    asyncio.run(scenario())


@pytest.mark.parametrize(("kind", "more"), [("redis", -2), ("redis", 0), ("redis", 3), ("valkey", 0)])
def test_a_replica_that_takes_over_without_the_last_messages_is_a_new_epoch(
    tmp_path: Path, kind: str, more: int
) -> None:
    """However many messages come before those are missed: fewer than were lost, as many, or more."""

    async def scenario() -> None:
        with sentinels(tmp_path, kind) as servers:
            async with nodes(servers.url(), timeout_s=10.0) as (a, b):
                for number in range(3):
                    await a.publish(f"kept{number}")
                await until(lambda: "slave0:ip" in servers.master.ask("INFO", "replication"), "there is a replica")
                servers.master.ask("WAIT", "1", "1000")
                await until(lambda: offsets(servers) == 0, "the replica has all")
                servers.cut_replication()
                for number in range(5):
                    await a.publish(f"lost{number}")
                await b.seen("lost4")
                epoch = a.epoch
                await asyncio.to_thread(servers.master.stop, signal.SIGKILL)
                first = await a.publish("new0")
                assert isinstance(first, Receipt)
                assert first.epoch != epoch
                for number in range(1, 5 + more):
                    await b.publish(f"new{number}")
                for node in (a, b):
                    await node.seen(*(f"new{number}" for number in range(5 + more)))
                    assert node.data == [f"kept{n}" for n in range(3)] + [f"new{n}" for n in range(5 + more)]
                    assert node.epoch != epoch
                await healthy(a, b)

    asyncio.run(scenario())


def test_a_node_that_had_read_nothing_of_what_was_lost_makes_a_new_epoch(tmp_path: Path) -> None:
    """Its chain is whole, and the node that could have noticed is gone."""

    async def scenario() -> None:
        with sentinels(tmp_path) as servers:
            one, other = RedisStore(servers.url(), ALL), RedisStore(servers.url(), ALL)
            for store in (one, other):
                await store.open()
            await fill(one, "c", "kept")
            await until(lambda: offsets(servers) == 0, "the replica has all")
            loaded = await other.retained()
            servers.cut_replication()
            await fill(one, "c", "lost")
            await one.close()
            await asyncio.to_thread(servers.master.stop, signal.SIGKILL)
            async with aclosing(Follower(other, loaded.head, loaded.epoch)) as follower:
                with pytest.raises(Lost):
                    await follower.batch()
            retained = await other.retained()
            assert retained.epoch != loaded.epoch
            assert shown(retained.messages) == ["c:kept"]
            await other.close()

    asyncio.run(scenario())


def test_a_server_that_was_replaced_and_came_back_without_the_last_messages_is_a_new_epoch(tmp_path: Path) -> None:
    """It is the same process, and no node was connected to the other one."""

    async def scenario() -> None:
        with sentinels(tmp_path) as servers:
            servers.sentinel.stop()
            store = RedisStore(servers.master.url(), ALL)
            await store.open()
            await fill(store, "c", "kept")
            await until(lambda: offsets(servers) == 0, "the replica has all")
            epoch = store.epoch
            servers.cut_replication()
            await fill(store, "c", "lost")
            await store.close()
            run_id = engine_run_id(servers.master)
            servers.replica.ask("REPLICAOF", "NO", "ONE")
            servers.master.ask("REPLICAOF", "127.0.0.1", str(servers.replica.port))
            await until(lambda: "master_link_status:up" in servers.master.ask("INFO", "replication"), "it is a replica")
            servers.master.ask("REPLICAOF", "NO", "ONE")
            assert engine_run_id(servers.master) == run_id
            store = RedisStore(servers.master.url(), ALL)
            await store.open()
            retained = await store.retained()
            assert retained.epoch != epoch
            assert shown(retained.messages) == ["c:kept"]
            await store.close()

    asyncio.run(scenario())


def engine_run_id(server: Engine) -> str:
    found = re.search(r"run_id:(\w+)", server.ask("INFO", "server"))
    assert found is not None
    return found[1]


def offsets(servers: Sentinels) -> int:
    """How many bytes the replica is behind."""
    at = [
        int(re.search(r"master_repl_offset:(\d+)", server.ask("INFO", "replication"))[1])  # type: ignore[index]
        for server in (servers.master, servers.replica)
    ]
    return at[0] - at[1]


def test_the_first_replica_of_a_server_is_no_new_epoch(engine: Engine, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with nodes(engine.url()) as (a, b):
            await a.publish("1")
            epoch = a.epoch
            with running(tmp_path / "replica", "redis", "--replicaof", "127.0.0.1", str(engine.port)):
                await until(lambda: "state=online" in engine.ask("INFO", "replication"), "the replica is there")
                found = re.search(r"master_replid:(\w+)", engine.ask("INFO", "replication"))
                assert found is not None
                identity = found[1]
                await until(
                    lambda: engine.ask("HGET", "{pushcompat}:state", "ident").endswith(identity), "it was noticed"
                )
                await a.publish("2")
                await b.seen("1", "2")
                await healthy(a, b)
                assert (a.epoch, b.epoch) == (epoch, epoch)

    asyncio.run(scenario())


def test_a_publish_that_waits_for_replicas_says_how_many_have_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        with sentinels(tmp_path) as servers:
            async with nodes(servers.url("wait=1")) as (a, _):
                first, again = await a.publish("1"), await a.publish("1")
                assert isinstance(first, Receipt)
                assert isinstance(again, Receipt)
                assert (first.replicas, again.replicas) == (1, None)
                servers.cut_replication()
                alone = await a.publish("2")
                assert isinstance(alone, Receipt)
                assert alone.replicas == 0

    asyncio.run(scenario())
