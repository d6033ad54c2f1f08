"""The hub: wires its parts, and follows the log.

Listener                accepts connections                     ─┐
Requests                reads request heads, admits, routes      │
  Polls, Streams        subscribe requests                       ├─ act on ─► Sockets, TimerWheel, History
  Publishing            publish requests                         │             (the Context)
Fanout                  sends the messages after each cursor     │
Loop                    the turn: the order of their work       ─┘
"""

from __future__ import annotations

import asyncio
import logging
import random
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .. import logs
from ..access.access import Access
from ..access.policy import Policy
from ..access.questions import Application, Questions
from ..errors import ConfigError
from ..limits import Limits
from ..logs import Event
from ..message import ACCESS_LOG, Message
from ..metrics import Metrics
from ..store.base import Idempotency, Lost, Receipt, Store, StoreError
from ..store.presence import Registry
from ..tls import Certificate, TLSSocket
from ..wire import http
from .admission import Admission
from .ahead import Ahead
from .connection import Connection, State
from .context import Context
from .fanout import Fanout
from .handshakes import Handshakes
from .listener import Listener
from .listing import Listing
from .loop import Loop
from .occupancy import Notifier, Occupancy
from .peers import Peer
from .polls import Polls
from .publisher import publish
from .publishing import Publishing
from .reasons import CloseReason
from .requests import HandOver, Requests
from .responses import Responses
from .revoking import Revoking
from .selector import LoopSelector
from .streams import Streams
from .subscriptions import Subscriptions

_BETWEEN_POLLS = (State.READING_HEAD, State.ADMITTING, State.READING_BODY, State.PUBLISHING)
_ROTATIONS_PER_S = 200  # few subscribers need less than the drain time
_POLL_INTERVAL_S = 0.01
_CLOSING_S = 1.0  # for the client's half of a closing handshake, during shutdown
_RENEWED_AT_ONCE = 256  # connections; 1 ms
_LOST_RETRY_S = (0.05, 2.0)  # between two loads of a log that is lost again immediately


@dataclass(frozen=True, slots=True)
class Settings:
    """Limits, who may do what, the path prefix, and the certificate; None: no TLS. ``application``: decides about
    subscribers, where a rule asks.
    """

    limits: Limits
    policy: Policy
    prefix: str = ""
    certificate: Certificate | None = None
    application: Application | None = None


class Hub:
    """``hand_over(socket, peer, received, admin)`` receives connections whose request is not under /channels.
    ``selector``: the event loop's, if it is a ``LoopSelector``. ``registry``: exchanges subscriber counts between the
    processes that share the log. ``notifier``: reports to an application which channels are occupied.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        metrics: Metrics,
        hand_over: HandOver,
        selector: LoopSelector | None = None,
        registry: Registry | None = None,
        notifier: Notifier | None = None,
    ) -> None:
        access = Access(settings.policy, questions=_questions(settings))
        context = Context(settings.limits, metrics, access, settings.prefix, selector, settings.policy.proxies)
        responses = Responses(context)
        fanout = Fanout(context, responses)
        ahead = Ahead(context, store, fanout)
        occupancy = None if notifier is None else Occupancy(context.history, settings.limits.presence_delay_s, notifier)
        subscriptions = Subscriptions(context, ahead, registry, occupancy)
        streams = Streams(context, subscriptions, fanout)
        polls = Polls(context, subscriptions, fanout, responses)
        self._revoking = Revoking(context, subscriptions.presence, self.end_expired)
        publishing = Publishing(context, store, fanout, responses)
        listing, admission = Listing(context, responses), Admission(context, responses)
        requests = Requests(context, hand_over, responses, streams, polls, publishing, listing, admission)
        self._context = context
        self._store = store
        self._metrics = metrics
        self._fanout = fanout
        self._ahead = ahead
        self._subscriptions = subscriptions
        self._streams = streams
        self._polls = polls
        self._publishing = publishing
        self._admission = admission
        self._requests = requests
        self.access = access
        self.listener = Listener(context, tls=settings.certificate is not None)
        handshakes = Handshakes(context, settings.certificate)
        self._loop = Loop(
            context,
            receive={
                State.READING_HEAD: requests.receive,
                State.READING_BODY: requests.receive_body,
                State.ADMITTING: requests.receive_pipelined,
                State.PUBLISHING: requests.receive_pipelined,
                State.POLLING: requests.receive_pipelined,
                State.STREAMING: streams.receive,
                State.CLOSING: streams.receive_last,
            },
            on_timer={
                State.HANDSHAKING: handshakes.on_timer,
                State.READING_HEAD: requests.on_timer,
                State.READING_BODY: requests.body_timeout,
                State.ADMITTING: admission.on_timer,
                State.PUBLISHING: publishing.on_timer,
                State.POLLING: polls.window_ends,
                State.STREAMING: streams.on_timer,
                State.CLOSING: context.sockets.close_timeout,
            },
            resume=requests.resume,
            handshake=handshakes.proceed,
            publishing=publishing,
            admission=admission,
            fanout=fanout,
        )
        self._tasks: list[asyncio.Task[None]] = []
        self.failed = asyncio.Event()  # a background task ended: the hub cannot go on

    @property
    def cursor(self) -> str:
        """Of everything that this process has read from the log."""
        return self._context.history.cursor(self._context.history.head)

    # Life

    async def start(self) -> None:
        """Loads the retained messages, and follows the log from there. Raises ConfigError."""
        http.set_date(time.time())
        await self._store.open()
        try:
            await self._load()
        except StoreError as error:
            raise ConfigError(f"the log cannot be loaded: {error}") from None
        self._loop.start()
        self._tasks = [asyncio.create_task(work()) for work in (self._follow, self._ahead.run, self._tick)]
        if self._subscriptions.sharing.needed:
            self._tasks.insert(0, asyncio.create_task(self._subscriptions.sharing.run()))
        for task in self._tasks:
            task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            logs.log.critical("BUG: background task ended unexpectedly", exc_info=task.exception())
            self.failed.set()

    async def drain(self, on_closed: Callable[[], None] | None = None) -> None:
        """Tells every subscriber to reconnect later, spread over the drain time; publishing continues.

        Streams opened in the meantime stay until its end, when the server accepts no more connections: otherwise a
        client that reconnects immediately would do so again and again. ``on_closed`` is called when the server stops
        accepting.
        """
        self._context.draining = True
        subscribers = self._subscribers()
        random.shuffle(subscribers)
        spread_s = min(self._context.limits.drain_s, len(subscribers) / _ROTATIONS_PER_S)
        started = time.monotonic()
        for index, connection in enumerate(subscribers):
            ahead_s = started + spread_s * index / len(subscribers) - time.monotonic()
            if ahead_s > _POLL_INTERVAL_S:
                await asyncio.sleep(ahead_s)
            self._rotate(connection)
        await self._until_closed()
        self.listener.close()
        if on_closed is not None:
            on_closed()
        for connection in self._subscribers():
            self._rotate(connection)
        await self._until_closed()
        self._publishing.give_up()
        self._context.sockets.flush_writes()
        await self._until_closed()

    async def retire(self) -> None:
        """Drains a process whose successor already accepts on the same sockets. Each response closes its connection,
        and clients that poll or publish all the time have a second to get one: none sends a request on a closed
        connection.
        """
        self._context.replaced = self._context.draining = True
        self.listener.close()
        await asyncio.sleep(_CLOSING_S)
        await self.drain()

    async def _until_closed(self) -> None:
        """Waits, for a bounded time, for subscribers that were told to leave, and for publishers."""
        deadline = time.monotonic() + min(_CLOSING_S, self._context.limits.drain_s)
        while time.monotonic() < deadline and (self._publishing.busy or self._closing()):
            await asyncio.sleep(_POLL_INTERVAL_S)

    def _subscribers(self) -> list[Connection]:
        states = (State.STREAMING, State.POLLING)
        return [connection for connection in self._context.sockets.connections() if connection.state in states]

    def _rotate(self, connection: Connection) -> None:
        if connection.state is State.POLLING:
            self._polls.rotate(connection)
        elif connection.state is State.STREAMING:
            self._streams.rotate(connection, CloseReason.SHUTDOWN, self._context.retry_ms())
        self._context.schedule_turn()

    def end_expired(self, connection: Connection) -> None:
        """Ends the subscription of a connection whose grant is over: a stream, a held poll, or a client between two
        polls, which may be publishing in the meantime.
        """
        if connection.state is State.STREAMING:
            self._streams.expire(connection)
        elif connection.state is State.POLLING:
            self._polls.window_ends(connection)
        if connection.channels and connection.state in _BETWEEN_POLLS:
            self._subscriptions.leave(connection, CloseReason.EXPIRED)
            if connection.state is State.READING_HEAD and not connection.pending_input:  # not the rest of a head
                self._requests.wait(connection)
        self._context.schedule_turn()

    def _closing(self) -> bool:
        connections = self._context.sockets.connections()
        return any(c.state is State.CLOSING or c.unsent is not None for c in connections)

    async def reconfigure(self, policy: Policy) -> None:
        """Replaces the policy. Subscriptions that it does not allow end, and no other connection notices."""
        self.access.reconfigure(policy)
        self._context.history.follow_rules(policy.rules)
        self._publishing.forget_templates()
        for number, connection in enumerate(list(self._context.sockets.connections())):
            self._renew(connection)
            if number % _RENEWED_AT_ONCE == 0:
                await asyncio.sleep(0)

    def _renew(self, connection: Connection) -> None:
        grant, channels = connection.subscriber, connection.channels
        connection.poll_template = None  # the next poll is admitted like the first
        if grant is not None and not self.access.renew(grant, [channel.name for channel in channels]):
            self.end_expired(connection)

    @property
    def draining(self) -> bool:
        return self._context.draining

    @property
    def not_ready(self) -> str | None:
        """Why the server is not ready for new subscribers; None: it is ready."""
        return "draining" if self.draining else self._store.health().problem

    @property
    def subscribers(self) -> int:
        return self._metrics.subscriptions.total()

    def gauges(self) -> dict[str, float]:
        """The current values, by the names of ``metrics.FAMILIES``."""
        history, sockets, limits = self._context.history, self._context.sockets, self._context.limits
        health = self._store.health()
        return {
            "connections": len(sockets),
            "max_connections": limits.max_connections or 0,
            "max_connections_per_address": limits.connections_per_address,
            "addresses": len(self._context.peers),
            "channels": len(history),
            "retained_messages": history.count,
            "retained_bytes": history.bytes,
            "unsent_bytes": sockets.unsent_bytes,
            "admitting": len(self._admission),
            "log_last_sequence": history.head,
            "idempotency_keys": health.idempotency_keys,
            "idempotency_window_seconds": health.idempotency_window_s,
            "log_writable": float(health.writable),
            "draining": float(self.draining),
            **self._subscriptions.sharing.gauges(),
        }

    def take_back(self, sock: socket.socket, peer: Peer, received: bytes, admin: bool) -> None:
        """Takes a connection back from Tornado. ``received``: pipelined bytes after the request, possibly none."""
        connection = Connection(sock, self._context.timers.now, admin=admin, tls=isinstance(sock, TLSSocket))
        connection.peer = peer
        self._context.sockets.watch(connection)
        self._requests.wait(connection)
        if received:
            self._requests.receive(connection, received)
        self._context.schedule_turn()  # not called from a turn, so schedule one

    async def close(self) -> None:
        """Closes everything."""
        self.listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._context.sockets.close_all()
        self._context.stop()

    # The log

    async def publish(self, drafts: Sequence[Message], idempotency: Idempotency | None = None) -> Receipt:
        """Publishes for the server itself. Raises RequestError, with what a publisher would be answered."""
        return await publish(self._publishing, drafts, idempotency)

    async def _load(self) -> None:
        retained = await self._store.retained()
        self.access.load([message for message in retained.messages if message.channel == ACCESS_LOG])
        others = [message for message in retained.messages if message.channel != ACCESS_LOG]
        self._subscriptions.note_positions()
        self._context.history.load(retained._replace(messages=others), time.time())
        self._revoking.run()

    async def _follow(self) -> None:
        pause_s, most_s = _LOST_RETRY_S
        history = self._context.history
        lost = False
        while True:
            began = time.monotonic()
            try:
                if lost:
                    await self._start_over()
                    lost = False
                await self._store.follow(history.head, history.epoch, self._apply)
            except Lost:
                lost = True
            except StoreError as error:
                logs.log.warning("the log cannot be read now: %s", error)
            pause_s = min(most_s, pause_s * 2) if time.monotonic() - began < most_s else _LOST_RETRY_S[0]
            await asyncio.sleep(pause_s)

    def _apply(self, messages: Sequence[Message]) -> None:
        """Applies messages that this process or another one appended to the log."""
        history, mark_dirty = self._context.history, self._fanout.mark_dirty
        self._metrics.messages += len(messages)
        for message in messages:
            if message.channel == ACCESS_LOG:
                history.skip(message)
                self.access.apply(message)
            else:
                mark_dirty(history.append(message))
        history.shrink()
        self._revoking.run()
        self._publishing.settle()
        self._context.schedule_turn()

    async def _start_over(self) -> None:
        """Reloads the log: subscribers that may have missed messages get a reset."""
        epoch = self._context.history.epoch
        await self._load()
        logs.event(Event.LOG_LOST, logging.WARNING, epoch=self._context.history.epoch)
        if self._context.history.epoch != epoch:
            self._subscriptions.start_over()
        for channel in list(self._context.history):
            self._fanout.mark_dirty(channel)
        self._publishing.settle()
        self._context.schedule_turn()

    async def _tick(self) -> None:
        """Once a second: handles timers, and removes expired messages."""
        while True:
            await asyncio.sleep(1.0 - time.monotonic() % 1.0)
            http.set_date(time.time())
            self._subscriptions.tick()
            self._context.history.expire()
            self._loop.tick(int(time.monotonic()))


def _questions(settings: Settings) -> Questions | None:
    limits = settings.limits
    if settings.application is None:
        return None
    return Questions(
        settings.application,
        limits.authorize_at_once,
        ttl_s=limits.authorize_ttl_s,
        most_s=limits.authorize_most_s,
    )
