"""Other people's webhooks: ``/hooks/NAME``, and ``/hooks/NAME/TOKEN`` for senders that sign nothing.

    head received ──► hook and token known, claim plausible, size allowed ──► body ──► signature ──► publish ──► 200

What the head alone disqualifies is refused before the body is read. All bodies that are being received have a budget
together, since nobody has proved anything yet. Beyond it the one that began first is refused: what takes longest is
not a webhook. A request that is verified is answered 2xx, whatever is in it: senders
retry, and in the end switch a hook off, for what they could not change. So what cannot be published as configured is
published as the signal UPDATED, and logged.

The token is in the path, since many senders append a query of their own, and proxies log both. It is never logged here.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPServerRequest
from tornado.routing import URLSpec
from tornado.web import stream_request_body, url

from .. import logs
from ..access.hooks import Hook
from ..access.providers import TOKEN_FIELD, Claim
from ..errors import MethodNotAllowed, NotFound, PayloadTooLarge, RequestError, Unavailable
from ..limits import Limits
from ..logs import Event
from ..wire import drafts
from ..wire.documents import document, unwrapped
from ..wire.templates import Missing
from .app import NO_STORE, Handler
from .handshakes import Answer, allowed_origin, asked_in_body, asked_in_query, challenged

JSON = "application/json"
_REQUEST_BYTES = 20 * 1024  # what Tornado needs for a request that is not complete, besides its body
Publish = Callable[[str, Sequence[Any], str | None], Awaitable[str]]


class Counts(Protocol):
    hook_requests: Counter[str]
    hook_refused: Counter[tuple[str, str]]


class Hooks:
    """``publish(name, drafts, replay_key)`` returns the id of the last message; the same key for the same hook
    publishes once. ``message_bytes``: the longest message of a channel.
    """

    def __init__(
        self,
        hooks: Iterable[Hook],
        limits: Limits,
        publish: Publish,
        counts: Counts,
        message_bytes: Callable[[str], int],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._limits = limits
        self.publish = publish
        self.counts = counts
        self.message_bytes = message_bytes
        self.clock = clock
        self.refusals = logs.Limited(Event.HOOK_REFUSED)
        self._receiving: dict[Receiver, int] = {}  # bytes of requests that are not complete, the first one first
        self._received_bytes = 0  # of all of them
        self.reconfigure(hooks)

    def reconfigure(self, hooks: Iterable[Hook]) -> None:
        """Replaces all hooks. Requests under way continue with the hook that they began with."""
        self._hooks = {hook.name: hook for hook in hooks}

    def find(self, name: str) -> Hook:
        """Raises NotFound."""
        hook = self._hooks.get(name)
        if hook is None:
            raise NotFound("no hook of this name; it needs a [[hook]] in the server's configuration")
        return hook

    def body_bytes(self, hook: Hook) -> int:
        return self._limits.hook_body_bytes if hook.body_bytes is None else hook.body_bytes

    def received(self, receiver: Receiver, size: int) -> None:
        """Adds bytes to its request. Beyond the budget, interrupts those that began first."""
        self._receiving[receiver] = self._receiving.get(receiver, 0) + size
        self._received_bytes += size
        while self._received_bytes > self._limits.hook_budget_bytes:
            first = next(iter(self._receiving))
            self.completed(first)
            first.interrupt(Unavailable("too many requests at the same time; retry later"))

    def completed(self, receiver: Receiver) -> None:
        self._received_bytes -= self._receiving.pop(receiver, 0)


@stream_request_body
class Receiver(Handler):
    def initialize(self, hooks: Hooks) -> None:
        self.hooks = hooks
        self.hook: Hook | None = None
        self.claim = Claim()
        self.body = bytearray()

    @classmethod
    def body_refusal(cls, request: HTTPServerRequest) -> int | None:
        """Method and size are checked by ``prepare``, which knows the hook."""
        length = request.headers.get("Content-Length", "0")
        if not (length.isascii() and length.isdigit()):
            return 400
        return 411 if "Transfer-Encoding" in request.headers and request.version == "HTTP/1.0" else None

    # The head

    def prepare(self) -> None:
        self.set_header(*NO_STORE)
        name, token = self.path_args
        try:
            self.hook = self.hooks.find(name)
            self._admit(self.hook, token)
        except RequestError as refused:
            if {"Content-Length", "Transfer-Encoding"} & set(self.request.headers):
                self.set_header("Connection", "close")  # since the body is not read
            self._refuse(refused)

    def _admit(self, hook: Hook, token: str | None) -> None:
        """Raises RequestError."""
        method = self.request.method or ""
        if hook.has_token:
            self.claim = hook.provider.claim({TOKEN_FIELD: token or ""}, 0)
            hook.provider.check(self.claim, b"", hook.secrets)
        elif token is not None:
            raise NotFound("this hook has no token in its URL")
        allowed = _methods(hook)
        if method not in allowed:
            raise MethodNotAllowed("method not allowed; see the Allow header", ", ".join(allowed))
        limit = self.hooks.body_bytes(hook)
        if int(self.request.headers.get("Content-Length", "0")[:20]) > (limit if method == "POST" else 0):
            raise _too_large(limit)
        if method == "POST" and not hook.has_token:
            self.claim = hook.provider.claim(self.request.headers, self.hooks.clock())
        connection = self.request.connection
        if isinstance(connection, HTTP1Connection):
            connection.set_max_body_size(sys.maxsize)  # data_received has the limit, and an answer
        if method == "POST":
            self.hooks.received(self, _REQUEST_BYTES)

    # The body

    def data_received(self, chunk: bytes) -> None:
        if self._finished or self.hook is None:
            return
        self.body += chunk
        limit = self.hooks.body_bytes(self.hook)
        if len(self.body) > limit:
            self.interrupt(_too_large(limit))
        else:
            self.hooks.received(self, len(chunk))

    def interrupt(self, refused: RequestError) -> None:
        """Answers before the end of the body."""
        self.body.clear()
        self.set_header("Connection", "close")
        self._refuse(refused)

    def on_finish(self) -> None:
        self.hooks.completed(self)

    def on_connection_close(self) -> None:
        self.hooks.completed(self)
        super().on_connection_close()

    # Methods

    async def post(self, name: str, token: str | None) -> None:
        await self._answer(self._post)

    async def get(self, name: str, token: str | None) -> None:
        await self._answer(self._get)

    def head(self, name: str, token: str | None) -> None:
        """Trello sends one to see whether the URL exists."""
        self.set_header("Content-Type", JSON)

    def options(self, name: str, token: str | None) -> None:
        try:
            origin = allowed_origin(self.request.headers)
        except RequestError as refused:
            self._refuse(refused)
            return
        if origin is not None:
            self.set_header("WebHook-Allowed-Origin", origin)
            self.set_header("WebHook-Allowed-Rate", "*")
        assert self.hook is not None
        self.set_header("Allow", ", ".join(_methods(self.hook)))

    async def _answer(self, respond: Callable[[Hook], Awaitable[Answer]]) -> None:
        assert self.hook is not None
        if self._finished:  # interrupted after the end of its body
            return
        self.hooks.completed(self)
        try:
            answer = await respond(self.hook)
        except RequestError as refused:
            self._refuse(refused)
            return
        self.hooks.counts.hook_requests[self.hook.name] += 1
        self.set_header("Content-Type", answer.content_type)
        self.finish(answer.body)

    async def _post(self, hook: Hook) -> Answer:
        body = bytes(self.body)
        verified = hook.provider.check(self.claim, body, hook.secrets)
        query = self._query()
        answer = asked_in_query(hook, query) or asked_in_body(hook, self.request.headers, body)
        if answer is None:
            return await self._publish(hook, body, query, verified.replay_key)
        logs.event(Event.HOOK, hook=hook.name, detail="handshake", address=self.client_address)
        return answer

    async def _get(self, hook: Hook) -> Answer:
        query = self._query()
        answer = challenged(hook, query)
        if answer is not None:
            logs.event(Event.HOOK, hook=hook.name, detail="handshake", address=self.client_address)
            return answer
        if not hook.allows_get:
            raise MethodNotAllowed("this hook takes GET for hub.challenge only", "HEAD, POST, OPTIONS")
        return await self._publish(hook, b"", query, None)

    async def _publish(self, hook: Hook, body: bytes, query: Mapping[str, str], replay_key: str | None) -> Answer:
        messages = self._messages(hook, body, query)
        id = await self.hooks.publish(hook.name, messages, replay_key)
        logs.event(Event.HOOK, hook=hook.name, channels=hook.channels, id=id, address=self.client_address)
        return Answer(f'{{"id":"{id}"}}', JSON)

    def _messages(self, hook: Hook, body: bytes, query: Mapping[str, str]) -> Sequence[Any]:
        params = {name: text for name, text in (("key", hook.key), ("type", hook.type)) if text}
        try:
            data, is_json = _content(hook, body, self.request.headers.get("Content-Type", ""), query)
            limit = min([self.hooks.message_bytes(channel) for channel in hook.channels])
            if len(data) > limit:
                raise Missing(f"{len(data)} bytes exceed the limit of a message, {limit} bytes")
            return drafts.single(data, is_json, hook.channels, params)
        except (Missing, RequestError) as problem:
            logs.event(Event.HOOK_UNUSABLE, logging.WARNING, hook=hook.name, detail=str(problem))
            return drafts.single(b"", False, hook.channels, params)

    def _query(self) -> dict[str, str]:
        return {name: values[-1].decode("utf-8", "replace") for name, values in self.request.query_arguments.items()}

    # Refusals

    def _refuse(self, refused: RequestError) -> None:
        """Only names of hooks that exist are counted and logged; the others are anyone's text."""
        name = None if self.hook is None else self.hook.name
        if name is not None:
            self.hooks.counts.hook_refused[name, refused.reason] += 1
        why = getattr(refused, "why", refused.detail)
        self.hooks.refusals.event(
            int(self.hooks.clock()), hook=name, status=int(refused.status), detail=why, address=self.client_address
        )
        for field, value in refused.headers:
            self.set_header(field, value)
        self.problem(refused.status, refused.detail)


def _content(hook: Hook, body: bytes, content_type: str, query: Mapping[str, str]) -> tuple[bytes, bool]:
    """The payload, and whether it is JSON. Raises Missing."""
    if hook.template is None and not hook.publishes_body:
        return b"", False
    body, media_type = unwrapped(body, content_type.partition(";")[0].strip().lower())
    if hook.template is None:
        return body, media_type == JSON or media_type.endswith("+json")
    return hook.template.render(document(body, media_type, query)).encode(), False


def _methods(hook: Hook) -> Sequence[str]:
    return ("GET",) * (hook.allows_get or hook.challenge is not None) + ("HEAD", "POST", "OPTIONS")


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body exceeds the limit of {limit} bytes")


def routes(prefix: str, hooks: Hooks) -> list[URLSpec]:
    return [url(rf"{prefix}/hooks/([^/]+)(?:/([^/]*))?", Receiver, {"hooks": hooks})]
