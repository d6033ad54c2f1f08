"""From where the server can be reached, before it listens. Public is what is neither loopback nor a Unix socket: a
proxy in front of a Unix socket decides for itself.
"""

from __future__ import annotations

import socket
from ipaddress import ip_address

from ..config import Config


def public_addresses(config: Config) -> tuple[str, str]:
    """The public address of subscribers and pages, and that of publishers; empty if it is not public."""
    pages = "" if config.unix_socket is not None else _public(config.host, config.port)
    admin = config.admin_listen
    if admin is None:
        return pages, pages
    return pages, "" if admin.path is not None else _public(admin.host, admin.port)


def is_loopback(host: str) -> bool:
    """Whether a host is this machine only. False if its name cannot be resolved."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return all(ip_address(str(address[4][0]).partition("%")[0]).is_loopback for address in found)


def _public(host: str, port: int) -> str:
    return "" if is_loopback(host) else f"{host} port {port}"
