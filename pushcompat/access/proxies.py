"""Which proxies are trusted, and what they report about a client.

Forwarding header fields are believed only from a trusted proxy. The list of hops is read from its end, as each proxy
appends to it: the first address that is not a trusted proxy's is the client's.

By default the proxies of this machine are trusted: those that connect from a loopback address or through a Unix socket.
A program of this machine gains nothing by pretending to be one: it is not counted by its address anyway.

A proxy that sets ``Forwarded`` usually passes the client's X-Forwarded-For on, and the other way round. If both are
present and differ, one of them is the client's invention, and it is unknown which.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from ..wire.forwarded import UNREADABLE, Hop, Reports, canonical, older_hops, standard_hops

UNIX = ""  # the address of a peer on a Unix socket
_DEFAULT = ("loopback", "unix")

_Network = IPv4Network | IPv6Network
_NAMES = {
    "loopback": ("127.0.0.0/8", "::1/128"),
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "169.254.0.0/16", "fe80::/10"),
    "unix": (),
    "none": (),
}
_REMEMBERED = 1024


class Client(NamedTuple):
    """``address``: canonical; empty if unknown, ``UNREADABLE`` if the header fields contradict each other or are
    malformed. ``host`` and ``scheme``: of the URL that the client uses; empty if unknown.
    """

    address: str = ""
    host: str = ""
    scheme: str = ""


class Proxies:
    """``trusted``: addresses, networks (``10.1.0.0/16``), ``loopback``, ``private``, ``unix``, or ``none``; empty: the
    default. Raises ValueError.
    """

    def __init__(self, trusted: Sequence[str] = ()) -> None:
        trusted = trusted or _DEFAULT
        self._local = "unix" in trusted
        self._networks: list[_Network] = []
        for text in trusted:
            self._networks.extend(map(ip_network, _NAMES[text]) if text in _NAMES else [_network(text)])
        if "none" in trusted and len(trusted) > 1:
            raise ValueError("none cannot be combined with other proxies")
        self._known: dict[str, bool] = {}

    def trusts(self, address: str) -> bool:
        """``address``: in canonical form, or ``UNIX``."""
        if address == UNIX:
            return self._local
        known = self._known.get(address)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            known = self._known[address] = self._contains(address)
        return known

    def _contains(self, address: str) -> bool:
        if not canonical(address):
            return False
        parsed = ip_address(address)
        return any(parsed in network for network in self._networks)

    def client(self, reports: Reports) -> Client:
        """The client that a trusted proxy reports."""
        told = self._outermost(standard_hops(reports)) if reports.forwarded else None
        older = self._outermost(older_hops(reports))
        if told is None or older is None:
            return Client(*(told or older or ()))
        address = told.address or older.address
        if told.address and older.address and told.address != older.address:
            address = UNREADABLE
        return Client(address, older.host or told.host, older.scheme or told.scheme)

    def _outermost(self, hops: Sequence[Hop]) -> Hop | None:
        """The report of the first trusted proxy on the way: its client is not one."""
        outermost = None
        for hop in reversed(hops):
            outermost = hop
            if not hop.address or not self.trusts(hop.address):
                break
        return outermost


def _network(text: str) -> _Network:
    try:
        return ip_network(text)
    except ValueError as error:
        names = ", ".join(_NAMES)
        raise ValueError(
            f"{text!r} is not an address, a network like 10.1.0.0/16, or one of {names}: {error}"
        ) from None
