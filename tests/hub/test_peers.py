"""Connections by address: what counts as one address, and what is limited."""

from __future__ import annotations

import socket
import time
from traceback import walk_tb

import pytest

from pushcompat.access.proxies import UNIX, Proxies
from pushcompat.errors import TooManyRequests
from pushcompat.hub import peers as peers_module
from pushcompat.hub.peers import Peer, Peers
from pushcompat.limits import Limits
from pushcompat.wire.forwarded import Reports

ANYBODY = "192.0.2.1"
NOW = 1000.0


def make(*trusted: str, most: int = 2, rate: float = 1e6) -> Peers:
    return Peers(Limits(max_connections_per_address=most, handshake_rate=rate), Proxies(trusted))


def may_subscribe(peers: Peers, peer: Peer) -> bool:
    try:
        peers.check_subscriber(peer)
    except TooManyRequests:
        return False
    return True


def reported(peers: Peers, x_for: str) -> Peer:
    """The peer of a new connection from a trusted proxy, after a request for that client."""
    return peers.attribute(peers.accepted("127.0.0.1", NOW), Reports(x_for=x_for))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("192.0.2.1", "64:ff9b::c000:201", True),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::2", True),
    ],
)
def test_an_ipv6_address_counts_as_its_network_and_an_ipv4_address_in_it_as_itself(
    one: str, other: str, same: bool
) -> None:
    peers = make()
    assert (peers.accepted(one, NOW) is peers.accepted(other, NOW)) is same
    assert (reported(peers, one) is reported(peers, other)) is same


def test_a_subscriber_is_refused_when_its_address_has_too_many_connections() -> None:
    peers = make(most=2)
    first, second = peers.accepted(ANYBODY, NOW), peers.accepted(ANYBODY, NOW)
    assert may_subscribe(peers, second)
    third = peers.accepted(ANYBODY, NOW)
    assert not may_subscribe(peers, third)
    assert may_subscribe(peers, peers.accepted("192.0.2.2", NOW))
    first.leave()
    assert may_subscribe(peers, third)


def test_publishers_and_pages_have_a_margin_beyond_which_connections_are_refused() -> None:
    peers = make(most=80)
    for _ in range(80 + 10 + 16):
        peers.accepted(ANYBODY, NOW)
    with pytest.raises(TooManyRequests) as refused:
        peers.accepted(ANYBODY, NOW)
    assert refused.value.headers == (("Retry-After", "5"),)
    assert "80 connections" in refused.value.detail


@pytest.mark.parametrize(
    ("host", "trusted"), [("127.0.0.1", ()), ("::1", ()), (UNIX, ()), (UNIX, ("none",)), ("10.0.0.1", ("private",))]
)
def test_trusted_proxies_and_unix_sockets_are_not_limited(host: str, trusted: tuple[str, ...]) -> None:
    peers = make(*trusted, most=1, rate=0.001)
    for _ in range(100):
        peer = peers.accepted(host, NOW)
    assert may_subscribe(peers, peer)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_programs_of_this_machine_are_limited_if_no_proxy_is_trusted(host: str) -> None:
    peers = make("none", most=1)
    peers.accepted(host, NOW)
    assert not may_subscribe(peers, peers.accepted(host, NOW))


def test_a_proxy_in_the_network_of_clients_is_not_one_of_them() -> None:
    peers = make("2001:db8::7", most=1)
    for _ in range(3):
        client, proxy = peers.accepted("2001:db8::1", NOW), peers.accepted("2001:db8::7", NOW)
    assert not may_subscribe(peers, client)
    assert may_subscribe(peers, proxy)
    assert (client.proxied, proxy.proxied) == (False, True)


def test_behind_a_trusted_proxy_the_reported_client_is_limited() -> None:
    peers = make(most=1)
    assert may_subscribe(peers, reported(peers, ANYBODY))
    assert may_subscribe(peers, reported(peers, "192.0.2.2"))
    assert not may_subscribe(peers, reported(peers, ANYBODY))


def test_a_connection_that_a_proxy_uses_for_another_client_counts_for_that_one() -> None:
    peers = make(most=1)
    peer = reported(peers, ANYBODY)
    peer = peers.attribute(peer, Reports(x_for="192.0.2.2"))
    assert may_subscribe(peers, reported(peers, ANYBODY))
    assert not may_subscribe(peers, reported(peers, "192.0.2.2"))
    assert peers.attribute(peer, Reports(x_for="192.0.2.2")) is peer


def test_a_client_that_the_proxy_does_not_tell_is_not_limited() -> None:
    peers = make(most=1)
    for x_for in ("", "unknown", "_hidden", "127.0.0.1"):
        for _ in range(3):
            assert may_subscribe(peers, reported(peers, x_for))


def test_clients_that_send_contradictory_or_unreadable_fields_have_the_limits_of_one_address() -> None:
    peers = make(most=1)
    for number in range(3):
        peer = peers.accepted("127.0.0.1", NOW)
        peer = peers.attribute(peer, Reports(f"for=198.51.100.{number}", "192.0.2.1"))
        assert may_subscribe(peers, peer) is (number == 0)
        assert not may_subscribe(peers, peers.attribute(peers.accepted("::1", NOW), Reports('for="'))) or number == 0


def test_an_address_may_open_connections_at_its_rate_and_is_told_when() -> None:
    peers = make(most=10**6, rate=2)
    for _ in range(2 * 10 + 1):
        peers.accepted(ANYBODY, NOW)
    with pytest.raises(TooManyRequests) as refused:
        peers.accepted(ANYBODY, NOW)
    assert (refused.value.limit, refused.value.headers) == ("handshake_rate", (("Retry-After", "1"),))
    peers.accepted("192.0.2.2", NOW)
    peers.accepted(ANYBODY, NOW + 0.5)


def test_behind_a_proxy_the_rate_is_that_of_subscriptions() -> None:
    peers = make(most=10**6, rate=0.1)
    for number in range(4):
        peer = reported(peers, ANYBODY)
        if number < 2:
            peers.check_subscriber(peer)
    with pytest.raises(TooManyRequests, match="too fast"):
        peers.check_subscriber(peer)


def test_an_address_is_forgotten_with_its_last_connection() -> None:
    peers = make()
    some = [peers.accepted(f"192.0.2.{number}", time.monotonic() - 60) for number in range(10) for _ in range(2)]
    some += [reported(peers, f"198.51.100.{number}") for number in range(10)]
    assert len(peers) == 20
    for peer in some:
        peer.leave()
    assert (len(peers), peers._direct, peers._reported) == (0, {}, {})


def test_an_address_that_has_used_up_a_part_of_its_rate_is_remembered_without_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peers_module, "_MAX_ABSENT", 3)
    peers = make(rate=0.1)
    now = time.monotonic()
    for _ in range(2):
        peers.accepted(ANYBODY, now).leave()
    for _ in range(2):  # not forgotten when it is refused either
        with pytest.raises(TooManyRequests, match="too fast"):
            peers.accepted(ANYBODY, now)
    for number in range(100):
        peers.accepted(f"198.51.100.{number}", now).leave()
    assert (len(peers), len(peers._direct)) == (0, 3)
    peers.accepted(ANYBODY, now)


@pytest.mark.parametrize("limits", [{"most": 1}, {"rate": 0.001}])
def test_refusals_keep_nothing_of_each_other(limits: dict[str, float]) -> None:
    peers = make(**limits)  # type: ignore[arg-type]
    depths = []
    for _ in range(60):
        try:
            peers.check_subscriber(peers.accepted(ANYBODY, NOW))
        except TooManyRequests as refused:
            depths.append(len(list(walk_tb(refused.__traceback__))))
    assert len(depths) > 30
    assert max(depths[1:]) <= 4


def test_an_accepted_address_is_cheap() -> None:
    """Not a figure: it must not parse an address that it knows."""
    peers = make(most=10**6)
    peers.accepted("2001:db8::1", NOW)
    before = peers_module.network.cache_info().misses
    for _ in range(100):
        peers.accepted("2001:db8::1", NOW)
    assert peers_module.network.cache_info().misses == before


def test_the_family_of_an_address_does_not_matter_to_the_operating_systems_form() -> None:
    """What ``accept`` returns for an IPv4 client of a dual-stack socket."""
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6")
    with (
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server,
        socket.create_connection(("127.0.0.1", server.getsockname()[1])),
    ):
        accepted, address = server.accept()
        accepted.close()
    assert make("none").accepted(address[0], NOW).key == "127.0.0.1"
