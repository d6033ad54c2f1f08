"""Counts connections by the address of the client, and limits how many one address has and how fast it opens them.

An IPv6 address counts as its /64, which is what a provider gives to one customer (RFC 6177), so a client has 2^64 of
them. IPv4 addresses inside of IPv6 count as IPv4: otherwise all IPv4 clients of a dual-stack socket, or of a NAT64,
would be one.

Not limited are trusted proxies (the programs of this machine, by default), since all clients of a proxy have its
address. What a trusted proxy reports is counted instead: a connection moves to the reported client with each request,
as a proxy uses its connections for one client after the other. Without a report a connection is not limited.

Subscribers are refused first; publishers and pages have a margin, beyond which connections are refused when they are
accepted. Connections handed to Tornado are counted too.

Memory: one object for each address that has connections, and for at most ``_MAX_ABSENT`` that have used up a part of
their rate.
"""

from __future__ import annotations

import time
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, IPv6Network

from ..access.proxies import UNIX, Proxies
from ..access.quotas import Quota
from ..errors import TooManyRequests
from ..limits import Limits
from ..wire.forwarded import Reports, canonical

_MAX_ABSENT = 10_000
_MARGIN = 16  # connections, and an eighth of the limit, for publishers and pages
_NAT64 = IPv6Address("64:ff9b::").packed[:12]  # the well-known prefix (RFC 6052)

_TOO_FAST = "connections from this address are opened too fast; try again later"
_RETRY_S = 5  # the usual duration of a wave of reconnections


class Peer:
    """An address and its connections. ``proxied``: they come from a trusted proxy. ``limited``: the limits apply."""

    __slots__ = ("_peers", "connections", "key", "limited", "proxied", "quota", "table")

    def __init__(self, peers: Peers | None, table: dict[str, Peer], key: str, *, proxied: bool, limited: bool) -> None:
        self._peers = peers
        self.table = table  # in which it is, by its key
        self.key = key
        self.proxied = proxied
        self.limited = limited
        self.connections = 0
        self.quota: Quota | None = None

    def leave(self) -> None:
        """One of its connections was closed."""
        self.connections -= 1
        if not self.connections and self._peers is not None:
            self._peers.forget(self)


UNLIMITED = Peer(None, {}, "", proxied=False, limited=False)


class Peers:
    def __init__(self, limits: Limits, proxies: Proxies) -> None:
        self._proxies = proxies
        self._most = limits.connections_per_address
        self._most_in_all = self._most + self._most // 8 + _MARGIN
        self._rate = limits.handshake_rate
        self._direct: dict[str, Peer] = {}  # by key
        self._reported: dict[str, Peer] = {}  # by trusted proxies
        self._absent: dict[Peer, None] = {}  # without connections, the longest-absent first
        self._unknown = Peer(None, self._reported, "", proxied=True, limited=False)

    def __len__(self) -> int:
        """The number of addresses that have connections."""
        return len(self._direct) + len(self._reported) - len(self._absent)

    # Connections

    def accepted(self, host: str, now: float) -> Peer:
        """The peer of a new connection, which it counts. Raises TooManyRequests: the connection must be closed.

        ``host``: from the operating system; ``UNIX``: the connection is not over IP.
        """
        key = self._key(host)
        peer = self._direct.get(key)
        if peer is None:
            proxied = self._proxies.trusts(key)
            peer = self._make(self._direct, key, proxied=proxied, limited=not proxied and host != UNIX)
        if peer.limited:
            if peer.connections >= self._most_in_all:
                raise self._too_many()
            self._check_rate(peer, now)
        self._enter(peer)
        return peer

    def attribute(self, peer: Peer, reports: Reports) -> Peer:
        """Counts a connection of ``peer``, which is proxied, for the client that the proxy reports, and returns it."""
        key = self._key(self._proxies.client(reports).address)
        target = self._reported.get(key) if key else self._unknown
        if target is None:
            target = self._make(self._reported, key, proxied=True, limited=not self._proxies.trusts(key))
        if target is not peer:
            self._enter(target)
            peer.leave()
        return target

    def check_subscriber(self, peer: Peer) -> None:
        """Before a connection of this peer subscribes. Raises TooManyRequests."""
        if self.has_too_many(peer):
            raise self._too_many()
        if peer.proxied and peer.limited:  # others were checked when they were accepted
            self._check_rate(peer, time.monotonic())

    def has_too_many(self, peer: Peer) -> bool:
        return peer.connections > self._most and peer.limited

    def forget(self, peer: Peer) -> None:
        """The peer has no connections."""
        quota = peer.quota
        if quota is None or quota.is_full(time.monotonic()):
            del peer.table[peer.key]
            return
        self._absent[peer] = None
        if len(self._absent) > _MAX_ABSENT:
            longest = next(iter(self._absent))
            del self._absent[longest]
            del longest.table[longest.key]

    def _make(self, table: dict[str, Peer], key: str, *, proxied: bool, limited: bool) -> Peer:
        peer = table[key] = Peer(self, table, key, proxied=proxied, limited=limited)
        if limited:
            peer.quota = Quota(self._rate)
        return peer

    def _enter(self, peer: Peer) -> None:
        if not peer.connections:
            self._absent.pop(peer, None)
        peer.connections += 1

    def _too_many(self) -> TooManyRequests:
        """A new one each time: an exception that is raised again keeps the frames of all times before."""
        detail = f"this address has {self._most} connections, the maximum; close some, or try again later"
        return TooManyRequests(detail, "connections_per_address", _RETRY_S)

    def _check_rate(self, peer: Peer, now: float) -> None:
        if peer.quota is not None and peer.quota.take(1, now) > 0:
            raise TooManyRequests(_TOO_FAST, "handshake_rate")

    def _key(self, address: str) -> str:
        """The key of an address. An IPv6 address is its network, unless it is a proxy, which has its own limits."""
        if ":" not in address:
            return address
        address = canonical(address)
        return address if ":" not in address or self._proxies.trusts(address) else network(address)


@lru_cache(4096)
def network(address: str) -> str:
    """The network that an IPv6 address in canonical form is counted as, or the IPv4 address in it."""
    packed = IPv6Address(address).packed
    if packed[:12] == _NAT64:
        return str(IPv4Address(packed[12:]))
    return str(IPv6Network((packed[:8] + bytes(8), 64)))
