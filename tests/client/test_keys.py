"""What the client makes of answers; ``tests/test_cli.py`` runs it against a server."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pushcompat.client.administration import AdministrationError
from pushcompat.client.keys import Keys

from ..harness import MS
from ..stub import answer, json_says, refuses, says, silent, stub

SHOP = {"name": "shop", "prefix": "pc_aaaaaaaa", "channels": ["orders.*"], "created": 86400}
CONFIGURED = {"name": "a", "prefix": None, "channels": ["x", "y"], "created": None}


def client(url: str, key: str | None = "root", timeout_s: float = 10_000 * MS) -> Keys:
    return Keys(url, key, timeout_s)


def test_a_key_is_requested_with_the_root_key() -> None:
    with stub(json_says(201, {**SHOP, "key": "pc_aaaaaaaa_x"})) as server:
        assert client(f"{server.url}/push").add("shop", ["orders.*"])["key"] == "pc_aaaaaaaa_x"
        (talk,) = server.talks
        assert (talk.target, talk.headers["authorization"]) == ("/push/keys", "Bearer root")
        assert json.loads(talk.body) == {"name": "shop", "channels": ["orders.*"]}


def test_the_name_of_a_revoked_key_stays_one_part_of_the_path() -> None:
    with stub(says(b"HTTP/1.1 204 No Content\r\n\r\n")) as server:
        client(server.url).remove("a/../b?c")
        assert server.talks[0].target == "/keys/a%2F..%2Fb%3Fc"


def test_the_table_has_a_line_for_each_key() -> None:
    with stub(json_says(200, {"keys": [CONFIGURED, SHOP]})) as server:
        assert client(server.url).table() == [
            "NAME  PREFIX       CHANNELS  CREATED",
            "a     -            x,y       in the configuration",
            "shop  pc_aaaaaaaa  orders.*  1970-01-02T00:00:00Z",
        ]


def test_the_servers_note_is_passed_on() -> None:
    with stub(silent) as server:
        lines = client(server.url).how_to_use({**SHOP, "key": "k", "note": "it ends with the process"})
    assert lines[-1] == "Note: it ends with the process"
    assert not any(word == "k" for line in lines for word in line.split())


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (refuses(409, "there is a key shop"), "^there is a key shop$"),
        (refuses(503, "the log is full"), "^the log is full$"),
        (json_says(200, {"keys": []}), "did not answer like a push server"),
        (json_says(201, ["key"]), "did not answer like a push server"),
        (says(answer(201, b"<html>")), "did not answer like a push server"),
        (says(answer(302, Location="/elsewhere")), "answered 302"),
        (says(b"HTTP/1.1 201 Created\r\nContent-Length: 9\r\n\r\n{"), "lost in the middle of the response"),
        (says(b"nonsense\r\n\r\n"), "did not answer in HTTP"),
    ],
)
def test_whatever_else_the_server_says_is_an_error_that_says_so(script: Any, said: str) -> None:
    with stub(script) as server, pytest.raises(AdministrationError, match=said):
        client(server.url).add("shop", ["orders.*"])


def test_a_server_that_does_not_answer_is_an_error_after_the_time_limit() -> None:
    with stub(silent) as server, pytest.raises(AdministrationError, match="timed out"):
        client(server.url, timeout_s=100 * MS).list()


def test_without_a_key_the_refusal_says_where_it_was_looked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("PUSHCOMPAT_STATE_DIR", str(tmp_path))
    for name in ("PUSHCOMPAT_PUBLISH_KEY", "PUSHCOMPAT_PUBLISH_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    with stub(refuses(401, "needs the publish key")) as server, pytest.raises(AdministrationError, match=str(tmp_path)):
        client(server.url, key=None).list()


def test_a_key_that_cannot_be_sent_is_refused_without_showing_it() -> None:
    with pytest.raises(ValueError, match="spaces or control characters") as refused:
        client("http://127.0.0.1", "two words")
    assert "two words" not in str(refused.value)
