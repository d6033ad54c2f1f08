"""The life of a server process, alone or as one of several workers: construction from the configuration, and the order
of start and stop.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace

from tornado.routing import URLSpec

from . import __version__, exposure, listening, logs, place, process, series, systemd, worker
from .access.claims import Verifier
from .access.policy import Policy
from .access.proxies import Proxies
from .access.replays import REPLAY_S
from .access.rules import HistoryRules
from .access.token_settings import TokenSettings
from .config import Config
from .descriptors import connections_within, raise_limit
from .errors import ConfigError
from .hub import Hub, LoopSelector, Settings
from .limits import Limits
from .logs import Event
from .message import Message, format_cursor
from .metrics import Figures, Metrics, exposition, figures
from .store import open_store, registry_of
from .store.base import Idempotency
from .supervisor import Supervisor
from .tls import Certificate
from .web import admin, demo, hooks, keys
from .web.app import Views, make_application
from .web.handover import Handover
from .web.question import Authorizer
from .web.webhook import Webhook, signing_key

Configure = Callable[[], tuple[Config, set[str]]]

# What SIGHUP replaces in a single process; all other options take effect at the next start.
_RELOADED = {"publish-key", "publish-key-file", "publish-rate", "cors-origin", "publish", "subscribe"} | {
    f"token-{name}" for name in ("key", "key-file", "audience", "issuer", "leeway", "max-age", "cookie")
}


def run(config: Config, configure: Configure) -> None:
    """Serves until SIGINT or SIGTERM. ``configure`` reads the configuration again, and returns it with the options
    that have changed since the start. Raises ConfigError if the server cannot start.
    """
    here = place.find()
    ignored = [signal.SIGUSR1, signal.SIGUSR2]  # sent for log rotation
    if here is not None:
        ignored.append(signal.SIGHUP)  # its parent replaces it
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ignored)
    if here is None and config.workers > 1:
        sys.exit(Supervisor(config).run())
    selector = LoopSelector()
    server = Server(config, configure, selector) if here is None else Worker(config, configure, selector, here)
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        runner.run(server.serve())


class Server:
    """A server that is one process."""

    def __init__(self, config: Config, configure: Configure, selector: LoopSelector) -> None:
        self._config = config
        self._configure = configure
        self._history_rules = HistoryRules(config.rules)
        self._selector = selector
        self._proxies = Proxies(config.trusted_proxies)
        self._stop = asyncio.Event()
        self._reloads: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()
        self._metrics = Metrics()
        series.begin(self._metrics, config.hooks)
        self._systemd = systemd.Notifier()
        self._given = False  # by systemd: it has bound the sockets

    async def serve(self) -> None:
        self._handle_signals()
        config = self._config
        self._certificate = _certificate(config)
        retention = replace(config.limits.retention, by_channel=self._history_rules)
        store = open_store(config.store, retention, config.state_dir)
        self._sockets, self._admin = self._bind()
        exposure.check(config, self._sockets, self._admin)
        pages = self._demo_pages((self._admin or self._sockets)[0])
        limits = replace(_within_descriptors(self._own_limits()), retention=retention)
        webhook, authorizer = _webhook(config, self._metrics), _authorizer(config, self._metrics)
        settings = Settings(limits, self._policy(config), config.prefix, self._certificate, authorizer)
        views = Views(__version__, config.prefix, self._expose, lambda: hub.not_ready, config.demo)
        administration = admin.Administration(
            lambda: hub.access,
            lambda drafts: hub.publish(drafts),
            self._longest_grant_s,
            lambda: hub.cursor,
            durable=config.store != "memory:",
        )
        routes = [*admin.routes(administration, config.prefix), *keys.routes(administration, config.prefix)]
        self._hooks = hooks.Hooks(config.hooks, limits, self._publish_hook, self._metrics, self._message_bytes)
        routes += hooks.routes(config.prefix, self._hooks)
        handover = Handover(make_application(views, *routes, *pages), limits, self._proxies)
        self._hub = hub = Hub(
            store, settings, self._metrics, handover.hand_over, self._selector, registry_of(store), webhook
        )
        handover.take_back = hub.take_back
        await hub.start()
        _settle_down()
        await self._begin()
        self._handle_reloads()
        stopped = [asyncio.create_task(event.wait()) for event in (self._stop, hub.failed)]
        await asyncio.wait(stopped, return_when=asyncio.FIRST_COMPLETED)
        stopped[1].cancel()
        self._ignore_reloads()
        logs.event(Event.STOPPING, subscribers=hub.subscribers)
        await self._drain()
        hub.listener.close()
        await handover.close()
        await hub.close()
        if webhook is not None:
            await webhook.close()
        if authorizer is not None:
            await authorizer.close()
        await store.close()
        await self._end()
        if hub.failed.is_set():
            sys.exit(1)

    def _policy(self, config: Config) -> Policy:
        return Policy(
            [config.publish_key.encode()],
            config.cors_origins,
            listening.on_loopback([*self._sockets, *self._admin]),
            config.rules,
            config.keys,
            _verifier(config.tokens),
            config.tokens.cookie or "",
            self._proxies,
            config.limits.publish_rate,
        )

    async def _reload(self) -> None:
        async with self._reloading:  # or an earlier configuration could be applied last
            await self._apply_configuration()

    async def _apply_configuration(self) -> None:
        """Reads the configuration again, and applies what can change. If it is invalid, nothing changes."""
        if self._stop.is_set() or self._hub.failed.is_set():
            return  # it has closed its sockets, or will
        try:
            config, changed = self._configure()
            exposure.check(config, self._sockets, self._admin)
            policy = self._policy(config)
        except ConfigError as error:
            logs.event(Event.RELOAD, logging.ERROR, detail=f"{error}; the server continues unchanged")
            return
        self._history_rules.replace(config.rules)
        await self._hub.reconfigure(policy)
        if self._certificate is not None:
            self._certificate.reload()
        self._config = config
        self._hooks.reconfigure(config.hooks)
        series.expect_hooks(self._metrics, config.hooks)
        for option in sorted(changed - _RELOADED):
            detail = f"--{option} takes effect when the server is restarted"
            logs.event(Event.RELOAD, logging.WARNING, detail=detail)
        logs.event(Event.RELOAD, detail="keys, rules, hooks and origins are those of the configuration now")

    async def _publish_hook(self, hook: str, drafts: Sequence[Message], replay_key: str | None) -> str:
        """``hooks.Publish``."""
        idempotency = None
        if replay_key is not None:
            idempotency = Idempotency(f"hook:{hook}", replay_key, replay_key.encode(), REPLAY_S)
        receipt = await self._hub.publish(drafts, idempotency)
        return format_cursor(receipt.epoch, receipt.sequence)

    def _message_bytes(self, channel: str) -> int:
        own = self._config.rules.of(channel).message_bytes
        return self._config.limits.message_bytes if own is None else own

    def _longest_grant_s(self) -> float:
        """How long a subscriber may be admitted by the same token, or the same answer of the application."""
        tokens = self._config.tokens
        return max(tokens.max_age_s + tokens.leeway_s, self._config.limits.authorize_most_s)

    async def _expose(self) -> bytes:
        return exposition(await self._all_figures())

    def _figures(self) -> Figures:
        return figures(self._metrics, {**self._hub.gauges(), **process.usage()})

    def _demo_pages(self, listener: socket.socket) -> list[URLSpec]:
        config, certificate = self._config, self._certificate
        if not config.demo:
            return []
        chat = demo.Chat(
            demo.Comments(config.state_dir / "demo.sqlite"),
            config.prefix,
            listening.own_url(config, listener),
            lambda: self._config.publish_key,
            lambda: None if certificate is None else certificate.trusting,
        )
        return demo.routes(chat)

    # Overridden in Worker

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop_or_exit, number)

    def _handle_reloads(self) -> None:
        """From now on. A SIGHUP that came before waits until here, since ``__main__`` has blocked it."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._start_reload)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])

    def _ignore_reloads(self) -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # removed alone, it would end the process

    def _bind(self) -> tuple[listening.Sockets, listening.Sockets]:
        """The sockets that it listens on, and those of --admin-listen."""
        descriptors = systemd.take_sockets()
        self._given = bool(descriptors)
        sockets = listening.adopt(descriptors) if descriptors else listening.bind(self._config)[0]
        return sockets, listening.bind_admin(self._config)

    def _own_limits(self) -> Limits:
        return self._config.limits

    async def _begin(self) -> None:
        """Starts accepting connections, and announces it."""
        self._hub.listener.listen(self._sockets, admin=not self._admin)
        self._hub.listener.listen(self._admin)
        listening.announce(self._config, self._sockets, self._admin)
        exposure.warn(self._config)
        self._systemd.ready()
        if self._systemd.watchdog_s is not None:
            self._watched = asyncio.create_task(self._send_watchdog(self._systemd.watchdog_s))

    async def _all_figures(self) -> Figures:
        return {**self._figures(), "workers": 1, "workers_silent": 0, "workers_replaced": 0}

    async def _drain(self) -> None:
        self._systemd.stopping()
        await self._hub.drain()

    async def _end(self) -> None:
        listening.remove_paths(self._config, self._given)

    def _start_reload(self) -> None:
        task = asyncio.create_task(self._reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    def _stop_or_exit(self, number: int) -> None:
        if self._stop.is_set():
            os._exit(128 + number)  # the second signal: exit at once
        self._stop.set()

    async def _send_watchdog(self, interval_s: float) -> None:
        while True:
            self._systemd.alive()
            await asyncio.sleep(interval_s)


class Worker(Server):
    """One of several processes. Its parent has bound the sockets, and stops it."""

    def __init__(self, config: Config, configure: Configure, selector: LoopSelector, here: place.Place) -> None:
        super().__init__(config, configure, selector)
        self._place = here
        self._line = worker.Line(here, self._told)
        self._replaced = False
        self._inherited = [[socket.socket(fileno=os.dup(fd)) for fd in group] for group in here.sockets]
        self._inherited_admin = [socket.socket(fileno=os.dup(fd)) for fd in here.admin]
        self._accepting: dict[int, listening.Sockets] = {}  # by the number of the worker that the sockets belong to

    def _handle_signals(self) -> None:
        """SIGTERM may arrive twice: from a service manager and from the parent. The parent handles Ctrl-C."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _handle_reloads(self) -> None:
        """Its parent does, and starts a successor."""

    def _ignore_reloads(self) -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # removed alone, it would end the process

    def _bind(self) -> tuple[listening.Sockets, listening.Sockets]:
        worker.check(self._config, self._place.settled)
        if self._config.workers != self._place.workers:
            detail = f"--workers {self._config.workers} takes effect when the server is restarted"
            logs.event(Event.RELOAD, logging.WARNING, detail=detail)
        return self._inherited[self._place.number - 1], self._inherited_admin

    def _own_limits(self) -> Limits:
        """With this worker's share of the connections."""
        here = self._place
        spread = len(set(map(tuple, here.sockets))) == here.workers
        return self._config.limits.of_worker(here.number, here.workers, spread)

    async def _begin(self) -> None:
        self._accept([self._place.number])
        self._hub.listener.listen(self._admin)
        await self._line.open()
        self._line.say(worker.Ready())

    async def _all_figures(self) -> Figures:
        own = self._figures()
        total = await self._line.total(own)
        return {**own, "workers": 1, "workers_silent": self._place.workers - 1} if total is None else total

    async def _drain(self) -> None:
        if self._replaced:
            await self._hub.retire()
        else:
            await self._hub.drain(lambda: self._line.say(worker.Closed()))

    async def _end(self) -> None:
        self._line.say(worker.Report(self._figures()))
        await self._line.close()

    def _told(self, message: worker.Message | None) -> None:
        match message:
            case worker.Ask():
                self._line.say(worker.Report(self._figures()))
            case worker.Accept(numbers) if not self._stop.is_set():
                self._accept(numbers)
            case worker.Retire():
                self._replaced = not self._stop.is_set()
                self._stop.set()
            case None if not self._stop.is_set():
                logs.event(Event.PARENT_ENDED, logging.WARNING)
                self._stop.set()

    def _accept(self, numbers: Sequence[int]) -> None:
        """Accepts on the sockets of these workers, and on no others."""
        listener = self._hub.listener
        for number in set(self._accepting) - set(numbers):
            listener.leave(self._accepting.pop(number))
        for number in set(numbers) - set(self._accepting):
            self._accepting[number] = [sock.dup() for sock in self._inherited[number - 1]]
            listener.listen(self._accepting[number], admin=not self._admin)


def _within_descriptors(limits: Limits) -> Limits:
    """Raises the limit of open files, and sets ``max_connections`` to the number that it allows."""
    descriptors = raise_limit()
    most = connections_within(descriptors, limits.max_connections)
    logs.event(Event.DESCRIPTORS, limit=descriptors, max_connections=most)
    return replace(limits, max_connections=most)


def _certificate(config: Config) -> Certificate | None:
    return None if config.tls_cert is None else Certificate(config.tls_cert, config.tls_key)


def _webhook(config: Config, metrics: Metrics) -> Webhook | None:
    if config.presence_webhook is None:
        return None
    return Webhook(config.presence_webhook, signing_key(config.presence_secret or ""), metrics)


def _authorizer(config: Config, metrics: Metrics) -> Authorizer | None:
    if config.authorize_url is None:
        return None
    limits = config.limits
    return Authorizer(config.authorize_url, limits.authorize_s, limits.authorize_at_once, metrics)


def _verifier(settings: TokenSettings) -> Verifier | None:
    """Raises ConfigError."""
    if not settings.given:
        return None
    from .access.token_keys import load_token_keys  # a server without tokens starts without PyJWT
    from .access.tokens import Verifier

    keys = load_token_keys(settings.key_files, settings.key)
    for sentence in keys.skipped:
        logs.log.warning("%s", sentence)
    return Verifier(keys, settings)


def _settle_down() -> None:
    """Freezes permanent objects, and makes garbage collections rarer: connections are many and long-lived."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(2_000, 10, 1_000)  # 0.3 ms, 3 ms, and seldom: a collection must fit into a turn of the loop


if sys.platform == "win32":
    raise ImportError("pushcompat runs on Linux and macOS")
