from __future__ import annotations

import json
import socket
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pushcompat import __version__, listening
from pushcompat.config import Config
from pushcompat.errors import ConfigError

from .harness import running
from .reach.processes import free_port

Bind = Callable[..., list[listening.Sockets]]


@pytest.fixture
def bind() -> Iterator[Bind]:
    with ExitStack() as stack:

        def bind(**options: Any) -> list[listening.Sockets]:
            bound = listening.bind(Config("key", **{"port": 0, **options}))
            for sock in {id(sock): sock for group in bound for sock in group}.values():
                stack.enter_context(sock)
            return bound

        yield bind


def descriptors(bound: list[listening.Sockets]) -> set[int]:
    return {sock.fileno() for group in bound for sock in group}


@pytest.mark.skipif(sys.platform != "linux", reason="the others share their sockets")
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", ""])
@pytest.mark.parametrize("given", [False, True])
def test_each_worker_has_sockets_of_its_own_on_one_port(bind: Bind, host: str, given: bool) -> None:
    port = free_port() if given else 0
    bound = bind(workers=3, host=host, port=port)
    assert len(descriptors(bound)) == sum(len(group) for group in bound) >= 3
    (used,) = {sock.getsockname()[1] for group in bound for sock in group}
    assert used == port or not given


def test_workers_share_sockets_if_the_kernel_does_not_spread_connections(
    bind: Bind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "_SPREADS", False)
    first, *others = bind(workers=3)
    assert all(other is first for other in others)


def test_a_unix_socket_is_shared_and_taken_over_when_nobody_listens_on_it(bind: Bind, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(tmp_path / "s"))
    first, other = bind(workers=2, unix_socket=tmp_path / "s")
    assert other is first
    with pytest.raises(ConfigError, match=r"cannot listen on .*: address already in use; choose another --unix-socket"):
        bind(workers=2, unix_socket=tmp_path / "s")


def test_a_unix_socket_is_for_its_owner_unless_another_mode_is_asked_for(bind: Bind, tmp_path: Path) -> None:
    bind(unix_socket=tmp_path / "own")
    bind(unix_socket=tmp_path / "group", unix_socket_mode=0o660)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("own", "group")]
    assert modes == [0o600, 0o660]


def test_a_port_that_another_server_shares_among_its_workers_is_refused(bind: Bind) -> None:
    port = bind(workers=2)[0][0].getsockname()[1]
    with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use; choose another"):
        bind(workers=2, port=port)


def test_a_unix_socket_may_be_reached_from_anywhere(bind: Bind, tmp_path: Path) -> None:
    assert listening.on_loopback(bind(host="localhost")[0])
    assert not listening.on_loopback(bind(host="0.0.0.0")[0])
    assert not listening.on_loopback(bind(unix_socket=tmp_path / "s")[0])


def test_the_url_of_a_unix_socket_is_one_that_clients_take(bind: Bind, tmp_path: Path) -> None:
    config = Config("key", prefix="/push", unix_socket=tmp_path / "s")
    (sock,) = bind(unix_socket=tmp_path / "s")[0]
    quoted = str(tmp_path / "s").replace("/", "%2F")
    assert listening.own_url(config, sock) == f"http+unix://{quoted}/push"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_greeting_is_a_line_of_the_log_if_the_log_is_json(tmp_path: Path, workers: str) -> None:
    with contextmanager(running)(
        tmp_path, "--log-format", "json", "--log-level", "error", "--workers", workers
    ) as server:
        line = json.loads(server.greeting)
    assert (line["level"], line["event"], line["url"]) == ("INFO", "listening", server.url)
    assert line["version"].startswith(__version__)
    assert "publish_key_file" not in line  # the key was given
    assert datetime.fromisoformat(line["time"])


def test_the_greeting_tells_that_all_addresses_are_listened_to(tmp_path: Path) -> None:
    with contextmanager(running)(tmp_path, "--host", "0.0.0.0") as server:
        assert server.greeting.endswith(f" listens on {server.url}, on all addresses of this machine\n")
    with contextmanager(running)(tmp_path) as server:
        assert server.greeting.endswith(f" listens on {server.url}\n")
