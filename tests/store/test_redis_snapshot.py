"""The snapshot: what it keeps, what is cut away behind it, and what becomes of writers and readers that are late."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing
from itertools import count
from pathlib import Path

import pytest

from pushcompat.limits import Retention
from pushcompat.store.base import Lost, StoreError
from pushcompat.store.redis import snapshot
from pushcompat.store.redis.link import State
from pushcompat.store.redis.store import RedisStore

from .contract import Follower, append, draft, fill, shown
from .engines import ENGINES, Engine, running, until
from .nodes import Log, Node, following

FEW = Retention(count=2)
PREFIXES = map("snapshot{}".format, count())


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with running(tmp_path_factory.mktemp("engine")) as server:
        yield server


@pytest.fixture
def prefix() -> str:
    return next(PREFIXES)


async def opened(engine: Engine, prefix: str, retention: Retention = FEW) -> RedisStore:
    store = RedisStore(engine.url(prefix), retention)
    await store.open()
    return store


def test_a_quiet_channel_keeps_its_history_behind_a_busy_one_and_memory_does_not_grow(
    engine: Engine, prefix: str
) -> None:
    async def scenario() -> None:
        store = await opened(engine, prefix)
        await fill(store, "quiet", "1")
        lengths = set()
        for _ in range(3):
            await append(store, *(draft("busy", str(number)) for number in range(100)))
            assert await store.trim(tail=0) == ""
            lengths.add(engine.ask("XLEN", f"{{{prefix}}}:log"))
        assert lengths == {"0"}
        retained = await store.retained()
        assert shown(retained.messages) == ["quiet:1", "busy:98", "busy:99"]
        assert (retained.floor, retained.floors, retained.head) == (0, {"busy": 299}, 301)
        await store.close()

    asyncio.run(scenario())


def test_messages_after_the_snapshot_continue_it(engine: Engine, prefix: str) -> None:
    async def scenario() -> None:
        store = await opened(engine, prefix, Retention(count=3))
        await fill(store, "a", *"123")
        await store.trim(tail=0)
        await fill(store, "a", "4")
        for _ in range(2):
            retained = await store.retained()
            assert shown(retained.messages) == ["a:2", "a:3", "a:4"]
            assert (retained.floors, retained.head) == ({"a": 1}, 4)
            await store.trim(tail=0)
        await store.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("tail", [0, 2, 100])
def test_a_follower_of_what_is_only_in_the_snapshot_gets_it_and_goes_on(engine: Engine, prefix: str, tail: int) -> None:
    async def scenario() -> None:
        store = await opened(engine, prefix, Retention(count=10))
        await append(store, draft("a", "1"), draft("a", "2"), draft("b", "3"), draft("a", "4"))
        await store.trim(tail=tail)
        for after in range(5):
            async with aclosing(Follower(store, after)) as follower:
                reading = asyncio.ensure_future(follower.read(5 - after))
                if after == 4:
                    await fill(store, "a", "5")
                    assert [message.sequence for message in await reading] == [5]
                else:
                    reading.cancel()
                    assert [message.sequence for message in await follower.read(4 - after)] == [*range(after + 1, 5)]
        await store.close()

    asyncio.run(scenario())


def test_a_log_is_trimmed_by_whoever_follows_it_when_it_has_outgrown_the_snapshot(
    engine: Engine, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "_LEAST_ENTRIES", 10)
    monkeypatch.setattr(snapshot, "_TAIL_ENTRIES", 5)
    monkeypatch.setattr("pushcompat.store.redis.store._TRIM_APART_S", 0.0)
    monkeypatch.setattr("pushcompat.store.redis.follower._BLOCK_MS", 20)

    async def scenario() -> None:
        log = Log()
        pair = [Node(RedisStore(engine.url(prefix), FEW), log, name) for name in "ab"]
        async with following(*pair):
            for number in range(200):
                await pair[number % 2].publish(f"m{number}")
            for node in pair:
                await node.seen("m199")
            await until(lambda: int(engine.ask("XLEN", f"{{{prefix}}}:log")) <= 20, "the log is trimmed")
            epoch = pair[0].epoch
            for node in pair:
                assert node.epoch == epoch
                assert [m.data for m in (await node.store.retained()).messages] == [b"m198", b"m199"]

    asyncio.run(scenario())


def test_a_follower_that_slept_while_the_log_was_cut_loads_anew_under_the_same_epoch(
    engine: Engine, prefix: str
) -> None:
    async def scenario() -> None:
        store, other = await opened(engine, prefix), await opened(engine, prefix)
        await fill(store, "a", "1")
        retained = await store.retained()
        await fill(other, "a", *"2345")
        await other.trim(tail=0)
        await fill(other, "b", "6")
        async with aclosing(Follower(store, retained.head)) as follower:
            with pytest.raises(Lost):
                await follower.batch()
        assert (await store.retained()).epoch == retained.epoch
        for each in (store, other):
            await each.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ENGINES)
def test_trimming_works_on_a_server_without_free_memory(tmp_path: Path, kind: str) -> None:
    async def scenario() -> None:
        with running(tmp_path / "engine", kind) as full:
            store = await opened(full, "full")
            await fill(store, "a", *"12345")
            full.ask("CONFIG", "SET", "maxmemory", "1")
            assert await store.trim(tail=0) == ""
            assert full.ask("XLEN", "{full}:log") == "0"
            assert shown((await store.retained()).messages) == ["a:4", "a:5"]
            epoch = store.epoch
            full.ask("HSET", "{full}:state", "ident", "another")  # refused: it takes memory
            full.ask("HDEL", "{full}:state", "ident")
            retained = await store.retained()
            assert retained.epoch != epoch
            assert shown(retained.messages) == ["a:4", "a:5"]
            await store.close()

    asyncio.run(scenario())


def test_a_log_loaded_while_others_append_and_trim_is_complete(engine: Engine, prefix: str) -> None:
    async def scenario() -> None:
        reader, writer, trimmer = [await opened(engine, prefix, Retention(count=5)) for _ in range(3)]
        ended = asyncio.Event()

        async def append_all() -> None:
            while not ended.is_set():
                await fill(writer, "a", "x")

        async def trim_all() -> None:
            while not ended.is_set():
                assert await trimmer.trim(tail=0) == ""

        working = [asyncio.ensure_future(work()) for work in (append_all, trim_all)]
        for _ in range(50):
            retained = await reader.retained()
            head = retained.head
            assert [message.sequence for message in retained.messages] == [*range(max(0, head - 5) + 1, head + 1)]
            assert retained.floors == ({"a": head - 5} if head > 5 else {})
        ended.set()
        await asyncio.gather(*working)
        for store in (reader, writer, trimmer):
            await store.close()

    asyncio.run(scenario())


def test_a_writer_whose_lease_is_over_does_not_switch(
    engine: Engine, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        store, other = await opened(engine, prefix), await opened(engine, prefix)
        await fill(store, "a", *"123")
        made = snapshot._chunks
        reached, goes_on = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def pausing(log: snapshot.Log, retention: Retention, now_ms: int) -> tuple[list[bytes], int]:
            monkeypatch.setattr(snapshot, "_chunks", made)
            loop.call_soon_threadsafe(reached.set)
            asyncio.run_coroutine_threadsafe(goes_on.wait(), loop).result()
            return made(log, retention, now_ms)

        monkeypatch.setattr(snapshot, "_chunks", pausing)
        late = asyncio.ensure_future(store.trim(tail=0))
        await reached.wait()
        assert await other.trim() == "another process is writing one"
        engine.ask("DEL", f"{{{prefix}}}:lease")
        await fill(other, "a", *"45")
        assert await other.trim(tail=0) == ""
        goes_on.set()
        assert await late == "the lease has expired"
        assert shown((await store.retained()).messages) == ["a:4", "a:5"]
        for each in (store, other):
            await each.close()

    asyncio.run(scenario())


def test_an_epoch_that_began_behind_the_snapshot_is_not_trimmed_away(engine: Engine, prefix: str) -> None:
    async def scenario() -> None:
        store = await opened(engine, prefix)
        await fill(store, "a", *"123")
        epochs = set()
        for _ in range(3):
            assert await store.trim(tail=0) == ""
            retained = await store.retained()
            assert (shown(retained.messages), retained.floors) == (["a:2", "a:3"], {"a": 1})
            epochs.add(retained.epoch)
            engine.ask("HSET", f"{{{prefix}}}:state", "ident", "another server")
            await store.retained()
        assert len(epochs) == 3
        await fill(store, "a", "4")
        assert shown((await store.retained()).messages) == ["a:3", "a:4"]
        await store.close()

    asyncio.run(scenario())


def test_foreign_entries_in_the_log_are_a_problem_or_a_new_epoch_and_crash_nothing(engine: Engine, prefix: str) -> None:
    async def scenario() -> None:
        store = await opened(engine, prefix)
        await fill(store, "a", "1")
        async with aclosing(Follower(store, 1)) as follower:
            reading = asyncio.ensure_future(follower.batch())
            await asyncio.sleep(0)
            engine.ask("XADD", f"{{{prefix}}}:log", "2-0", "d", "something else")
            with pytest.raises(Lost):
                await reading
        epoch = store.epoch
        assert (await store.retained()).epoch != epoch
        assert (await append(store, draft("a", "3"))).sequence == 3
        engine.ask("DEL", f"{{{prefix}}}:log")
        engine.ask("SET", f"{{{prefix}}}:log", "text")
        with pytest.raises(StoreError, match="set another prefix with"):
            await store.retained()
        await store.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("missing", ["a chunk", "the snapshot", "the log"])
def test_a_log_of_which_parts_are_missing_starts_empty_under_a_new_epoch(
    engine: Engine, prefix: str, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "_PAUSE_S", 0.01)

    async def scenario() -> None:
        store = await opened(engine, prefix)
        await fill(store, "a", "1", "2")
        await store.trim(tail=0)
        await fill(store, "a", "3")
        epoch = store.epoch
        key = engine.ask("HGET", f"{{{prefix}}}:state", "snapshot_key")
        if missing == "a chunk":
            engine.ask("RPOP", key)
        else:
            engine.ask("DEL", key if missing == "the snapshot" else f"{{{prefix}}}:log")
        retained = await store.retained()
        assert retained.epoch != epoch
        assert (retained.messages, retained.floor, retained.head) == ([], 3, 3)
        assert (await append(store, draft("a", "4"))).sequence == 4
        assert shown((await store.retained()).messages) == ["a:4"]
        await store.close()

    asyncio.run(scenario())


def test_a_log_without_its_state_starts_behind_the_last_number(engine: Engine, prefix: str) -> None:
    """Also if its last entry is the start of an epoch, as it is the second time."""

    async def scenario() -> None:
        store = await opened(engine, prefix)
        await fill(store, "a", "1", "2")
        epochs = {store.epoch}
        for _ in range(2):
            engine.ask("DEL", f"{{{prefix}}}:state")
            epochs.add((await store.retained()).epoch)
        receipt = await append(store, draft("a", "3"))
        assert receipt.sequence == 3
        assert len(epochs) == 3
        assert receipt.epoch in epochs
        await store.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(("field", "value"), [("head", "x"), ("snapshot", "x"), ("size", "")])
def test_a_state_that_another_application_has_changed_is_a_problem_until_it_is_deleted(
    engine: Engine, prefix: str, field: str, value: str
) -> None:
    async def scenario() -> None:
        node = Node(RedisStore(engine.url(prefix), FEW, timeout_s=0.1), Log())
        async with following(node):
            await node.publish("1")
            engine.ask("HSET", f"{{{prefix}}}:state", field, value)
            await until(lambda: "set another prefix" in (node.store.health().problem or ""), "the node has noticed")
            engine.ask("DEL", f"{{{prefix}}}:state")
            await until(lambda: not node.store.health().problem, "the log works again")
            await node.publish("2")
            await node.seen("2")

    asyncio.run(scenario())


def test_ten_thousand_messages_of_many_channels_are_all_there_again(engine: Engine, prefix: str) -> None:
    async def scenario() -> None:
        store = await opened(engine, prefix, Retention(count=1000))
        said = [draft(f"c{number % 50}", f"{number}" + "x" * 100) for number in range(10_000)]
        for start in range(0, len(said), 500):
            await append(store, *said[start : start + 500])
            if start == 6000:
                await store.trim(tail=0)
        retained = await store.retained()
        assert [message.data for message in retained.messages] == [message.data for message in said]
        assert [message.sequence for message in retained.messages] == list(range(1, 10_001))
        await store.close()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("state", "due"),
    [
        (State(head=8192), False),
        (State(head=8193), True),
        (State(head=19_000, snapshot=b"1000-0", snapshot_count=9_000), False),
        (State(head=19_001, snapshot=b"1000-0", snapshot_count=9_000), True),
        (State(head=10, size=100_001), True),
        (State(head=10, size=100_001, snapshot=b"9-0", snapshot_size=50_000), False),
        (State(head=10, size=200_000, snapshot=b"10-0"), False),
    ],
)
def test_a_snapshot_is_due_when_the_log_is_long_or_large(state: State, due: bool) -> None:
    assert snapshot.due(state, Retention(bytes=100_000)) == due
