"""The list of channels: what is on it, its pages, who may see it, and that it stalls nobody."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import quote

import pytest

from pushcompat.hub import listing as module
from pushcompat.limits import Limits
from pushcompat.message import Message, format_cursor

from ..harness import KEY, PATIENCE_S, Client, Server
from .stage import LocalClient, Stage, play


async def listed(client: LocalClient, query: str = "") -> dict[str, Any]:
    head, body = await asked(client, query)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n"), body
    page: dict[str, Any] = json.loads(body)
    return page


async def asked(client: LocalClient, query: str = "", key: str = KEY) -> tuple[bytes, bytes]:
    loop = asyncio.get_running_loop()
    request = f"GET /channels{query} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {key}\r\n\r\n"
    await loop.sock_sendall(client.socket, request.encode())
    data = b""
    async with asyncio.timeout(PATIENCE_S):
        while b"\r\n\r\n" not in data:
            data += await loop.sock_recv(client.socket, 1 << 16)
        head, _, body = data.partition(b"\r\n\r\n")
        size = int(head.partition(b"Content-Length: ")[2].split(b"\r\n")[0])
        while len(body) < size:
            body += await loop.sock_recv(client.socket, 1 << 16)
    assert len(body) == size
    return head, body


def test_the_list_tells_subscribers_newest_id_and_what_is_retained() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.publish("b")
        last = await stage.publish("bb", "b")
        await stage.subscribed("websocket-json", "b,quiet", client="tab")
        await stage.subscribed("longpoll-json", "b", client="tab", wait="20")
        stage.hub.history.others = {"b": 2, "elsewhere": 1}
        before = format_cursor(stage.store.epoch, 2)
        page = await listed(await stage.client())
        assert page == {
            "channels": [
                {"channel": "b", "subscribers": 3, "newest": last, "messages": 2, "bytes": 2},
                {"channel": "bb", "subscribers": 0, "newest": before, "messages": 1, "bytes": 2},
                {"channel": "elsewhere", "subscribers": 1, "newest": None, "messages": 0, "bytes": 0},
                {"channel": "quiet", "subscribers": 1, "newest": None, "messages": 0, "bytes": 0},
            ],
            "next": None,
        }

    play(scenario)


def test_channels_that_are_kept_for_their_floor_alone_are_not_listed() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.publish("a")
        await stage.store.publish(Message("gone", b"x", ttl_s=0.001))
        channel = stage.hub.history.channel("gone")
        await stage.until(lambda: len(channel) == 1)
        channel.floor = 100
        channel.drop(channel.after(-1)[0])
        page = await listed(await stage.client())
        assert [entry["channel"] for entry in page["channels"]] == ["a"]

    play(scenario)


@pytest.mark.parametrize(("prefix", "limit"), [("", 7), ("c1", 3), ("c", 1000), ("none", 5), ("", 1)])
def test_pages_have_each_channel_once_in_order(prefix: str, limit: int) -> None:
    async def scenario(stage: Stage) -> None:
        names = [f"{letter}{number}" for letter in "acz" for number in range(20)]
        await stage.store.publish(*(Message(name, b"x") for name in names))
        await stage.hub.until_quiet(len(names))
        stage.hub.history.others = {"c5": 1, "c100": 2}
        client, found, after = await stage.client(), [], ""
        while after is not None:
            page = await listed(client, f"?prefix={prefix}&limit={limit}&after={after}")
            assert len(page["channels"]) <= limit
            found += [entry["channel"] for entry in page["channels"]]
            after = page["next"]
        assert found == sorted(name for name in (*names, "c100") if name.startswith(prefix))

    play(scenario)


def test_a_list_of_very_many_channels_is_made_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(stage: Stage) -> None:
        names = [f"{number:05}" for number in range(8_000)]
        for name in names:
            stage.hub.history.append(Message(name, b"x", sequence=stage.hub.history.head + 1))
        client, slices = await stage.client(), 0
        go_on = module.Listing._continue

        def counted(self: module.Listing, *rest: Any) -> None:
            nonlocal slices
            slices += 1
            go_on(self, *rest)

        monkeypatch.setattr(module.Listing, "_continue", counted)
        monkeypatch.setattr(module, "_SLICE_S", 0.0)
        page = await listed(client, "?limit=200&after=05000")
        assert [entry["channel"] for entry in page["channels"]] == names[5_001:5_201]
        assert slices > 8_000 / module._NAMES_AT_ONCE + 190

    play(scenario)


def test_a_client_that_leaves_meanwhile_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(stage: Stage) -> None:
        for number in range(5000):
            stage.hub.history.append(Message(f"{number}", b"x", sequence=stage.hub.history.head + 1))
        client = await stage.client()
        request = f"GET /channels HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {KEY}\r\n\r\n"
        await asyncio.get_running_loop().sock_sendall(client.socket, request.encode())
        client.socket.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SOL_SOCKET, SO_LINGER: a RST
        client.socket.close()
        await stage.until(lambda: len(stage.hub.sockets) == 0)

    monkeypatch.setattr(module, "_SLICE_S", 0.0)
    play(scenario)


def test_the_connection_can_be_used_again_and_pipelined_requests_wait() -> None:
    async def scenario(stage: Stage) -> None:
        await stage.publish("a")
        client = await stage.client()
        for _ in range(3):
            assert len((await listed(client))["channels"]) == 1
        request = f"GET /channels?limit=1 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {KEY}\r\n\r\n".encode()
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client.socket, request * 5)
        data = b""
        async with asyncio.timeout(PATIENCE_S):
            while data.count(b'"next":null}\n') < 5:
                data += await loop.sock_recv(client.socket, 1 << 16)

    play(scenario)


@pytest.mark.parametrize(
    ("query", "says"),
    [("?limit=0", "limit="), ("?limit=1001", "limit="), ("?limit=x", "limit="), ("?limit=" + "9" * 5000, "limit="),
     ("?limit=%C2%B2", "limit="), ("?after=a,b", "after="), (f"?after={quote('ü')}", "after=")],
)  # fmt: skip
def test_malformed_parameters_are_refused_with_what_to_use(query: str, says: str) -> None:
    async def scenario(stage: Stage) -> None:
        head, body = await asked(await stage.client(), query)
        assert head.startswith(b"HTTP/1.1 400 ")
        assert says in json.loads(body)["detail"]

    play(scenario, Limits(head_bytes=16 * 1024))


def test_only_publishers_may_see_the_list(shared_server: Server, shared_client: Client) -> None:
    client = shared_client
    for path in ("/channels", "/channels/", "/%63hannels?limit=1"):
        for fields in ({}, {"Authorization": "Bearer wrong"}):
            client.request("GET", path, **fields)
            status, headers, detail = client.problem()
            assert (status, headers["www-authenticate"]) == (401, 'Bearer realm="pushcompat"')
            assert "publish key" in detail
        client.request("GET", path, Authorization=f"Bearer {KEY}")
        status, headers, body = client.response()
        assert (status, headers["content-type"], set(json.loads(body))) == (
            200,
            "application/json",
            {"channels", "next"},
        )
    client.request("GET", "/channels", Authorization=f"Bearer {KEY}", Origin="https://other.example")
    assert client.problem()[0] == 403
    client.request("HEAD", "/channels", Authorization=f"Bearer {KEY}")
    assert client.head()[0] == 200
    client.request("HEAD", "/channels")
    assert client.head()[0] == 401


def test_other_methods_are_refused(shared_server: Server) -> None:
    with shared_server.connect() as client:
        client.request("DELETE", "/channels", Authorization=f"Bearer {KEY}")
        status, headers, _ = client.problem()
        assert (status, headers["allow"]) == (405, "GET, HEAD, POST, OPTIONS")


def test_a_subscription_without_a_channel_is_no_list(shared_server: Server) -> None:
    for query, headers in [
        ("?transport=longpoll", {}), ("?cursor=earliest", {}), ("?wait=1", {}), ("", {"Accept": "text/event-stream"}),
    ]:  # fmt: skip
        with shared_server.connect() as client:
            client.request("GET", f"/channels{query}", Authorization=f"Bearer {KEY}", **headers)
            assert client.problem()[0] == 404
