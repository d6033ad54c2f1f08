"""How much history channels keep by their rules, as an application sees it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from .harness import KEY, Server
from .test_reload import DONE

TOKENS = '[[channel]]\npattern = "tokens.*"\nhistory = 5000\nhistory-age = "10m"\n'
COUNT = 130


def fill(server: Server) -> None:
    for name in ("tokens.1", "other"):
        messages = ",".join(f'{{"channel":"{name}","data":{number}}}' for number in range(COUNT))
        with server.connect() as client:
            client.request(
                "POST",
                "/channels",
                f"[{messages}]".encode(),
                Content_Type="application/json",
                Authorization=f"Bearer {KEY}",
            )
            assert client.response()[0] == 200


def retained(server: Server, name: str) -> list[int]:
    with server.connect() as client:
        return [message["data"] for message in client.retained(name)]


@pytest.mark.parametrize("store", ["memory:", "sqlite:"])
def test_a_channel_of_tokens_keeps_more_than_others_also_after_a_restart(tmp_path: Path, store: str) -> None:
    (tmp_path / "push.toml").write_text(TOKENS)
    options = "--config", str(tmp_path / "push.toml"), "--store", store
    server = Server(tmp_path, *options)
    try:
        fill(server)
        for _ in range(2):
            assert retained(server, "tokens.1") == list(range(COUNT))
            assert retained(server, "other") == list(range(COUNT))[-100:]
            if store == "memory:":
                break
            server.stop(signal.SIGKILL)
            server = Server(tmp_path, *options)
    finally:
        server.stop()


def test_history_rules_are_read_again_on_sighup(tmp_path: Path) -> None:
    file = tmp_path / "push.toml"
    file.write_text("")
    server = Server(tmp_path, "--config", str(file))
    try:
        file.write_text(TOKENS)
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log(DONE)
        fill(server)
        assert len(retained(server, "tokens.1")) == COUNT
        server.log.clear()
        file.write_text(TOKENS.replace("5000", "7"))
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log(DONE)
        assert retained(server, "tokens.1") == list(range(COUNT))[-7:]
    finally:
        server.stop()
