"""The sockets that the server listens on, and what it prints about them.

They are bound here, or by systemd. With several workers on Linux each worker has its own sockets on the same port
(SO_REUSEPORT), and the kernel spreads connections over them. Workers share a Unix socket, sockets of systemd, and on
other systems all sockets. Closing the last copy of a listening socket resets the connections in its queue, so the
process that bound it keeps it until the server ends.
"""

from __future__ import annotations

import errno
import logging
import select
import socket
import sys
import time
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import quote

from tornado.netutil import bind_sockets, bind_unix_socket

from . import logs
from .build import VERSION
from .config import Config
from .errors import ConfigError

_BACKLOG = 4096  # connections that the kernel queues during a pass
_SPREADS = sys.platform == "linux"  # macOS has SO_REUSEPORT, but gives all connections to one of the sockets

Sockets = list[socket.socket]


def bind(config: Config) -> list[Sockets]:
    """For each worker, the sockets that it accepts on. Raises ConfigError."""
    try:
        if config.unix_socket is not None:
            return [[_bind_path(config.unix_socket, config.unix_socket_mode)]] * config.workers
        if config.workers == 1 or not _SPREADS:
            return [bind_sockets(config.port, config.host, backlog=_BACKLOG)] * config.workers
        return _bind_one_port_often(config)
    except OSError as error:
        where = config.unix_socket or f"{config.host}:{config.port}"
        raise ConfigError(f"cannot listen on {where}: {error.strerror or error}; {_advice(config)}") from None


def bind_admin(config: Config) -> Sockets:
    """The sockets of --admin-listen, which all workers share. Raises ConfigError."""
    address = config.admin_listen
    if address is None:
        return []
    try:
        if address.path is not None:
            return [_bind_path(address.path, config.unix_socket_mode)]
        return bind_sockets(address.port, address.host, backlog=_BACKLOG)
    except OSError as error:
        where = f"--admin-listen {address}"
        raise ConfigError(f"cannot listen on {where}: {error.strerror or error}; choose another address") from None


def remove_paths(config: Config, given: bool) -> None:
    """Removes the Unix sockets of a server that has ended, but not those that systemd has bound."""
    if config.unix_socket is not None and not given:
        config.unix_socket.unlink(missing_ok=True)
    if config.admin_listen is not None and config.admin_listen.path is not None:
        config.admin_listen.path.unlink(missing_ok=True)


def adopt(descriptors: Sequence[int]) -> Sockets:
    """The sockets that systemd has bound. Raises ConfigError."""
    sockets = []
    for descriptor in descriptors:
        try:
            sock = socket.socket(fileno=descriptor)
            listens = sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            raise ConfigError(f"descriptor {descriptor} of LISTEN_FDS is not a socket: {error.strerror}") from None
        if not listens:
            raise ConfigError("the socket unit must have ListenStream= and Accept=no")
        sock.set_inheritable(False)
        sockets.append(sock)
    return sockets


def on_loopback(sockets: Sequence[socket.socket]) -> bool:
    """Whether only this machine can reach the server: pages of this machine may then use it (a development server's,
    say).

    Not through a Unix socket: a proxy in front of it may be reachable from anywhere.
    """
    return all(sock.family != socket.AF_UNIX and is_loopback(sock) for sock in sockets)


def is_loopback(sock: socket.socket) -> bool:
    return ip_address(sock.getsockname()[0].partition("%")[0]).is_loopback


def announce(config: Config, sockets: Sequence[socket.socket], admin: Sequence[socket.socket]) -> None:
    """Prints the server's addresses, the file of its key, and three commands to copy; or, if the log is JSON, the
    first two of these as a line of the log.
    """
    if config.log_format == "json":
        _print(_line(config, sockets, admin))
        return
    curl, base, where = _shown(config, sockets[0])
    admin_curl, admin_base, admin_where = _shown(config, admin[0]) if admin else (curl, base, where)
    lines = [f"pushcompat {VERSION} listens on {where}"]
    if admin:
        lines.append(f"Publishing, metrics and administration are on {admin_where}")
    key = "KEY"
    if config.publish_key_file is not None:
        lines.append(f"The publish key is in {_short(config.publish_key_file)}")
        key = f"$(cat {_short(config.publish_key_file)})"
    page, path = ("demo chat", "/demo/chat") if config.demo else ("landing page", "/")
    lines += [
        f"Subscribe, publish, or open the {page}:\n",
        f'    {curl} -N "{base}/channels/chat?transport=eventsource"',
        f'    {admin_curl} -H "Authorization: Bearer {key}" -d hello {admin_base}/channels/chat',
        f"    {'python3 -m webbrowser' if curl == 'curl' else curl} {base}{path}\n",
    ]
    _print("\n".join(lines))


def _line(config: Config, sockets: Sequence[socket.socket], admin: Sequence[socket.socket]) -> str:
    fields = {
        "version": VERSION,
        "url": own_url(config, sockets[0]),
        "admin": own_url(config, admin[0]) if admin else None,
        "publish_key_file": config.publish_key_file,
    }
    return logs.Lines("json").line((time.time(), logging.INFO, logs.Event.LISTENING, fields))


def _shown(config: Config, sock: socket.socket) -> tuple[str, str, str]:
    """The command that reaches a socket, the URL for it, and the address."""
    path = _path(sock)
    if path is not None:
        return f"curl --unix-socket {path}", f"http://localhost{config.prefix}", str(path)
    url = _url(config, sock)
    return "curl", url, f"{url}, on all addresses of this machine" if _is_any(sock) else url


def _is_any(sock: socket.socket) -> bool:
    return ip_address(sock.getsockname()[0].partition("%")[0]).is_unspecified


def own_url(config: Config, sock: socket.socket) -> str:
    """The server's URL as seen from this machine."""
    unix_socket = _path(sock)
    if unix_socket is not None:
        return f"http+unix://{quote(str(unix_socket.absolute()), safe='')}{config.prefix}"
    return _url(config, sock)


def _bind_one_port_often(config: Config) -> list[Sockets]:
    if config.port:
        _check_port_is_free(config)
    first = bind_sockets(config.port, config.host, backlog=_BACKLOG, reuse_port=True)
    port = first[0].getsockname()[1]
    more = [bind_sockets(port, config.host, backlog=_BACKLOG, reuse_port=True) for _ in range(config.workers - 1)]
    return [first, *more]


def _bind_path(path: Path, mode: int) -> socket.socket:
    _check_free(path)
    return bind_unix_socket(str(path), mode, _BACKLOG)


def _check_port_is_free(config: Config) -> None:
    """Binding with SO_REUSEPORT would take connections away from another server of this user."""
    for family, kind, protocol, _, address in socket.getaddrinfo(
        config.host or None, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    ):
        try:
            probe = socket.socket(family, kind, protocol)
        except OSError:
            continue  # no IPv6
        with probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind(address)
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise


def _check_free(path: Path) -> None:
    """Binding would replace the socket of a running server; only a leftover socket may be replaced."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return
    raise OSError(errno.EADDRINUSE, "address already in use")


def _advice(config: Config) -> str:
    if config.unix_socket is not None:
        return "choose another --unix-socket"
    return "choose another --port or --host, or stop the process that uses it"


def _print(text: str) -> None:
    """Prints a short text, unless that would block: stdout may be a full pipe that is not read."""
    if sys.stdout is not None and select.select([], [sys.stdout], [], 0)[1]:
        print(text, flush=True)


def _path(sock: socket.socket) -> Path | None:
    return Path(sock.getsockname()) if sock.family == socket.AF_UNIX else None


def _url(config: Config, sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    if _is_any(sock):
        host = "localhost"
    scheme = "http" if config.tls_cert is None else "https"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}{config.prefix}"


def _short(path: Path) -> str:
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)
