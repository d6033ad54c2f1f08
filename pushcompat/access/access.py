"""One question, asked before anything else is done with a request: who is it from, and what may that client do?

Verdicts are remembered by the header fields that they rest on, which one client repeats with each request: it costs
2 µs of a publish that takes 9 to find out anew. A remembered verdict dies with what it rests on: ``revoke`` and the
grant's own ``until`` see to that, wherever it is remembered.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from ..errors import RequestError
from ..wire.request import Fields, Request
from .grant import Grant
from .keys import PublishKeys
from .origins import Origins

_REMEMBERED = 256

Verifier = Callable[[Request], Grant | None]


class Access:
    """``signatures``: verifiers of requests that are signed rather than sent with a key. Each returns a grant, or None
    where the request carries no signature of its kind, and raises Unauthorized where the signature is wrong. They are
    asked when the body is complete.
    """

    def __init__(
        self,
        publish_keys: Iterable[bytes],
        origins: Sequence[str] = (),
        *,
        loopback: bool = False,
        signatures: Sequence[Verifier] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = PublishKeys(publish_keys)
        self._origins = Origins(origins, loopback)
        self._signatures = signatures
        self._clock = clock
        self._publishers: dict[Fields, Grant] = {}
        self._subscribers: dict[Fields, Grant] = {}

    @property
    def cross_origin(self) -> bool:
        """Pages of other origins may use this server: preflights are answered."""
        return self._origins.open

    def admit(self, request: Request) -> Grant | None:
        """Who it is from, and what that client may do. Raises RequestError, with the CORS lines of the answer.

        None: not before the body is complete. Ask ``admit_body`` then.
        """
        publishes = request.method == "POST"
        remembered = self._publishers if publishes else self._subscribers
        grant = remembered.get(request.fields)
        if grant is not None and grant.until > self._clock():
            return grant
        cors = self._origins.cors(request)
        try:
            self._origins.check(request)
            if not publishes:
                grant = Grant(cors=cors)
            elif self._signatures and b"authorization" not in request.fields.headers:
                return None
            else:
                grant = Grant(self._keys.check(request), cors)
        except RequestError as refused:
            refused.cors = cors
            raise
        if len(remembered) >= _REMEMBERED:
            remembered.clear()
        remembered[request.fields] = grant
        return grant

    def admit_body(self, request: Request) -> Grant:
        """The same for a request that is signed, body included. Raises RequestError."""
        try:
            for verify in self._signatures:
                grant = verify(request)
                if grant is not None:
                    return grant
            return Grant(self._keys.check(request), self._origins.cors(request))
        except RequestError as refused:
            refused.cors = self._origins.cors(request)
            raise

    def admit_listing(self, request: Request) -> Grant:
        """The same for the list of channels, which only publishers may see. Raises RequestError."""
        cors = self._origins.cors(request)
        try:
            self._origins.check(request)
            return Grant(self._keys.check(request, "listing channels"), cors)
        except RequestError as refused:
            refused.cors = cors
            raise

    def preflight(self, request: Request) -> Grant:
        """What OPTIONS is answered with; it asks whether a request would be allowed, and may be asked by anyone."""
        return Grant(cors=self._origins.cors(request))

    def revoke_key(self, key: bytes) -> None:
        """From now on the key is worth nothing, and neither is any verdict that rests on one."""
        self._keys.revoke(key)
        for grant in self._publishers.values():
            grant.revoke()
        self._publishers.clear()
