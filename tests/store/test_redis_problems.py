"""What the operator reads about errors of a Redis or Valkey server: a sentence, and no text of a library."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pushcompat.store.base import StoreError
from pushcompat.store.redis.link import AWAY, Server
from pushcompat.store.redis.problems import Problems, sentence
from pushcompat.store.redis.registry import RedisRegistry
from pushcompat.store.redis.urls import parse

from .engines import Engine, free_port, running

RAW = re.compile(r"Error \d|Errno|Connect call|script:|user_script|UNBLOCKED|WRONGTYPE|NOREPLICAS|'maxmemory'")


@pytest.fixture(scope="module", params=["redis", "redis-6.2", "valkey"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with running(tmp_path_factory.mktemp("engine"), request.param) as server:
        yield server


async def refusal(url: str, *command: str) -> BaseException:
    """The error of connecting, and then of the command."""
    try:
        link = await Server(parse(url)).connect()
        try:
            await link.call(command, timeout_s=0.1)
        finally:
            await link.close()
    except AWAY as error:
        return error
    raise AssertionError("no error")


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("redis://127.0.0.1:{closed}", "does not accept connections; check that it runs, and the host and port"),
        ("redis://localhost:{closed}", "check that it runs, and the host and port"),
        ("redis://no-such-host.invalid", "cannot be resolved; check the host"),
        ("redis+unix:///no/such/socket", "no such socket; check the path"),
        ("redis://me:it@127.0.0.1:{port}", "does not accept the user or the password"),
        ("redis://127.0.0.1:{port}/9999", "no database of this number"),
    ],
)
def test_a_server_that_cannot_be_reached_is_reported_with_the_setting_to_check(
    engine: Engine, place: str, said: str
) -> None:
    problem = sentence(asyncio.run(refusal(place.format(closed=free_port(), port=engine.port))))
    assert said in problem
    assert not RAW.search(problem)


def test_a_certificate_that_is_not_trusted_is_reported_with_the_setting_to_check(tmp_path: Path) -> None:
    tls = str(Path(__file__).parents[1] / "tls.pem")
    port = str(free_port())
    options = "--tls-port", port, "--tls-cert-file", tls, "--tls-key-file", tls, "--tls-auth-clients", "no"
    with running(tmp_path / "engine", "redis", *options):
        problem = sentence(asyncio.run(refusal(f"rediss://localhost:{port}")))
    assert problem == "the TLS handshake failed; check rediss:// and ssl_ca_certs in the URL of --store"


@pytest.mark.parametrize(
    ("before", "command", "said"),
    [
        ((), ("XREAD", "BLOCK", "5000", "STREAMS", "s", "$"), "did not answer in time; check"),
        (("CONFIG", "SET", "maxmemory", "1"), ("EVAL", "redis.call('SET', KEYS[1], 1)", "1", "k"), "--history-bytes"),
        (("CONFIG", "SET", "maxmemory", "1"), ("SET", "k", "1"), "out of memory; increase its maxmemory"),
        (("CONFIG", "SET", "min-replicas-to-write", "1"), ("SET", "k", "1"), "check its replicas, and min-replicas-"),
        (("ACL", "SETUSER", "default", "-set"), ("SET", "k", "1"), "lacks a permission; give it"),
        (("SET", "text", "1"), ("XLEN", "text"), "set another prefix"),
        ((), ("EVAL", "return redis.error_reply('UNBLOCKED force unblock')", "0"), "wait for the fail-over"),
    ],
)
def test_a_refused_command_is_reported_with_the_setting_to_check(
    tmp_path: Path, before: tuple[str, ...], command: tuple[str, ...], said: str
) -> None:
    with running(tmp_path / "engine", "redis") as server:

        async def scenario() -> str:
            link = await Server(parse(server.url())).connect()
            if before:
                assert server.ask(*before) == "OK"
            try:
                await link.call(command, timeout_s=0.1)
            except AWAY as error:
                return sentence(error)
            finally:
                await link.close()
            raise AssertionError("no error")

        problem = asyncio.run(scenario())
    assert said in problem
    assert not RAW.search(problem)


def test_a_registry_that_cannot_be_reached_is_reported_in_the_same_words() -> None:
    async def scenario() -> str:
        registry = RedisRegistry(Server(parse(f"redis://127.0.0.1:{free_port()}")))
        with pytest.raises(StoreError) as refused:
            await registry.exchange("p", b"", b"", 0, {}, {})
        return str(refused.value)

    assert re.fullmatch(
        r"redis://127.0.0.1:\d+\S*: the server does not accept connections; .*", asyncio.run(scenario())
    )


def test_a_problem_is_logged_in_the_same_words(caplog: pytest.LogCaptureFixture) -> None:
    problems = Problems("redis://here")
    with caplog.at_level(logging.WARNING):
        problems.note("reading", TimeoutError())
    assert problems.first is not None
    assert problems.first.startswith("redis://here: the server did not answer in time; check its load, the network")
    assert problems.first in caplog.text
