"""Numbers and names of subscribers in other processes, on every kind of registry."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pushcompat.limits import Retention
from pushcompat.store import registry_of
from pushcompat.store.base import StoreError
from pushcompat.store.memory import MemoryStore
from pushcompat.store.presence import KEPT_NOTES, LEASE_S, Changes, Exchanged, News, Peers, Registry
from pushcompat.store.sqlite import SqliteStore

from .engines import ENGINES, Engine, running
from .registry import LocalRegistry

PREFIXES = map("presence{}".format, count())
NOTHING = Changes()

MakeRegistry = Callable[[], Registry]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Engine]]:
    started: dict[str, Iterator[Engine]] = {}
    found: dict[str, Engine] = {}

    def engine(name: str) -> Engine:
        if name not in found:
            manager = running(tmp_path_factory.mktemp("engine"), name)
            started[name] = manager  # type: ignore[assignment]
            found[name] = manager.__enter__()
        return found[name]

    yield engine
    for manager in started.values():
        manager.__exit__(None, None, None)  # type: ignore[attr-defined]


@pytest.fixture(params=["local", "sqlite", *ENGINES])
def make_registry(request: pytest.FixtureRequest, tmp_path: Path, engines: Callable[[str], Engine]) -> MakeRegistry:
    """Each call: the registry of another process that shares the log."""
    if request.param == "local":
        local = LocalRegistry()
        return lambda: local
    if request.param == "sqlite":
        return lambda: SqliteStore(tmp_path / "log", Retention()).registry()
    pytest.importorskip("redis")
    from pushcompat.store.redis.store import RedisStore

    url = engines(request.param).url(next(PREFIXES))
    return lambda: RedisStore(url, Retention()).registry()


class Process:
    def __init__(self, registry: Registry, name: str) -> None:
        self.now = 1000.0
        self.registry = registry
        self.name = name
        self.peers = Peers(registry, name, lambda: self.now)

    async def say(self, changes: Changes = NOTHING) -> News:
        return await self.peers.exchange(changes)

    @property
    def others(self) -> dict[str, int]:
        return dict(self.peers.others)


class Stage:
    def __init__(self, make_registry: MakeRegistry) -> None:
        self._make_registry = make_registry
        self.processes: list[Process] = []

    async def start(self) -> Process:
        registry = self._make_registry()
        await registry.open()
        self.processes.append(Process(registry, f"p{len(self.processes)}"))
        return self.processes[-1]

    async def settle(self, *processes: Process) -> None:
        """Everyone has asked, answered and heard."""
        for _ in range(4):
            for process in processes or self.processes:
                await process.say()


def play(make_registry: MakeRegistry, scenario: Callable[[Stage], Awaitable[None]]) -> None:
    async def played() -> None:
        stage = Stage(make_registry)
        try:
            await scenario(stage)
        finally:
            for process in stage.processes:
                await process.registry.close(process.name)

    asyncio.run(played())


def test_a_log_in_memory_is_shared_with_nobody() -> None:
    assert registry_of(MemoryStore(Retention())) is None


def test_numbers_of_all_other_processes_are_added_up(make_registry: MakeRegistry) -> None:
    async def scenario(stage: Stage) -> None:
        one, two, three = [await stage.start() for _ in range(3)]
        await one.say(Changes({"a": 2, "b": 1}))
        await two.say(Changes({"a": 3}))
        await three.say(Changes({"c": 1}))
        await stage.settle()
        assert one.others == {"a": 3, "c": 1}
        assert two.others == {"a": 2, "b": 1, "c": 1}
        assert three.others == {"a": 5, "b": 1}
        await one.say(Changes({"a": 0, "b": 4}))
        assert (await two.say()).changed == {"a", "b"}
        assert two.others == {"b": 4, "c": 1}
        assert [len(process.peers) for process in stage.processes] == [3, 3, 3]
        assert [process.peers.first for process in stage.processes] == [True, False, False]

    play(make_registry, scenario)


def test_a_process_that_starts_later_gets_the_counts_of_the_others(make_registry: MakeRegistry) -> None:
    async def scenario(stage: Stage) -> None:
        one = await stage.start()
        await one.say(Changes({"a": 2}))
        for number in range(2 * KEPT_NOTES):
            await one.say(Changes({"b": number + 1}))
        late = await stage.start()
        await stage.settle()
        assert late.others == {"a": 2, "b": 2 * KEPT_NOTES}

    play(make_registry, scenario)


def test_a_process_that_starts_reads_no_notes_from_before_it(make_registry: MakeRegistry) -> None:
    class Recording:
        def __init__(self, registry: Registry) -> None:
            self.registry = registry
            self.found: list[Exchanged] = []

        async def exchange(self, *rest: Any) -> Exchanged:
            self.found.append(await self.registry.exchange(*rest))
            return self.found[-1]

    async def scenario(stage: Stage) -> None:
        one, late = [await stage.start() for _ in range(2)]
        await one.say(Changes({"a": 1}))
        recording = Recording(late.registry)
        late.peers = Peers(recording, late.name, lambda: late.now)  # type: ignore[arg-type]
        await late.say()
        assert list(recording.found[0].notes) == []
        await stage.settle()
        assert late.others == {"a": 1}

    play(make_registry, scenario)


def test_a_process_that_has_missed_notes_requests_all_counts(make_registry: MakeRegistry) -> None:
    async def scenario(stage: Stage) -> None:
        one, two = [await stage.start() for _ in range(2)]
        await stage.settle()
        await one.say(Changes({"a": 1}))
        for number in range(KEPT_NOTES + 10):
            await one.say(Changes({"b": number}))
        await stage.settle()
        assert two.others == {"a": 1, "b": KEPT_NOTES + 9}

    play(make_registry, scenario)


def test_the_counts_of_a_dead_process_are_removed_after_its_lease(make_registry: MakeRegistry) -> None:
    async def scenario(stage: Stage) -> None:
        one, two, dead = [await stage.start() for _ in range(3)]
        await dead.say(Changes({"a": 2}))
        await stage.settle()
        for process in (one, two):
            await process.say()  # sees the last of its beats
        for _ in range(int(LEASE_S)):
            assert two.others == {"a": 2}
            for process in (one, two):
                process.now += 1
                news = await process.say()
        assert (two.others, news.changed, news.ended) == ({}, {"a"}, ["p2"])
        await dead.say(Changes({"a": 3}))  # it was only asleep
        await stage.settle()
        assert one.others == two.others == {"a": 3}

    play(make_registry, scenario)


def test_a_process_that_was_suspended_does_not_consider_the_others_dead(make_registry: MakeRegistry) -> None:
    async def scenario(stage: Stage) -> None:
        one, two = [await stage.start() for _ in range(2)]
        await one.say(Changes({"a": 1}))
        await stage.settle()
        two.now += 100 * LEASE_S
        await two.say()
        assert two.others == {"a": 1}

    play(make_registry, scenario)


def test_counts_left_by_killed_processes_are_never_used(make_registry: MakeRegistry) -> None:
    async def scenario(stage: Stage) -> None:
        dead = await stage.start()
        await dead.say(Changes({"a": 2}))
        late = await stage.start()
        for _ in range(int(LEASE_S) + 2):
            late.now += 1
            await late.say()
            assert late.others == {}
        found = await late.registry.exchange("look", b"", b"", 0, {}, {})
        assert set(found.beats) == {"p1", "look"}
        await late.registry.close("look")
        await late.registry.open()

    play(make_registry, scenario)


def test_a_process_that_ends_in_order_is_gone_at_once(make_registry: MakeRegistry) -> None:
    async def scenario(stage: Stage) -> None:
        one, two = [await stage.start() for _ in range(2)]
        await two.say(Changes({"a": 2}))
        await stage.settle()
        await two.registry.close(two.name)
        assert (await one.say()).ended == ["p1"]
        assert one.others == {}
        await two.registry.open()

    play(make_registry, scenario)


def test_two_processes_of_a_client_agree_which_was_later(make_registry: MakeRegistry) -> None:
    async def scenario(stage: Stage) -> None:
        one, two = [await stage.start() for _ in range(2)]
        await stage.settle()
        first = await one.say(Changes(came=[b"client"]))
        second = await two.say(Changes(came=[b"client"]))
        heard = await one.say(Changes(gone=[b"client"]))
        assert first.own < second.own
        assert second.came == [(first.own, "p0", b"client")]
        assert heard.came == [(second.own, "p1", b"client")]
        assert (await two.say()).gone == [("p0", b"client")]

    play(make_registry, scenario)


def test_ten_thousand_channels_fit(make_registry: MakeRegistry) -> None:
    async def scenario(stage: Stage) -> None:
        one, two = [await stage.start() for _ in range(2)]
        counts = {f"channel-{number}": number + 1 for number in range(10_000)}
        await one.say(Changes(counts))
        await stage.settle()
        assert two.others == counts

    play(make_registry, scenario)


def test_only_the_last_whole_note_of_each_process_is_kept(make_registry: MakeRegistry) -> None:
    async def scenario(stage: Stage) -> None:
        async def size() -> int:
            found = await registry.exchange("reader", b"", b"", 0, {}, {})
            return sum(len(text) for _, _, text in found.notes)

        one = await stage.start()
        registry = one.registry
        counts = {f"channel-{number}": 1 for number in range(5_000)}
        await one.say(Changes(counts))
        small, large = 2_000, len(msgspec.msgpack.encode(counts))
        for _ in range(8):  # each asks for all counts
            late = await stage.start()
            await stage.settle(one, late)
            assert late.others == counts
            assert await size() < 2 * large + small  # the last, and the note with the counts as they came
        for number in range(2 * KEPT_NOTES):
            await one.say(Changes({"b": number}))
        assert large < await size() < large + 20 * KEPT_NOTES
        await registry.close(one.name)
        await registry.open()
        assert await size() < 20 * KEPT_NOTES

    play(make_registry, scenario)


def test_the_whole_note_of_a_dead_process_is_removed_with_it(make_registry: MakeRegistry) -> None:
    async def scenario(stage: Stage) -> None:
        one, dead = [await stage.start() for _ in range(2)]
        await dead.say(Changes({"channel": 1}))
        await stage.settle()
        for _ in range(int(LEASE_S) + 2):  # the lease ends, and that is written
            one.now += 1
            await one.say()
        found = await one.registry.exchange("reader", b"", b"", 0, {}, {})
        assert dead.name not in found.beats
        assert not [text for _, process, text in found.notes if process == dead.name and b"channel" in text]

    play(make_registry, scenario)


@pytest.mark.parametrize("seed", range(5))
def test_sums_are_right_whatever_happens(make_registry: MakeRegistry, seed: int) -> None:
    async def scenario(stage: Stage) -> None:
        chance = random.Random(seed)
        has: dict[Process, dict[str, int]] = {}
        for _ in range(150):
            act = chance.choice(["say"] * 12 + ["start", "end", "pass"])
            if act == "start" and len(has) < 4:
                has[await stage.start()] = {}
            elif act == "say" and has:
                process = chance.choice(list(has))
                changes = {name: chance.randrange(4) for name in chance.sample("abcde", chance.randrange(4))}
                has[process].update(changes)
                await process.say(Changes(changes))
            elif act == "end" and has:
                gone = chance.choice(list(has))
                del has[gone]
                if chance.random() < 0.5:
                    await gone.registry.close(gone.name)
                    await gone.registry.open()
            elif act == "pass":
                for process in stage.processes:
                    process.now += chance.random() * 3
        for _ in range(int(LEASE_S) + 4):
            for process in has:
                process.now += 1
                await process.say()
        for process in has:
            sums: Counter[str] = Counter()
            for other in has:
                if other is not process:
                    sums.update(has[other])
            assert process.others == +sums

    play(make_registry, scenario)


def test_marks_of_channels_outlive_the_processes(make_registry: MakeRegistry) -> None:
    async def scenario(stage: Stage) -> None:
        one = await stage.start()
        await one.say(Changes(marks={"a": "occupied", "b": "vacated msg_1", "c": "x"}))
        await one.say(Changes(marks={"c": "", "d": ""}))
        await one.registry.close(one.name)
        late = await stage.start()
        assert await late.registry.marks() == {"a": "occupied", "b": "vacated msg_1"}
        await one.registry.open()

    play(make_registry, scenario)


# Registries that fail


def test_a_registry_that_was_lost_is_filled_again() -> None:
    registry = LocalRegistry()

    async def scenario(stage: Stage) -> None:
        one, two = [await stage.start() for _ in range(2)]
        await one.say(Changes({"a": 1}))
        await stage.settle()
        registry.lose()
        for number in range(5):
            await one.say(Changes({"b": number}))
        await stage.settle()
        assert two.others == {"a": 1, "b": 4}

    play(lambda: registry, scenario)


def test_changes_that_could_not_be_sent_can_be_sent_again() -> None:
    registry = LocalRegistry()

    async def scenario(stage: Stage) -> None:
        one, two = [await stage.start() for _ in range(2)]
        await stage.settle()
        registry.works = False
        with pytest.raises(StoreError):
            await one.say(Changes({"a": 1}))
        registry.works = True
        await one.say(Changes({"a": 1}))
        await two.say()
        assert two.others == {"a": 1}

    play(lambda: registry, scenario)


@pytest.mark.parametrize("harm", ["replaced", "damaged", "gone"])
def test_a_file_that_is_damaged_or_gone_begins_anew(tmp_path: Path, harm: str) -> None:
    def harm_file() -> None:
        for file in tmp_path.glob("log.presence*"):
            file.unlink()
        if harm != "gone":
            (tmp_path / "log.presence").write_bytes(b"x" * 8192 if harm == "damaged" else b"")

    async def scenario(stage: Stage) -> None:
        one, two = [await stage.start() for _ in range(2)]
        await one.say(Changes({"a": 1}))
        await stage.settle()
        harm_file()
        for _ in range(3):
            for process in stage.processes:
                try:
                    await process.say(Changes({"a": 2}) if process is one else NOTHING)
                except StoreError:
                    assert harm == "damaged"
        await stage.settle()
        assert two.others == {"a": 2}

    play(lambda: SqliteStore(tmp_path / "log", Retention()).registry(), scenario)


def test_an_engine_that_is_restarted_is_filled_again(tmp_path: Path) -> None:
    pytest.importorskip("redis")
    from pushcompat.store.redis.store import RedisStore

    with running(tmp_path / "engine") as engine:

        async def scenario(stage: Stage) -> None:
            one, two = [await stage.start() for _ in range(2)]
            await one.say(Changes({"a": 1}))
            await stage.settle()
            engine.stop()
            with pytest.raises(StoreError):
                await one.say(Changes({"a": 2}))
            engine.start()
            for process in (one, two):
                try:
                    await process.say()
                except StoreError:
                    pass  # its connection was the old one
            await one.say(Changes({"a": 2}))
            await stage.settle()
            assert two.others == {"a": 2}

        play(lambda: RedisStore(engine.url(), Retention()).registry(), scenario)
