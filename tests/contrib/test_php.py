"""examples/pushcompat.php, run by PHP."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from ..harness import KEY, PATIENCE_S, Client, Server
from ..stub import Stub, Talk
from ..test_examples import EXAMPLES, environment, no_php

pytestmark = no_php


def run(program: str, url: str, folder: Path, key: str = KEY) -> subprocess.CompletedProcess[str]:
    program = f"<?php require '{EXAMPLES / 'pushcompat.php'}'; {program}"
    given = {**environment(url, folder), "PUSHCOMPAT_PUBLISH_KEY": key}
    command = ["php", "-d", "display_errors=stderr", "-d", "error_log=/dev/stderr"]
    return subprocess.run(
        command, input=program, capture_output=True, text=True, env=given, timeout=3 * PATIENCE_S, check=False
    )


def test_everything_that_can_be_published_is(server: Server, client: Client, tmp_path: Path) -> None:
    done = run(
        """
        pushcompat_publish('chat');
        pushcompat_publish('chat', 'grüße');
        pushcompat_publish(['chat', 'news'], ['n' => 4.0], ['key' => 'k', 'type' => 't', 'ttl' => 60]);
        echo pushcompat_cursor();
        """,
        server.url, tmp_path,
    )  # fmt: skip
    assert done.stderr == ""
    messages = client.retained("chat")
    assert [message["data"] for message in messages] == ["UPDATED", "grüße", {"n": 4.0}]
    assert (messages[2]["key"], messages[2]["type"]) == ("k", "t")
    assert client.retained("news")[0]["id"] == done.stdout


def test_a_request_publishes_at_its_end_in_one_folded_batch(server: Server, client: Client, tmp_path: Path) -> None:
    run(
        """
        pushcompat_notify('orders');
        pushcompat_notify('queue', 17, ['key' => 'length']);
        pushcompat_notify('chat', 'a');
        pushcompat_notify('orders');
        pushcompat_notify('queue', 18, ['key' => 'length']);
        pushcompat_notify('chat', 'a');
        echo 'the page';
        """,
        server.url, tmp_path,
    )  # fmt: skip
    messages = client.retained("orders,queue,chat")
    assert [message["data"] for message in messages] == ["UPDATED", 18, "a", "a"]
    assert messages[-1]["id"].endswith("-000000000000004")


def answer(talk: Talk) -> None:
    talk.request()
    talk.send(b'HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{"id":"a-0001"}')


def answer_and_cut(talk: Talk) -> None:
    """Answers the first request of a connection, and reads the second."""
    answer(talk)
    keys.append(talk.headers["idempotency-key"])
    talk.request()
    keys.append(talk.headers["idempotency-key"])


def answer_and_note(talk: Talk) -> None:
    answer(talk)
    keys.append(talk.headers["idempotency-key"])


keys: list[str] = []


def test_a_publish_that_curl_repeats_by_itself_has_the_same_key(tmp_path: Path) -> None:
    keys.clear()
    stub = Stub(answer_and_cut, answer_and_note)
    done = run("pushcompat_publish('a', 1); pushcompat_publish('a', 2);", stub.url, tmp_path)
    assert done.stderr == ""
    first, cut, repeated = keys
    assert first != cut == repeated


def test_a_refusal_says_why(server: Server, tmp_path: Path) -> None:
    program = "try { pushcompat_publish('a', 1); } catch (PushCompatError $e) { echo $e->getMessage(); }"
    assert "key" in run(program, server.url, tmp_path, key="k" * 32).stdout


def test_a_message_that_cannot_be_published_takes_no_other_with_it(
    server: Server, client: Client, tmp_path: Path
) -> None:
    program = r"""pushcompat_notify('a', 1); pushcompat_notify('a b', 2); pushcompat_notify('a', "\xff");"""
    done = run(f"{program} pushcompat_notify('a', 4);", server.url, tmp_path)
    assert [message["data"] for message in client.retained("a")] == [1, 4]
    assert done.stderr.count("1 messages were not published") == 2
    assert "Malformed UTF-8" in done.stderr


def busy(talk: Talk) -> None:
    talk.request()
    talk.send(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n")


def test_a_server_that_is_busy_for_longer_is_not_asked_again_at_once(tmp_path: Path) -> None:
    stub = Stub(busy)
    program = "try { pushcompat_publish('a', 1); } catch (PushCompatError $e) { echo $e->getCode(); }"
    assert run(f"{program} {program}", stub.url, tmp_path).stdout == "4290"
    assert len(stub.talks) == 1


def never_answers(talk: Talk) -> None:
    talk.wait_for_end()


def test_a_frozen_server_fails_no_request_and_delays_one(tmp_path: Path) -> None:
    stub = Stub(never_answers)
    program = "pushcompat_notify('a', 1); echo 'the page';"
    first, second = (run(program, stub.url, tmp_path) for _ in range(2))
    assert (first.stdout, second.stdout) == ("the page", "the page")
    assert "1 messages were not published" in first.stderr
    assert "is not tried again yet" in second.stderr
    assert len(stub.talks) == 1


def refuse_once(talk: Talk) -> None:
    talk.request()
    keys.append(talk.headers["idempotency-key"])
    talk.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")


def test_a_server_that_is_away_for_a_moment_loses_nothing(tmp_path: Path) -> None:
    keys.clear()
    stub = Stub(refuse_once, answer_and_note)
    assert run("pushcompat_publish('a', 1);", stub.url, tmp_path).stderr == ""
    assert keys[0] == keys[1]
    assert json.loads(stub.talks[1].body) == [{"channel": "a", "data": 1}]
