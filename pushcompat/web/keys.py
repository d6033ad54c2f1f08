"""Publish keys over HTTP, with the root key.

GET /keys            lists them
POST /keys           adds one, and shows it once
DELETE /keys/NAME    revokes one
"""

from __future__ import annotations

import time

import msgspec
from tornado.routing import URLSpec
from tornado.web import url

from .. import logs
from ..access.named_key import NamedKey, checked_name, checked_patterns, create
from ..access.publishers import Publishers
from ..errors import BadRequest, Conflict, NotFound, RequestError
from ..logs import Event
from ..wire.names import shown
from .admin import AdminHandler, Administration

_NOT_KEPT = "the store is memory: this key ends with the server's process; for a lasting one use --store sqlite:"
_CONFIGURED = "is in the configuration file; change it there, and send SIGHUP to the server"


class _New(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    channels: list[str]


class _KeyHandler(AdminHandler):
    what = "managing keys"

    @property
    def publishers(self) -> Publishers:
        return self.administration.access().publishers


class Keys(_KeyHandler):
    methods = "GET, HEAD, POST"

    def get(self) -> None:
        self.finish({"keys": [_shown(key) for key in self.publishers.keys.named()]})

    def head(self) -> None:
        self.get()

    async def post(self) -> None:
        try:
            key, text = self._created(self.decoded(_New))
            await self.administration.append(self.publishers.added(key))
            self._check_that_it_is(key)
        except RequestError as refused:
            self.refuse(refused)
            return
        channels = [pattern.text for pattern in key.channels]
        logs.event(Event.KEY_ADDED, key=key.name, channels=channels, address=self.client_address)
        note = {} if self.administration.durable else {"note": _NOT_KEPT}
        self.set_status(201)
        self.finish({**_shown(key), "key": text, **note})

    def _created(self, new: _New) -> tuple[NamedKey, str]:
        try:
            name, channels = checked_name(new.name), checked_patterns(new.channels)
        except ValueError as error:
            raise BadRequest(str(error)) from None
        if self.publishers.keys.is_configured(name):
            raise Conflict(f"key {name} {_CONFIGURED}")
        if self.publishers.keys.get(name) is not None:
            raise Conflict(f"there is a key {name}; revoke it first, or choose another name")
        return create(name, channels, time.time())

    def _check_that_it_is(self, key: NamedKey) -> None:
        """Another process may have added one of this name at the same time: the later one is valid."""
        current = self.publishers.keys.get(key.name)
        if current is None or current.prefix != key.prefix:
            raise Conflict(f"another key {key.name} was added at the same time; choose another name")


class Key(_KeyHandler):
    methods = "DELETE"

    async def delete(self, name: str) -> None:
        try:
            if self.publishers.keys.is_configured(name):
                raise Conflict(f"key {name} {_CONFIGURED}")
            if self.publishers.keys.get(name) is None:
                raise NotFound(f"there is no key {shown(name)}; GET /keys lists all")
            await self.administration.append(self.publishers.revoked(name))
        except RequestError as refused:
            self.refuse(refused)
            return
        logs.event(Event.KEY_REVOKED, key=name, address=self.client_address)
        self.set_status(204)


def _shown(key: NamedKey) -> dict[str, object]:
    """What may be shown of a key: no secret, and no hash."""
    return {
        "name": key.name,
        "prefix": key.prefix or None,
        "channels": [pattern.text for pattern in key.channels],
        "created": key.created or None,
        "configured": not key.prefix,
        "signs": bool(key.secrets),
    }


def routes(administration: Administration, prefix: str) -> list[URLSpec]:
    details = {"administration": administration}
    return [url(f"{prefix}/keys", Keys, details), url(f"{prefix}/keys/([^/]+)", Key, details)]
