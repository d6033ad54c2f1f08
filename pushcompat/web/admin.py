"""Administration over HTTP, with the root key: what it changes is appended to the access log.

Keys are in ``keys``. Here:

POST /revoke    refuses subscribers whose tokens are valid, and ends what they have open
GET /cursor     the position of the log, for any publish key: a page that is rendered after that can subscribe from it
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec
from tornado.routing import URLSpec
from tornado.web import stream_request_body, url

from .. import logs
from ..access.access import Access
from ..access.revocations import Target
from ..errors import BadRequest, RequestError
from ..logs import Event
from ..message import Message
from ..wire.names import channel_names
from .app import BODY_BYTES, NO_STORE, Handler

_MAX_NAME = 256  # characters of sub and jti, as in tokens

_Document = TypeVar("_Document")


@dataclass(frozen=True, slots=True)
class Administration:
    """``publish`` appends to the log, and returns when this process has read it there. Raises RequestError.
    ``durable``: the log outlives the process. ``token_lifetime_s``: the longest time that a token can be valid.
    ``cursor``: of everything that this process has read from the log.
    """

    access: Callable[[], Access]
    publish: Callable[[Sequence[Message]], Awaitable[object]]
    token_lifetime_s: Callable[[], float]
    cursor: Callable[[], str]
    durable: bool = True

    async def append(self, message: Message) -> None:
        """Appends to the access log. Raises RequestError: StoreFull if it has no room."""
        self.access().check_room(message.key or "")
        await self.publish([message])


@stream_request_body
class AdminHandler(Handler):
    """Answers RequestErrors with problem documents, and requests without the root key with 401, before their body is
    read. The key is checked again with the body, since it may have been replaced in between.
    """

    admin = True
    methods = "POST"
    body_bytes = BODY_BYTES
    what = "administration"  # of the request, for the error

    def initialize(self, administration: Administration) -> None:
        self.administration = administration
        self.body = bytearray()

    def prepare(self) -> None:
        self.set_header(*NO_STORE)
        try:
            self._check_key()
        except RequestError as refused:
            if {"Content-Length", "Transfer-Encoding"} & set(self.request.headers):
                self.set_header("Connection", "close")  # since the body is not read
            self.refuse(refused)

    def data_received(self, chunk: bytes) -> None:
        if not self._finished:
            self.body += chunk

    def _check_key(self) -> None:
        self.admit(self.request.headers.get("Authorization", "").encode("latin-1", "replace"))

    def admit(self, authorization: bytes) -> None:
        """Raises RequestError."""
        self.administration.access().admit_root(authorization, self.what)

    def refuse(self, refused: RequestError) -> None:
        for name, value in refused.headers:
            self.set_header(name, value)
        self.problem(refused.status, refused.detail)

    def decoded(self, form: type[_Document]) -> _Document:
        """The body. Raises RequestError."""
        self._check_key()
        try:
            return msgspec.json.decode(self.body, type=form)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise BadRequest(f"invalid JSON: {error}") from None


class _Revoke(msgspec.Struct, forbid_unknown_fields=True):
    sub: str | None = None
    jti: str | None = None
    channel: str | None = None
    expires: float | None = None

    @property
    def target(self) -> Target:
        """Raises BadRequest."""
        for name, value in (("sub", self.sub), ("jti", self.jti)):
            if value is not None and not 0 < len(value) <= _MAX_NAME:
                raise BadRequest(f"{name} must have 1 to {_MAX_NAME} characters, as in a token")
        if self.channel is not None:
            channel_names(self.channel, 1)
        target = Target(self.sub or "", self.jti or "", self.channel or "")
        if not any(target):
            raise BadRequest("name whom to revoke: sub, jti, channel, or several of these, which must then all match")
        return target


class Revoke(AdminHandler):
    what = "revoking"

    async def post(self) -> None:
        try:
            await self._revoke(self.decoded(_Revoke))
        except RequestError as refused:
            self.refuse(refused)
        else:
            self.set_status(204)

    async def _revoke(self, asked: _Revoke) -> None:
        target, longest = asked.target, self.administration.token_lifetime_s()
        expires_s = longest if asked.expires is None else min(asked.expires, longest)
        if not expires_s > 0:
            raise BadRequest("expires must be greater than 0 (seconds)")
        await self.administration.append(self.administration.access().revocations.message(target, expires_s))
        named = {name: value or None for name, value in target._asdict().items()}
        logs.event(Event.REVOKED, **named, expires_s=round(expires_s), address=self.client_address)


class Cursor(AdminHandler):
    methods = "GET, HEAD"
    body_bytes = 0
    what = "asking for the cursor"

    def admit(self, authorization: bytes) -> None:
        self.administration.access().admit_any_key(authorization, self.what)

    def get(self) -> None:
        self.set_header("Content-Type", "application/json")
        self.finish({"cursor": self.administration.cursor()})

    def head(self) -> None:
        self.get()


def routes(administration: Administration, prefix: str) -> list[URLSpec]:
    with_it = {"administration": administration}
    return [url(f"{prefix}/revoke", Revoke, with_it), url(f"{prefix}/cursor", Cursor, with_it)]
