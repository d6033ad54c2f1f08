from __future__ import annotations

import json
from typing import Any

import pytest

from pushcompat.message import Message
from pushcompat.wire.longpoll import PollEncoding

EPOCH = "abcd1234"
CURSOR = "abcd1234-000000000000009"


def document(answer: bytes) -> Any:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nContent-Type: application/json\r\n" in head
    assert b"\r\nContent-Length: %d\r\n" % len(body) in head + b"\r\n"
    return json.loads(body)


@pytest.fixture
def answers() -> PollEncoding:
    return PollEncoding(b"", keep_alive=True)


def test_an_answer_has_all_messages_and_the_cursor_behind_them(answers: PollEncoding) -> None:
    messages = [
        Message("a", b"one", sequence=7),
        Message("b", b'{"x": 1.10}', json=True, sequence=8, type="note", key="k"),
    ]
    answer = answers.messages(messages, EPOCH, 9)
    assert b'"data":{"x": 1.10}' in answer
    got = document(answer)
    assert got["cursor"] == CURSOR
    assert [(m["id"], m["channel"], m["data"]) for m in got["messages"]] == [
        ("abcd1234-000000000000007", "a", "one"),
        ("abcd1234-000000000000008", "b", {"x": 1.1}),
    ]
    assert (got["messages"][1]["type"], got["messages"][1]["key"]) == ("note", "k")


def test_an_answer_with_nothing_new_still_has_the_cursor(answers: PollEncoding) -> None:
    assert document(answers.ping(CURSOR)) == {"cursor": CURSOR, "messages": []}


def test_a_reset_names_its_channels(answers: PollEncoding) -> None:
    assert document(answers.reset(CURSOR, ["a", "b"], None)) == {
        "cursor": CURSOR, "messages": [], "reset": ["a", "b"],
    }  # fmt: skip
    assert document(answers.reset(CURSOR, ["a"], 40))["spread"] == 40


def test_a_rotation_says_when_to_come_back(answers: PollEncoding) -> None:
    assert document(answers.rotate(CURSOR, 900)) == {"cursor": CURSOR, "messages": [], "retry": 900}


@pytest.mark.parametrize(("keep_alive", "line"), [(True, b"keep-alive"), (False, b"close")])
def test_the_head_says_whether_the_next_poll_may_come_over_this_connection(keep_alive: bool, line: bytes) -> None:
    head = PollEncoding(b"Vary: Origin\r\n", keep_alive).ping(CURSOR).partition(b"\r\n\r\n")[0]
    assert b"\r\nConnection: " + line + b"\r\n" in head
    assert b"\r\nVary: Origin" in head
