"""The store on Redis and Valkey: the contract, on real servers."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from contextlib import aclosing
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from msgspec.structs import replace

from pushcompat.errors import ConfigError
from pushcompat.limits import Retention
from pushcompat.store.base import Receipt, Store
from pushcompat.store.redis.link import Link
from pushcompat.store.redis.store import RedisStore

from ..harness import PATIENCE_S
from .contract import (
    ALL,
    FEW,
    MANY,
    Clock,
    Contract,
    Follower,
    Open,
    append,
    append_group,
    batch,
    check_that_different_rules_break_nothing,
    draft,
    fill,
    shown,
)
from .engines import ENGINES, Engine, free_port, running, sentinels
from .machine import SETTINGS, StoreMachine

PREFIXES = map("test{}".format, count())


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One server for all tests that leave it as it is; use a prefix of your own."""
    with running(tmp_path_factory.mktemp("engine"), request.param) as server:
        yield server


class TestRedisStore(Contract):
    @pytest.fixture
    def open_store(self, engine: Engine) -> Open:
        async def opened(retention: Retention, clock: Clock) -> Store:
            store = RedisStore(engine.url(next(PREFIXES)), retention, clock, clock)
            await store.open()
            return store

        return opened

    async def trim_soon(self, store: Store) -> None:
        assert isinstance(store, RedisStore)
        assert await store.trim(tail=0) == ""

    async def trim(self, store: Store) -> None:
        assert isinstance(store, RedisStore)
        for number in range(3):
            await append(store, draft("a", str(number)), draft("a"))
        assert await store.trim(tail=0) == ""


def test_processes_with_different_rules_break_nothing(engine: Engine) -> None:
    async def trim_it(store: Store) -> None:
        assert isinstance(store, RedisStore)
        assert await store.trim(tail=0) == ""

    async def work() -> None:
        clock, url = Clock(), engine.url(next(PREFIXES))
        few, many = RedisStore(url, FEW, clock, clock), RedisStore(url, MANY, clock, clock)
        await few.open()
        await many.open()
        try:
            await check_that_different_rules_break_nothing(few, many, trim_it)
        finally:
            await few.close()
            await many.close()

    asyncio.run(asyncio.wait_for(work(), PATIENCE_S))


def test_ids_of_items_are_known_to_other_processes_and_later_ones(engine: Engine) -> None:
    many = " ".join(map(str, range(1000)))

    async def work() -> None:
        url = engine.url(next(PREFIXES))
        one, other = RedisStore(url, ALL), RedisStore(url, ALL)
        await one.open()
        await other.open()
        assert await append_group(one, [batch(many)]) == [Receipt(one.epoch, 1000, {"a": 7})]
        (outcome,) = await append_group(other, [batch(f"{many} new", key="k")])
        assert outcome == Receipt(one.epoch, 1001, {"a": 7}, again=tuple(range(1000)))
        await one.close()
        await other.close()
        later = RedisStore(url, ALL)
        await later.open()
        assert await append_group(later, [batch(f"{many} new", key="k")]) == [replace(outcome, repeated=True)]
        assert len((await later.retained()).messages) == 1000  # of 1001; ALL keeps no more
        (outcome,) = await append_group(later, [batch("7 new-2 3")])
        assert outcome == Receipt(later.epoch, 1002, {"a": 7}, again=(0, 2))
        await later.close()

    asyncio.run(asyncio.wait_for(work(), PATIENCE_S))


class RedisMachine(StoreMachine):
    restarts = True
    engine: Engine

    def __init__(self) -> None:
        super().__init__()
        self._url = self.engine.url(next(PREFIXES))

    async def open(self, retention: Retention, clock: Clock) -> Store:
        store = RedisStore(self._url, retention, clock, clock)
        connect = store._server.connect

        async def connect_at_the_tests_time() -> Link:
            link = await connect()
            link.ahead_s = 0.0
            return link

        store._server.connect = connect_at_the_tests_time  # type: ignore[method-assign]
        await store.open()
        return store

    async def trim(self, store: Store) -> None:
        assert isinstance(store, RedisStore)
        assert await store.trim(tail=0) == ""


class TestRedisMachine(RedisMachine.TestCase):  # type: ignore[misc, name-defined]
    settings = SETTINGS

    @classmethod
    def setUpClass(cls) -> None:
        cls._folder = TemporaryDirectory()
        RedisMachine.engine = Engine(Path(cls._folder.name, "engine"))

    @classmethod
    def tearDownClass(cls) -> None:
        RedisMachine.engine.stop(signal.SIGKILL)
        cls._folder.cleanup()


TLS = Path(__file__).parents[1] / "tls.pem"  # a certificate for localhost, and its key


@pytest.mark.parametrize(
    ("options", "url"),
    [
        pytest.param((), "redis://127.0.0.1:{port}/5", id="another database"),
        pytest.param(("--requirepass", "s@c/ret"), "redis://:s%40c%2Fret@127.0.0.1:{port}", id="password"),
        pytest.param(
            ("--user", "push", "on", ">pw", "~{pushcompat}:*", "+@all", "-@dangerous", "+info"),
            "redis://push:pw@127.0.0.1:{port}",
            id="user",
        ),
        pytest.param(("--unixsocket", "{folder}/socket"), "redis+unix://{folder}/socket?db=1", id="socket"),
        pytest.param(
            (
                "--tls-port",
                "{other}",
                "--tls-cert-file",
                str(TLS),
                "--tls-key-file",
                str(TLS),
                "--tls-auth-clients",
                "no",
            ),
            f"rediss://localhost:{{other}}?ssl_ca_certs={TLS}",
            id="tls",
        ),
    ],
)
def test_every_way_to_a_server_leads_to_the_log(tmp_path: Path, options: tuple[str, ...], url: str) -> None:
    other = str(free_port())
    folder = tmp_path / "engine"

    def filled(text: str) -> str:
        return text.replace("{folder}", str(folder)).replace("{other}", other)

    with running(folder, "redis", *map(filled, options)) as server:

        async def scenario() -> None:
            store = RedisStore(filled(url).replace("{port}", str(server.port)), ALL)
            await store.open()
            await fill(store, "a", "1")
            assert shown((await store.retained()).messages) == ["a:1"]
            assert await store.trim(tail=0) == ""
            async with aclosing(Follower(store)) as follower:
                assert shown(await follower.read(1)) == ["a:1"]
            await store.close()

        asyncio.run(scenario())


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("redis://:s3cret@127.0.0.1:{port}", "does not accept the user or the password"),
        ("redis://me:s3cret@127.0.0.1:{port}", "does not accept the user or the password"),
        ("redis://:s3cret@127.0.0.1:{port}/99", "no database of this number; .* setting databases"),
    ],
)
def test_a_server_that_refuses_us_is_said_at_the_start_without_the_password(
    tmp_path: Path, url: str, advice: str
) -> None:
    async def scenario(server: Engine) -> None:
        store = RedisStore(url.format(port=server.port), ALL)
        with pytest.raises(ConfigError, match=advice) as refusal:
            await store.open()
        assert "s3cret" not in str(refusal.value)
        await store.close()

    with running(tmp_path / "engine", "redis") as server:
        if "99" in url:
            server.ask("CONFIG", "SET", "requirepass", "s3cret")
        asyncio.run(scenario(server))


@pytest.mark.parametrize(
    ("name", "password", "works"), [("main", "s3cret", True), ("main", "no", False), ("it", "s3cret", False)]
)
def test_sentinels_are_asked_for_the_master_with_their_own_password(
    tmp_path: Path, name: str, password: str, works: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pushcompat.store.redis.store._OPEN_S", 0.1)

    async def scenario(port: int) -> None:
        addresses = f"127.0.0.1:{free_port()},127.0.0.1:{port}"
        store = RedisStore(f"redis+sentinel://{addresses}/{name}?sentinel_password={password}", ALL)
        if works:
            await store.open()
            await fill(store, "a", "1")
        else:
            with pytest.raises(ConfigError, match=f"no Sentinel responds, or none has a master '{name}'") as refusal:
                await store.open()
            assert "s3cret" not in str(refusal.value)
        await store.close()

    with sentinels(tmp_path) as servers:
        assert servers.sentinel.ask("ACL", "SETUSER", "default", ">s3cret") == "OK"
        asyncio.run(scenario(servers.sentinel.port))


def test_a_server_that_is_not_there_is_said_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pushcompat.store.redis.store._OPEN_S", 0.1)

    async def scenario() -> None:
        store = RedisStore(f"redis://127.0.0.1:{free_port()}", ALL)
        with pytest.raises(
            ConfigError,
            match=r"^--store redis://127.0.0.1:\d+: the server does not accept connections; check .* --store$",
        ):
            await store.open()
        await store.close()

    asyncio.run(scenario())


def test_a_server_that_comes_a_little_later_is_waited_for(tmp_path: Path) -> None:
    async def scenario(server: Engine) -> None:
        store = RedisStore(server.url(), ALL)
        opening = asyncio.ensure_future(store.open())
        await asyncio.to_thread(server.start)
        await opening
        await store.close()

    with running(tmp_path / "engine", "redis") as server:
        server.stop()
        asyncio.run(scenario(server))


def test_a_log_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    async def scenario(server: Engine) -> None:
        for version in (1, 2):
            store = RedisStore(server.url(), ALL)
            if version == 1:
                await store.open()
                assert server.ask("HGET", "{pushcompat}:state", "version") == "1"
                server.ask("HSET", "{pushcompat}:state", "version", "2")
            else:
                with pytest.raises(ConfigError, match="written by a newer version of pushcompat; upgrade this one"):
                    await store.open()
            await store.close()

    with running(tmp_path / "engine", "redis") as server:
        asyncio.run(scenario(server))


def test_a_replica_is_refused(tmp_path: Path) -> None:
    async def scenario(server: Engine) -> None:
        store = RedisStore(server.url(), ALL)
        with pytest.raises(
            ConfigError, match="this server is a replica; use the URL of its master, or of the Sentinels"
        ):
            await store.open()
        await store.close()

    with running(tmp_path / "engine", "redis", "--replicaof", "127.0.0.1", "1") as server:
        asyncio.run(scenario(server))


@pytest.mark.parametrize(
    ("options", "detail"),
    [
        (("--appendonly", "no"), "appendonly is no"),
        (("--appendonly", "yes", "--maxmemory-policy", "allkeys-lru"), "maxmemory-policy is allkeys-lru"),
        (("--appendonly", "yes", "--rename-command", "CONFIG", ""), "CONFIG GET is not permitted"),
        (("--appendonly", "yes"), None),
    ],
)
def test_a_configuration_that_may_lose_messages_is_logged_at_the_start(
    tmp_path: Path, options: tuple[str, ...], detail: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(server: Engine) -> None:
        store = RedisStore(server.url(), ALL)
        await store.open()
        await store.close()

    with running(tmp_path / "engine", "redis", *options) as server:
        asyncio.run(scenario(server))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == (0 if detail is None else 1)
    assert all(str(detail) in line for line in lines)
