"""The server's life: what is made from the configuration, and the order of start and stop."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import select
import signal
import socket
import sys
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import quote

from tornado.netutil import bind_sockets, bind_unix_socket
from tornado.routing import URLSpec

from . import __version__, logs
from .config import Config
from .descriptors import connections_within, raise_limit
from .errors import ConfigError
from .hub import Hub, LoopSelector, Settings
from .limits import Limits
from .logs import Event
from .metrics import Metrics, exposition
from .store import open_store
from .web import demo
from .web.app import Views, make_application
from .web.handover import Handover

_BACKLOG = 4096  # connections that the kernel keeps for us while a pass is under way


def run(config: Config) -> None:
    """Serves until SIGINT or SIGTERM. Raises ConfigError if it cannot start."""
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):  # of log rotation, and of a terminal that closes
        signal.signal(number, signal.SIG_IGN)
    selector = LoopSelector()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(Server(config, selector).serve())


class Server:
    def __init__(self, config: Config, selector: LoopSelector) -> None:
        self._config = config
        self._selector = selector
        self._stop = asyncio.Event()

    async def serve(self) -> None:
        self._on_signals()
        config = self._config
        store = open_store(config.store, config.limits.retention)
        listeners = _listen(config)
        pages = _demo_pages(config, listeners[0])
        limits = _with_connections(config.limits)
        metrics = Metrics()
        settings = Settings(
            limits, [config.publish_key.encode()], config.cors_origins, config.prefix, _on_loopback(config)
        )
        views = Views(__version__, config.prefix, lambda: expose(), lambda: hub.not_ready, config.demo)
        handover = Handover(make_application(views, *pages), limits)
        hub = Hub(store, settings, metrics, handover.hand_over, self._selector)
        handover.take_back = hub.take_back
        expose = exposition(metrics, hub.gauges)
        await hub.start()
        hub.listener.listen(listeners)
        _settle_down()
        _announce(config, listeners)
        stopped = [asyncio.create_task(event.wait()) for event in (self._stop, hub.failed)]
        await asyncio.wait(stopped, return_when=asyncio.FIRST_COMPLETED)
        stopped[1].cancel()
        logs.event(Event.STOPPING, subscribers=hub.subscribers)
        await hub.drain()
        hub.listener.close()
        await handover.close()
        await hub.close()
        await store.close()
        if config.unix_socket is not None:
            config.unix_socket.unlink(missing_ok=True)
        if hub.failed.is_set():
            sys.exit(1)

    def _on_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop_or_exit, number)
        loop.add_signal_handler(signal.SIGHUP, _reload)

    def _stop_or_exit(self, number: int) -> None:
        if self._stop.is_set():
            os._exit(128 + number)  # the second signal: exit at once
        self._stop.set()


def _reload() -> None:
    logs.event(Event.RELOAD, detail="nothing to reload yet; a changed configuration needs a restart")


def _with_connections(limits: Limits) -> Limits:
    """Raises the limit of open files, and takes over how many connections it allows."""
    descriptors = raise_limit()
    most = connections_within(descriptors, limits.max_connections)
    logs.event(Event.DESCRIPTORS, limit=descriptors, max_connections=most)
    return replace(limits, max_connections=most)


def _on_loopback(config: Config) -> bool:
    """Only this machine can reach the server, so pages of this machine may use it (a development server, say)."""
    if config.unix_socket is not None:
        return False  # whoever is in front of it may be reached from anywhere
    if config.host == "localhost":
        return True
    try:
        return ip_address(config.host).is_loopback
    except ValueError:
        return False


def _demo_pages(config: Config, listener: socket.socket) -> list[URLSpec]:
    if not config.demo:
        return []
    comments = demo.Comments(config.state_dir / "demo.sqlite")
    return demo.routes(demo.Chat(comments, config.prefix, _own_url(config, listener), config.publish_key))


def _listen(config: Config) -> list[socket.socket]:
    try:
        if config.unix_socket is not None:
            _check_free(config.unix_socket)
            return [bind_unix_socket(str(config.unix_socket), backlog=_BACKLOG)]
        return bind_sockets(config.port, config.host, backlog=_BACKLOG)
    except OSError as error:
        where = config.unix_socket or f"{config.host}:{config.port}"
        raise ConfigError(f"cannot listen on {where}: {error.strerror or error}; {_advice(config)}") from None


def _check_free(path: Path) -> None:
    """Binding would take the socket away from a server that listens there; one that is left over may be replaced."""
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


def _settle_down() -> None:
    """Freezes what lives as long as the process, and makes collections rarer: connections are many, and live long."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _announce(config: Config, listeners: list[socket.socket]) -> None:
    """Prints where the server listens, where its key is, and three lines to paste."""
    if config.unix_socket is not None:
        base, curl = f"http://localhost{config.prefix}", f"curl --unix-socket {config.unix_socket}"
        lines = [f"pushcompat {__version__} listens on {config.unix_socket}"]
    else:
        base, curl = _url(config, listeners[0]), "curl"
        lines = [f"pushcompat {__version__} listens on {base}"]
    key = "KEY"
    if config.publish_key_file is not None:
        lines.append(f"The publish key is in {_short(config.publish_key_file)}")
        key = f"$(cat {_short(config.publish_key_file)})"
    page, path = ("demo chat", "/demo/chat") if config.demo else ("landing page", "/")
    lines += [
        f"Subscribe, publish, or open the {page}:\n",
        f'    {curl} -N "{base}/channels/chat?transport=eventsource"',
        f'    {curl} -H "Authorization: Bearer {key}" -d hello {base}/channels/chat',
        f"    {'python3 -m webbrowser' if config.unix_socket is None else curl} {base}{path}\n",
    ]
    _print("\n".join(lines))


def _print(text: str) -> None:
    """Prints a little text, unless that would block: stdout may be a pipe that nobody reads, and full."""
    if sys.stdout is not None and select.select([], [sys.stdout], [], 0)[1]:
        print(text, flush=True)


def _own_url(config: Config, listener: socket.socket) -> str:
    """The server's URL as seen from this machine."""
    if config.unix_socket is not None:
        return f"http+unix://{quote(str(config.unix_socket.absolute()), safe='')}{config.prefix}"
    return _url(config, listener)


def _url(config: Config, listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "localhost"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}{config.prefix}"


def _short(path: Path) -> str:
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


if sys.platform == "win32":
    raise ImportError("pushcompat runs on Linux and macOS")
