"""Asks the application about subscribers: a GET with the fields of the subscriber's request, for each question.

Only a clear answer grants anything. A redirect (to a login page), an HTML page (which some applications answer to every
unknown path), JSON that is no such document (``{"allowed": false}``, ``false``), or a body that is not UTF-8, such as a
compressed one, is a misunderstanding, and no grant.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated, Protocol

import msgspec
from tornado.httpclient import AsyncHTTPClient, HTTPRequest, HTTPResponse
from tornado.httputil import HTTPHeaders

from .. import logs
from ..access.patterns import Pattern
from ..access.questions import Answer, OnAnswer, Outcome, Question
from ..errors import Forbidden, Unauthorized, Unavailable
from ..logs import Event

_ANSWER_BYTES = 64 * 1024
_RETRY_S = 5
_LATER = "the application cannot decide about subscribers now; try again later"


class Counts(Protocol):
    questions: int
    question_failures: int


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    """``channels``: names and patterns. ``expires``: seconds."""

    channels: Annotated[list[str], msgspec.Meta(max_length=64)] | None = None
    sub: Annotated[str, msgspec.Meta(max_length=256)] = ""
    expires: Annotated[float, msgspec.Meta(gt=0)] | None = None


_decode = msgspec.json.Decoder(_Document).decode


class Authorizer:
    """``timeout_s``: for an answer."""

    def __init__(self, url: str, timeout_s: float, at_once: int, counts: Counts) -> None:
        self._url = f"{url}{'&' if '?' in url else '?'}channels="
        self._timeout_s = timeout_s
        self._counts = counts
        self._works = True
        self._tasks: set[asyncio.Task[None]] = set()
        self._client = AsyncHTTPClient(force_instance=True, max_clients=at_once, max_body_size=_ANSWER_BYTES)

    def ask(self, question: Question, on_answer: OnAnswer) -> None:
        task = asyncio.create_task(self._ask(question, on_answer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._client.close()

    async def _ask(self, question: Question, on_answer: OnAnswer) -> None:
        on_answer(question, await self._outcome(question))

    async def _outcome(self, question: Question) -> Outcome:
        try:
            response = await self._client.fetch(self._request(question), raise_error=False)
            outcome = _outcome(response)
        except ValueError as error:  # what the application answered makes no sense
            return self._failed(str(error))
        except Exception as error:  # whatever the client raises: the application gave no answer
            return self._failed(str(error) or type(error).__name__)
        self._counts.questions += 1
        if not self._works:
            logs.event(Event.AUTHORIZE_WORKS, logging.WARNING)
        self._works = True
        return outcome

    def _request(self, question: Question) -> HTTPRequest:
        headers = HTTPHeaders({"Accept": "application/json"})
        for name, value in question.fields:
            headers.add(name, value)
        return HTTPRequest(
            self._url + ",".join(question.channels),
            headers=headers,
            connect_timeout=self._timeout_s,
            request_timeout=self._timeout_s,
            follow_redirects=False,
            decompress_response=False,
        )

    def _failed(self, detail: str) -> Unavailable:
        self._counts.question_failures += 1
        if self._works:
            logs.event(Event.AUTHORIZE_FAILED, logging.WARNING, detail=detail)
        self._works = False
        return Unavailable(_LATER, _RETRY_S)


def _outcome(response: HTTPResponse) -> Outcome:
    """Raises ValueError if it is no valid answer."""
    if response.code == 401:
        return Unauthorized("the application does not accept the session or token of the request")
    if response.code == 403:
        return Forbidden("the application does not allow this subscription")
    if 300 <= response.code < 400:
        raise ValueError(f"{response.code}: answer 401 or 403 instead of a redirect")
    if not 200 <= response.code < 300:
        raise ValueError(str(response.error or response.code))
    body = response.body.decode("utf-8-sig").strip()  # .NET begins JSON with a byte order mark
    if body.startswith("<"):
        raise ValueError(f"{response.code} with an HTML page: answer with an empty body, or with JSON")
    if not body or not (body.startswith(("{", "[")) or _is_json(response)):
        return Answer()
    document = _decode(body)  # its errors are ValueErrors
    channels = None if document.channels is None else tuple(Pattern(text) for text in document.channels)
    return Answer(channels, document.sub, document.expires)


def _is_json(response: HTTPResponse) -> bool:
    media_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return media_type == "application/json" or media_type.endswith("+json")
