"""Publishing: parses the body of a request into drafts, appends them to the log, answers the publisher.

Publishes that were read in one turn are appended as one group (``commit``); each publish is still atomic. While the log
stores a group, the next one is collected. So a log with slow appends (a disk, a network) serves many publishers at the
cost of one.

A publisher sends the same header fields each time. A publish with known fields, a plain path and a plain body is
compared instead of parsed (``repeat``): a ``Template`` caches what its header fields determine. From its draft on it is
a publish like any other. (bench, publish-64: 8 µs instead of 14 each.)

If messages are published to a channel faster than they can be delivered, its publishers wait
(``History.needs_backpressure``): the request stays here, not in the log, until the pass has ended, and fails with 503
if that takes too long. Rejected or waiting publishes are not in the log.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from .. import logs
from ..access.grant import Grant
from ..errors import BadRequest, RequestError, TooManyRequests, Unavailable
from ..logs import Event
from ..message import Message, format_cursor
from ..store.base import Idempotency, Outcome, Receipt, Store
from ..wire import drafts, http
from ..wire.names import NAME
from ..wire.request import HEAD_END, Request, cut_keys
from . import message_rules
from .channel import Channel
from .connection import Connection, State
from .context import Context
from .fanout import Fanout
from .idempotency import item_ids, of_request
from .pending import Pending, Template
from .responses import Responses

_MAX_KEY_CHARACTERS = 256
_MAX_TEMPLATES = 256
_JSON = "application/json"


class Publishing:
    def __init__(self, context: Context, store: Store, fanout: Fanout, responses: Responses) -> None:
        limits = context.limits
        self._context = context
        self._timers = context.timers
        self._sockets = context.sockets
        self._history = context.history
        self._metrics = context.metrics
        self._limits = limits
        self._access = context.access
        self._store = store
        self._responses = responses
        self.wait_s = int(min(limits.publish_s, limits.stream_s or limits.publish_s))
        self._plain_line = re.compile(
            rb"POST %b/(%b) HTTP/1\.1\r\n" % (re.escape(context.base.encode()), NAME.pattern.encode())
        )
        self._templates: dict[bytes, Template] = {}  # by the header fields, keys cut out
        self.queue: list[Pending] = []  # for ``commit``
        self._storing: list[Pending] = []  # the group that the log is storing
        self._waiting: set[Pending] = set()  # for a pass
        self._waiting_for: dict[Channel, deque[Pending]] = {}
        self._stored: deque[Pending] = deque()  # in the log, but not received from ``follow`` yet
        self._late: dict[Connection, Pending] = {}  # not answered in the turn that read them
        self._schedule_turn = context.schedule_turn
        fanout.on_pass_end(self._pass_ended)
        context.sockets.on_end(self._cancel)

    @property
    def busy(self) -> bool:
        """Publishers wait for their answers, or the log is storing what a publisher did not wait for."""
        pending = (*self.queue, *self._storing, *self._stored)
        return bool(self._waiting) or not all(publish.given_up for publish in pending)

    @property
    def ready(self) -> bool:
        """Publishes are queued, and the log is not busy."""
        return bool(self.queue) and not self._storing

    # Requests

    def body_limit(self, names: Sequence[str]) -> int:
        """The maximum size of a body; without names, of a batch."""
        if not names:
            return self._limits.batch_bytes
        rules = self._access.message_rules
        most = self._limits.message_bytes
        return most if rules is None else message_rules.most_bytes(rules, names, most)

    def submit(self, connection: Connection, request: Request, names: Sequence[str], grant: Grant) -> None:
        """Handles a complete request. Without names: a batch. Raises RequestError."""
        media_type, params = _media_type(request), request.params
        body = bytes(request.body)
        ids: list[str | None] | None = None
        if names:
            messages = drafts.single(body, media_type == _JSON, names, params)
        else:
            most = self._limits.message_bytes if self._access.message_rules is None else self._limits.batch_bytes
            messages, ids = drafts.batch(
                body, media_type, params, max_messages=self._limits.batch_messages, message_bytes=most
            )  # fmt: skip
            names = tuple(dict.fromkeys([draft.channel for draft in messages]))
        grant.check_publish(names)
        _check_rate(grant, len(messages))
        items = None if ids is None else item_ids(grant, messages, ids)
        self._apply_rules(messages)
        key = request.idempotency_key.strip()
        if len(key) > _MAX_KEY_CHARACTERS:
            raise BadRequest(f"an Idempotency-Key, or a webhook-id, has at most {_MAX_KEY_CHARACTERS} characters")
        idempotency = of_request(grant, key, media_type, names, params, body) if key else None
        connection.request = None
        pending = Pending(
            messages, idempotency=idempotency, connection=connection, names=names, grant=grant,
            keep_alive=request.keep_alive, ids=items,
        )  # fmt: skip
        self._enqueue(pending)

    def submit_own(
        self, drafts: Sequence[Message], idempotency: Idempotency | None, answer: Callable[[Outcome], None]
    ) -> Pending:
        """Publishes for the server itself. ``answer`` is called once, with what a publisher would get. Raises
        RequestError.
        """
        self._apply_rules(drafts)
        names = tuple(dict.fromkeys([draft.channel for draft in drafts]))
        pending = Pending(
            drafts, idempotency=idempotency, connection=None, names=names, grant=_OWN, keep_alive=False, answer=answer
        )
        self._enqueue(pending)
        self._schedule_turn()
        return pending

    def learn(self, request: Request, head: bytes, grant: Grant | None) -> None:
        """Checks the head, and caches what its fields determine. Raises UnsupportedMedia."""
        media_type = _media_type(request)
        length, fields = request.fields.content_length, request.fields
        if grant is None or not length or fields.chunked or fields.expects_continue:
            return
        if length > self._limits.message_bytes:
            return
        if not fields.keep_alive:
            return
        if request.proxied and b"origin" in fields.headers:
            return  # see Access.admit: the grant may be valid only for this proxy's connections
        text, keys = cut_keys(head.partition(b"\r\n")[2])
        if request.idempotency_key != (keys[1] if keys else b""):
            return  # the key was not cut out: the text would match only this key
        if len(self._templates) >= _MAX_TEMPLATES:
            self._templates.clear()
        self._templates[text] = Template(length, media_type, grant)

    def forget_templates(self) -> None:
        """The grants in them may be void: the next publishes are admitted like the first."""
        self._templates.clear()

    def repeat(self, connection: Connection, data: bytes) -> bool:
        """Handles a publish that differs from an earlier one only in its channel, body and key. False: parse it."""
        end = data.find(HEAD_END)
        if end < 0:
            return False
        text, key = data[data.find(b"\r\n") + 2 : end + 4], b""
        template = self._templates.get(text)
        if template is None:
            if b"dempotency-" not in text:
                return False
            text, keys = cut_keys(text)
            template = self._templates.get(text)
            if template is None or keys is None:
                return False
            key = keys[1]
        line = self._plain_line.match(data)
        body = data[end + 4 :]
        grant = template.grant
        if line is None or len(body) != template.length or grant.until <= self._timers.now:
            return False
        is_json = template.media_type == _JSON
        try:
            payload = drafts.payload(body, is_json)
        except RequestError:
            return False
        name = line[1].decode()
        scope = grant.scope
        if scope is not None and name not in scope.allowed and not scope.allows(name):
            return False
        names = (name,)
        ttl_s: float | None = None
        rules = self._access.message_rules
        if rules is not None:
            if template.length > self.body_limit(names):
                return False
            ttl_s = rules.of(name).ttl_s
        pending = Pending(
            (Message(name, payload, is_json, None, None, ttl_s),),
            connection=connection,
            names=names,
            grant=grant,
            keep_alive=True,
        )
        if key:
            if len(key) > _MAX_KEY_CHARACTERS:
                return False
            pending.idempotency = of_request(grant, key, template.media_type, names, _NO_PARAMS, body)
        if grant.quota is not None and grant.quota.take(1, time.monotonic()) > 0:
            return False
        connection.grant = grant
        connection.request_started = self._timers.now
        self._enqueue(pending)
        return True

    def _apply_rules(self, messages: Sequence[Message]) -> None:
        rules = self._access.message_rules
        if rules is not None:
            message_rules.apply(rules, messages, self._limits.message_bytes)

    def _enqueue(self, pending: Pending) -> None:
        """Collects the publish for the log, unless one of its channels needs backpressure: then it waits."""
        history = self._history
        subscribers, others = {}, history.others
        for name in pending.names:
            channel = history.find(name)
            if channel is not None and channel.dirty and history.needs_backpressure(channel):
                self._wait(pending, channel)
                return
            subscribers[name] = history.subscribers(channel) + (others.get(name, 0) if others else 0)
        pending.subscribers = subscribers
        if history.spreads:
            for draft in pending.drafts:
                draft.spread_ms = history.spread_ms([draft.channel])
        self.queue.append(pending)

    # Waiting for a pass

    def _wait(self, pending: Pending, channel: Channel) -> None:
        self._metrics.publish_throttled += 1
        self._waiting.add(pending)
        self._waiting_for.setdefault(channel, deque()).append(pending)
        if pending.connection is not None:
            self._await_answer(pending, pending.connection)

    def _pass_ended(self, channel: Channel) -> None:
        for pending in self._waiting_for.pop(channel, ()):
            if pending in self._waiting:
                self._waiting.discard(pending)
                self._enqueue(pending)

    def on_timer(self, connection: Connection) -> None:
        pending = self._late.pop(connection, None)
        if pending is not None:
            self.expire(pending)

    def expire(self, pending: Pending) -> None:
        """Answers a publish that can wait no longer: for a pass, for the log, or for ``follow``."""
        if pending in self._waiting:
            self._waiting.discard(pending)
            names = ",".join(pending.names)
            overload = f"{names}: messages are published faster than they can be delivered; retry later"
            self._fail(pending, Unavailable(overload))
        elif pending.receipt is not None:
            self._succeed(pending, pending.receipt)
        elif pending in self.queue:
            self.queue.remove(pending)
            self._fail(pending, Unavailable("the log is slow, and nothing was published; retry later"))
        else:
            self._fail(pending, Unavailable(_UNKNOWN))
        pending.given_up = True

    def give_up(self) -> None:
        """At the end of a drain: answers all publishes now, and their connections end."""
        for connection, pending in tuple(self._late.items()):
            pending.keep_alive = False
            self.on_timer(connection)

    def _cancel(self, connection: Connection, _reason: object) -> None:
        """The publisher has disconnected. A waiting publish is dropped; one passed to the log is not cancelled."""
        pending = self._late.pop(connection, None)
        if pending is not None:
            self._waiting.discard(pending)

    # The log

    def commit(self) -> None:
        """Appends the queue to the log, unless the log is still storing the previous group."""
        if self.queue and not self._storing:
            self._storing, self.queue = self.queue, []
            try:
                self._store.append(self._storing, self._stored_group)
            except Exception:
                logs.log.exception("store append failed for %d publishes", len(self._storing))
                refused = Unavailable("store unavailable; retry with the same Idempotency-Key")
                self._stored_group([refused] * len(self._storing))
        for group in (self._storing, self.queue, self._stored):
            for pending in group:
                connection = pending.connection
                if connection is not None and connection.state in _READING:
                    self._await_answer(pending, connection)

    def _await_answer(self, pending: Pending, connection: Connection) -> None:
        """The outcome is not known yet: the next request is not handled before it is."""
        if connection.state is not _PUBLISHING:
            connection.move(_PUBLISHING)
        self._late[connection] = pending
        self._timers.set(connection, connection.request_started + self.wait_s)

    def _stored_group(self, outcomes: Sequence[Outcome]) -> None:
        group, self._storing = self._storing, []
        if logs.enabled(logging.DEBUG):
            _log_group(group, outcomes)
        for pending, outcome in zip(group, outcomes, strict=True):
            try:
                if isinstance(outcome, RequestError):
                    self._fail(pending, outcome)
                    continue
                if not outcome.repeated:
                    self._metrics.publishes += 1
                if self._stored or not self._seen(outcome):
                    pending.receipt = outcome
                    self._stored.append(pending)
                else:
                    self._succeed(pending, outcome)
            except Exception:
                if pending.connection is None:
                    raise
                self._sockets.log_bug_and_abort(pending.connection)
        self._schedule_turn()  # to send the responses, and for the next group

    def settle(self) -> None:
        """Answers publishes whose messages were received from the log, so that publishers read their own writes."""
        stored = self._stored
        while stored:
            receipt = stored[0].receipt
            assert receipt is not None
            if not self._seen(receipt):
                break
            self._succeed(stored.popleft(), receipt)

    def _seen(self, receipt: Receipt) -> bool:
        return receipt.sequence <= self._history.head or receipt.epoch != self._history.epoch

    # Answers

    def _waits(self, pending: Pending, connection: Connection) -> bool:
        """Whether its response is still pending."""
        if self._late:
            self._late.pop(connection, None)
        return connection.state in _WAITING and not pending.given_up

    def _fail(self, pending: Pending, refused: RequestError) -> None:
        connection = pending.connection
        if connection is None:
            _answer(pending, refused)
        elif self._waits(pending, connection):
            keep_alive = pending.keep_alive and not self._context.replaced
            self._responses.fail(connection, refused, keep_alive, pending.grant.cors)

    def _succeed(self, pending: Pending, receipt: Receipt) -> None:
        connection = pending.connection
        if connection is None:
            _answer(pending, receipt)
        elif self._waits(pending, connection):
            keep_alive = pending.keep_alive and not self._context.replaced
            response = http.published(
                receipt.epoch, receipt.sequence, receipt.subscribers,
                keep_alive=keep_alive, extra=pending.grant.cors, replicas=receipt.replicas,
                repeated=None if pending.ids is None else receipt.again,
            )  # fmt: skip
            self._sockets.write_later(connection, response)
            self._responses.sent(connection, keep_alive)


_OWN = Grant()
_PUBLISHING = State.PUBLISHING
_READING = (State.READING_HEAD, State.READING_BODY)
_WAITING = (*_READING, State.PUBLISHING)  # for an answer
_NO_PARAMS: Mapping[str, str] = {}
_UNKNOWN = (
    "the log has not answered in time, so it is not known whether this publish was stored; repeat it with the same"
    " Idempotency-Key, which prevents storing it twice"
)


def _answer(pending: Pending, outcome: Outcome) -> None:
    if pending.answer is not None and not pending.given_up:
        pending.answer(outcome)


def _check_rate(grant: Grant, messages: int) -> None:
    """Raises TooManyRequests."""
    if grant.quota is None:
        return
    wait_s = grant.quota.take(messages, time.monotonic())
    if wait_s > 0:
        who = f"key {grant.publisher}" if grant.publisher else "publishers without a key together"
        detail = f"{who} may not publish more messages now; retry after {math.ceil(wait_s)} s, or raise its rate"
        raise TooManyRequests(detail, "publish_rate", wait_s)


def _log_group(group: Sequence[Pending], outcomes: Sequence[Outcome]) -> None:
    """One line for each group. Not at the default level: applications publish all the time and know the response, and a
    line for each would cost a fifth of a publish.
    """
    stored = [
        (pending, outcome)
        for pending, outcome in zip(group, outcomes, strict=True)
        if isinstance(outcome, Receipt) and not outcome.repeated
    ]
    if stored:
        last = stored[-1][1]
        logs.event(
            Event.PUBLISH,
            logging.DEBUG,
            channels=tuple(dict.fromkeys([name for pending, _ in stored for name in pending.names])),
            id=format_cursor(last.epoch, last.sequence),
            messages=sum([len(pending.drafts) - len(outcome.again) for pending, outcome in stored]),
        )


def _media_type(request: Request) -> str:
    headers = request.fields.headers
    return drafts.media_type(headers.get(b"content-type", b""), headers.get(b"content-encoding", b""))
