"""The list of channels, with their subscribers and retained messages.

There may be 100,000 channels, so a page of the list is built in slices of ``_SLICE_S``, between which other work
continues. So it is not a snapshot; but each channel that existed throughout is on one page, once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import msgspec

from ..errors import BadRequest
from ..wire import http
from ..wire.names import NAME, shown
from ..wire.request import Request
from .connection import Connection, State
from .context import Context
from .responses import Responses

_SLICE_S = 0.002
_NAMES_AT_ONCE = 512
_USUAL = 100
_MOST = 1000


class Listed(msgspec.Struct):
    """``newest``: the id of the newest retained message; ``bytes``: of the retained payloads."""

    channel: str
    subscribers: int
    newest: str | None
    messages: int
    bytes: int


class _Page(msgspec.Struct):
    channels: list[Listed]
    next: str | None  # the ``after`` of the next page; null: this is the last page


class Listing:
    def __init__(self, context: Context, responses: Responses) -> None:
        self._context = context
        self._history = context.history
        self._responses = responses

    def start(self, connection: Connection, request: Request) -> None:
        """Answers with a page of the list. Raises BadRequest."""
        params = request.params
        after, prefix = params.get("after", ""), params.get("prefix", "")
        if after and not NAME.fullmatch(after):
            raise BadRequest(f"after={shown(after)}: use the name of a channel, from next in the previous response")
        page = self._make(prefix, after, _limit(params.get("limit", "")))
        connection.move(State.PUBLISHING)
        self._continue(connection, request.reusable, page)

    def _continue(self, connection: Connection, keep_alive: bool, page: Iterator[_Page | None]) -> None:
        if connection.state is not State.PUBLISHING:
            return  # the client has disconnected
        try:
            until = time.monotonic() + _SLICE_S
            for made in page:
                if made is not None:
                    self._send(connection, keep_alive, made)
                    return
                if time.monotonic() > until:
                    break
            asyncio.get_running_loop().call_soon(self._continue, connection, keep_alive, page)
        except Exception:
            self._context.sockets.log_bug_and_abort(connection)

    def _send(self, connection: Connection, keep_alive: bool, page: _Page) -> None:
        cors = b"" if connection.grant is None else connection.grant.cors
        body = msgspec.json.encode(page) + b"\n"
        self._context.sockets.write_later(connection, http.document(body, keep_alive=keep_alive, extra=cors))
        self._responses.sent(connection, keep_alive)
        self._context.schedule_turn()

    def _make(self, prefix: str, after: str, limit: int) -> Iterator[_Page | None]:
        """Yields None between steps, and finally the page."""
        found: list[str] = []
        names = [*self._history.names, *self._history.others]
        for start in range(0, len(names), _NAMES_AT_ONCE):
            some = [n for n in names[start : start + _NAMES_AT_ONCE] if n > after and n.startswith(prefix)]
            if some:
                found = sorted({*found, *filter(self._is_used, some)})[: limit + 1]
            yield None
        listed: list[Listed] = []
        for name in found[:limit]:
            listed.append(self._look_at(name))
            yield None
        yield _Page(listed, found[limit - 1] if len(found) > limit else None)

    def _is_used(self, name: str) -> bool:
        """Whether it has messages or subscribers, not only a floor."""
        channel = self._history.find(name)
        return bool(channel and len(channel)) or self._history.subscribers_everywhere(name, channel) > 0

    def _look_at(self, name: str) -> Listed:
        history = self._history
        channel = history.find(name)
        messages = () if channel is None else channel.after(-1)
        return Listed(
            name,
            history.subscribers_everywhere(name, channel),
            history.cursor(messages[-1].sequence) if messages else None,
            len(messages),
            sum([len(message.data) for message in messages]),
        )


def _limit(text: str) -> int:
    if not text:
        return _USUAL
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:5]) <= _MOST):
        raise BadRequest(f"limit={shown(text)}: use a whole number from 1 to {_MOST}")
    return int(text)
