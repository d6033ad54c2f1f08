"""Forwarding header fields: what a proxy reports about the request that it has received.

``Forwarded`` (RFC 7239), or the older X-Forwarded-For, -Host and -Proto. Each proxy appends its report, so the last one
is of the proxy that has connected, and all before it is hearsay: ``access.proxies`` decides how much to believe.

Anyone can send these fields, so nothing here raises, and the cost is bounded: of X-Forwarded-For only the last
``_MAX_HOPS`` are read, and a ``Forwarded`` that is too long or malformed is not read at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import NamedTuple

NAMES = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto")
UNREADABLE = "unreadable"  # instead of an address

_MAX_HOPS = 32
_MAX_CHARACTERS = 2048
_MAX_NODE_CHARACTERS = 64
_PAIR = re.compile(
    r"""(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+)="""
    r"""(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<token>[^\s",;]*))[ \t]*(?=[;,]|\Z)"""
)
_QUOTED_PAIR = re.compile(r"\\(.)")
_PORT = re.compile(r":(?:\d{1,5}|_[A-Za-z0-9._-]+)")  # RFC 7239 §6.2: a port may be obfuscated as well
_OBFUSCATED = re.compile(r"_[A-Za-z0-9._-]+")  # RFC 7239 §6.3
_HOST = re.compile(r"(?:[a-z0-9._~-]{1,255}|\[[0-9a-f:.]{2,45}\])(?::\d{1,5})?")
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}  # Traefik reports wss for a WebSocket


class Reports(NamedTuple):
    """The fields called ``NAMES`` as received; the values of a repeated field are joined by commas."""

    forwarded: str = ""
    x_for: str = ""
    x_host: str = ""
    x_proto: str = ""


class Hop(NamedTuple):
    """``address``: the IP address that the proxy was connected from, in its canonical form; empty if the proxy does not
    tell (``unknown``, an obfuscated identifier, no field), ``UNREADABLE`` for anything else. ``host``: as in an origin,
    in lower case; may be empty. ``scheme``: ``http``, ``https`` or empty.
    """

    address: str = ""
    host: str = ""
    scheme: str = ""


_NOT_READ = [Hop(UNREADABLE)]


def standard_hops(reports: Reports) -> list[Hop]:
    """The reports of ``Forwarded``, in its order: the last one is of the nearest proxy."""
    forwarded = reports.forwarded
    if len(forwarded) > _MAX_CHARACTERS:
        return _NOT_READ
    hops: list[Hop] = []
    pairs: dict[str, str] = {}
    at = 0
    while at < len(forwarded):
        if forwarded[at] in ",; \t":  # elements of a list, and pairs of an element, may be empty
            if forwarded[at] == "," and pairs:
                hops.append(_hop(pairs))
                pairs = {}
            at += 1
            continue
        found = _PAIR.match(forwarded, at)
        if found is None:
            return _NOT_READ
        at = found.end()
        name, quoted = found["name"].lower(), found["quoted"]
        if name in pairs:
            return _NOT_READ
        pairs[name] = found["token"] if quoted is None else _QUOTED_PAIR.sub(r"\1", quoted)
    return [*hops, _hop(pairs)] if pairs else hops


def _hop(pairs: Mapping[str, str]) -> Hop:
    return Hop(_node(pairs.get("for", "")), _host(pairs.get("host", "")), _scheme(pairs.get("proto", "")))


def older_hops(reports: Reports) -> list[Hop]:
    """The reports of X-Forwarded-For, -Host and -Proto, in their order.

    Proxies append to X-Forwarded-For, but many replace the others: a shorter list is of the first proxies.
    """
    addresses, hosts, schemes = _last(reports.x_for), _last(reports.x_host), _last(reports.x_proto)
    size = max(len(addresses), 1 if hosts or schemes else 0)
    hops = []
    for back in range(size, 0, -1):
        address = _node(addresses[-back]) if addresses else ""
        hops.append(Hop(address, _host(_at(hosts, back)), _scheme(_at(schemes, back))))
    return hops


def _last(text: str) -> list[str]:
    return [part for part in (item.strip() for item in text.rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]) if part]


def _at(values: list[str], back: int) -> str:
    return values[-min(back, len(values))] if values else ""


def _node(text: str) -> str:
    """The address of ``1.2.3.4``, ``1.2.3.4:80``, ``2001:db8::1``, ``[2001:db8::1]:80``; see ``Hop``."""
    text = text.strip('"')  # some proxies write quotes in X-Forwarded-For too
    if len(text) > _MAX_NODE_CHARACTERS:
        return UNREADABLE
    name = text.partition(":")[0]
    if not text or name.lower() == "unknown" or _OBFUSCATED.fullmatch(name):
        return ""
    if text[0] == "[":
        text, end, port = text[1:].partition("]")
        if not end or (port and not _PORT.fullmatch(port)):
            return UNREADABLE
    elif text.count(":") == 1:
        text, colon, port = text.partition(":")
        if not _PORT.fullmatch(colon + port):
            return UNREADABLE
    return canonical(text) or UNREADABLE


@lru_cache(1024)
def canonical(text: str) -> str:
    """An IP address in its canonical form, an IPv4 address inside of IPv6 as IPv4. Empty if it is none."""
    try:
        if ":" not in text:
            return str(IPv4Address(text))
        address = IPv6Address(text.partition("%")[0])
    except AddressValueError:
        return ""
    mapped = address.ipv4_mapped
    return str(address if mapped is None else mapped)


def _host(text: str) -> str:
    text = text.lower()
    return text if _HOST.fullmatch(text) else ""


def _scheme(text: str) -> str:
    return _SCHEMES.get(text.lower(), "")
