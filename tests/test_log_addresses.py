"""The client's address in the lines of the log that are about one client."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

from .harness import KEY, running


def test_the_log_has_the_clients_address_with_each_subscription_and_refusal(tmp_path: Path) -> None:
    """Also when its connection is closed already, and as a proxy reports it."""
    with contextmanager(running)(tmp_path) as server:
        for source, address in (("127.0.0.1", "198.51.100.7"), ("127.0.0.9", "127.0.0.9")):
            fields = {"X_Forwarded_For": address} if address != source else {}
            with server.connect(source=source) as client:
                client.request("GET", "/channels/%20", **fields)
                with server.connect(source=source) as stream:
                    stream.request("GET", f"/channels/{address}", Accept="text/event-stream", **fields)
                    stream.event()
                    stream.reset()
            for event in ("subscribe", "unsubscribe"):
                server.wait_for_log(f" {event} channels={address} transport=eventsource address={address}( reason|$)")
            server.wait_for_log(f" refused .*address={address}")


def test_the_log_has_the_address_of_who_makes_and_revokes_keys(tmp_path: Path) -> None:
    with contextmanager(running)(tmp_path) as server, server.connect(source="127.0.0.9") as client:
        fields = {"Authorization": f"Bearer {KEY}", "Content_Type": "application/json"}
        client.request("POST", "/keys", b'{"name": "ci", "channels": ["a"]}', **fields)
        assert client.response()[0] == 201
        client.request("DELETE", "/keys/ci", **fields)
        assert client.response()[0] == 204
        client.request("POST", "/revoke", b'{"sub": "ann"}', **fields)
        assert client.response()[0] == 204
        for event in ("key_added key=ci channels=a", "key_revoked key=ci", r"revoked sub=ann expires_s=\d+"):
            server.wait_for_log(f" {event} address=127.0.0.9$")
