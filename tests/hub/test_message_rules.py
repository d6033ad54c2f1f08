"""What rules by channel say about messages: their maximum size, their ttl, and their spread."""

from __future__ import annotations

import json
import signal
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pushcompat.access.patterns import Pattern
from pushcompat.access.rules import Rule, Rules
from pushcompat.errors import PayloadTooLarge
from pushcompat.hub.history import History
from pushcompat.hub.message_rules import apply
from pushcompat.limits import Retention
from pushcompat.message import Message

from ..harness import KEY, Client, Server, running

RULES = """
message-limit = 100

[[channel]]
pattern = "small.*"
message-limit = 10

[[channel]]
pattern = "large.*"
message-limit = 1000

[[channel]]
pattern = "brief.*"
ttl = "1h"
"""


class Ruled:
    def __init__(self, server: Server, directory: Path) -> None:
        self.server = server
        self.file = directory / "push.toml"
        self.log = directory / "state" / "log.sqlite"

    def ttls(self, channel: str) -> list[float | None]:
        """Of the messages in the log."""
        with closing(sqlite3.connect(f"file:{self.log}?mode=ro", uri=True)) as log:
            rows = log.execute("SELECT ttl_s FROM message WHERE channel = ? ORDER BY sequence", (channel,))
            return [ttl_s for (ttl_s,) in rows]


@pytest.fixture(scope="module")
def ruled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ruled]:
    directory = tmp_path_factory.mktemp("ruled")
    (directory / "push.toml").write_text(RULES)
    for server in running(directory / "state", "--config", str(directory / "push.toml")):
        yield Ruled(server, directory)


def outcome(client: Client, channel: str, size: int) -> int | str:
    """The status of a publish of that size; if it is refused for its size, the reason."""
    client.publish(channel, b"x" * size)
    status, _, body = client.response()
    return str(json.loads(body)["detail"]) if status == 413 else status


def batch_outcome(server: Server, *messages: tuple[str, int]) -> tuple[int, str]:
    with server.connect() as client:
        body = json.dumps([{"channel": channel, "data": "x" * size} for channel, size in messages]).encode()
        client.request("POST", "/channels", body, Authorization=f"Bearer {KEY}", Content_Type="application/json")
        status, _, answer = client.response()
        return status, json.loads(answer).get("detail", "")


@pytest.mark.parametrize(
    ("channels", "limit"),
    [("small.1", 10), ("large.1", 1000), ("other", 100), ("large.1,small.1,other", 10), ("large.1,other", 100)],
)
def test_a_message_may_be_as_large_as_the_rule_of_each_channel_says(ruled: Ruled, channels: str, limit: int) -> None:
    for size in (limit, limit + 1):
        with ruled.server.connect() as client:
            expected = f"the body exceeds the limit of {limit} bytes; publish a reference instead"
            assert outcome(client, channels, size) == (200 if size == limit else expected)


def test_a_message_that_is_too_large_for_its_channel_is_refused_before_its_body(ruled: Ruled) -> None:
    with ruled.server.connect() as client:
        head = (
            f"POST /channels/small.1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 11\r\n\r\n"
        )
        client.send(head.encode())
        assert client.response()[0] == 413


def test_the_limit_of_another_channel_does_not_apply_to_a_publish_with_known_fields(ruled: Ruled) -> None:
    """Header fields that are known from one channel are not parsed again for the next one."""
    with ruled.server.connect() as client:
        for channel in ("large.1", "large.1", "other", "other"):
            assert outcome(client, channel, 50) == 200
        assert outcome(client, "small.1", 50) == "the body exceeds the limit of 10 bytes; publish a reference instead"


def test_a_batch_may_have_messages_as_large_as_the_rules_of_their_channels_say(ruled: Ruled) -> None:
    assert batch_outcome(ruled.server, ("small.1", 10), ("large.1", 1000), ("other", 100))[0] == 200
    status, detail = batch_outcome(ruled.server, ("large.1", 1000), ("small.1", 11))
    assert (status, detail) == (
        413,
        "message 1 of the batch: the message exceeds the limit of 10 bytes of channel small.1",
    )
    status, detail = batch_outcome(ruled.server, ("other", 101))
    assert (status, detail) == (413, "the message exceeds the limit of 100 bytes of channel other")


def test_messages_without_a_ttl_have_that_of_their_channels_rule(ruled: Ruled) -> None:
    with ruled.server.connect() as client:
        for target in ("brief.1", "brief.1", "brief.1?ttl=5", "unlimited,brief.2"):
            assert outcome(client, target, 1) == 200
    batch_outcome(ruled.server, ("brief.3", 1), ("unlimited", 1))
    assert ruled.ttls("brief.1") == [3600, 3600, 5]
    assert ruled.ttls("brief.2") == ruled.ttls("brief.3") == [3600]
    assert ruled.ttls("unlimited") == [None, None]


def test_a_signal_has_the_ttl_of_its_channels_rule(ruled: Ruled) -> None:
    ruled.server.publish("brief.signal")
    assert ruled.ttls("brief.signal") == [3600]


def test_changed_rules_apply_when_they_are_read_again(tmp_path: Path) -> None:
    file = tmp_path / "push.toml"
    file.write_text('[[channel]]\npattern = "a"\nmessage-limit = 10\n')
    for server in running(tmp_path / "state", "--config", str(file)):
        with server.connect() as client:
            for _ in range(2):
                assert outcome(client, "a", 10) == 200
            file.write_text('[[channel]]\npattern = "a"\nmessage-limit = 9\nrefetch-rate = 1\n')
            server.process.send_signal(signal.SIGHUP)
            server.wait_for_log("INFO reload")
            assert outcome(client, "a", 10) == "the body exceeds the limit of 9 bytes; publish a reference instead"
        with server.connect() as client:
            assert outcome(client, "a", 9) == 200
            assert [message.get("spread") for message in client.retained("a")][-1] == 0


def test_wrong_rules_are_named_with_their_line_when_they_are_read_again_and_change_nothing(tmp_path: Path) -> None:
    file = tmp_path / "push.toml"
    file.write_text('[[channel]]\npattern = "a"\nmessage-limit = 10\n')
    for server in running(tmp_path / "state", "--config", str(file)):
        file.write_text('[[channel]]\npattern = "a"\nmessage-limit = 20\n[[channel]]\npattern = "a"\n')
        server.process.send_signal(signal.SIGHUP)
        line = server.wait_for_log("ERROR reload")
        assert f"{file} line 5: pattern 'a' is never used" in line
        assert "the server continues unchanged" in line
        with server.connect() as client:
            assert outcome(client, "a", 11) == "the body exceeds the limit of 10 bytes; publish a reference instead"
        server.log.clear()  # the error was expected


# By the server itself


def rules(**of: dict[str, Any]) -> Rules:
    return Rules(tuple(Rule(Pattern(name), **fields) for name, fields in of.items()))


def test_the_servers_own_messages_are_subject_to_the_rules() -> None:
    drafts = [Message("a", b"xx")]
    apply(rules(a={"ttl_s": 5.0}), drafts, 2)
    assert drafts[0].ttl_s == 5
    with pytest.raises(PayloadTooLarge, match="the message exceeds the limit of 1 bytes of channel a"):
        apply(rules(a={"message_bytes": 1}), drafts, 2)


# Spread


def spreads(history: History, *names: Sequence[str]) -> list[int | None]:
    return [history.spread_ms(each) for each in names]


def test_refetches_are_spread_at_the_rate_of_the_channels_rule() -> None:
    history = History(Retention(), 10.0)
    history.others = {"fast": 30, "slow": 30, "free": 30, "other": 30}
    history.follow_rules(
        rules(fast={"refetch_rate": 100.0}, slow={"refetch_rate": 1.0}, free={"refetch_rate": float("inf")})
    )
    assert spreads(history, ["fast"], ["slow"], ["free"], ["other"]) == [300, 30_000, None, 3000]
    assert spreads(history, ["fast", "other"], ["free", "fast"], ["other", "other"]) == [3300, 300, 6000]


def test_a_rule_has_a_rate_where_the_server_has_none() -> None:
    history = History(Retention())
    history.others = {"a": 30, "b": 30}
    assert not history.spreads
    history.follow_rules(rules(a={"refetch_rate": 10.0}))
    assert history.spreads
    assert spreads(history, ["a"], ["b"], ["a", "b"]) == [3000, None, 3000]
    history.follow_rules(Rules())
    assert spreads(history, ["a"]) == [None]
