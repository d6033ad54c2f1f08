"""Authorisation of requests, before anything else is done with them: the client's identity, and what it may do.

Grants are cached by the header fields that they depend on, which a client repeats with each request: checking them
again would cost 2 µs of a publish that takes 9. A cached grant never outlives its key or token: ``revoke`` and the
grant's ``until`` ensure that, wherever it is cached.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from ..errors import RequestError
from ..message import Message
from ..wire.request import Fields, Request
from .grant import Grant
from .keys import PublishKeys
from .log import AccessLog
from .origins import Origins
from .policy import Policy
from .revocations import KIND, Revocations

_REMEMBERED = 256

Verifier = Callable[[Request], Grant | None]


class Access:
    """``signatures``: verifiers of requests that are signed instead of sent with a key. Each returns a grant, or None
    if the request has no signature of its kind, and raises Unauthorized if the signature is wrong. They are called when
    the body is complete.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        signatures: Sequence[Verifier] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._signatures = signatures
        self._clock = clock
        self.revocations = Revocations()
        self._log = AccessLog({KIND: self.revocations.apply})
        self._publishers: dict[Fields, Grant] = {}
        self._subscribers: dict[Fields, Grant] = {}
        self._apply(policy)

    def reconfigure(self, policy: Policy) -> None:
        """Replaces the policy. Cached grants are forgotten; ask ``renew`` about those that are in use."""
        self._publishers.clear()
        self._subscribers.clear()
        self._apply(policy)

    def _apply(self, policy: Policy) -> None:
        """Creates all that depends on the policy."""
        self._keys = PublishKeys(policy.publish_keys)
        self._origins = Origins(policy.origins, policy.loopback)
        self.rules = policy.rules
        self.message_rules = policy.rules if policy.rules.change_messages else None  # None: nothing to do for each

    def renew(self, grant: Grant, names: Sequence[str]) -> bool:
        """Whether the policy, as it is now, still allows the subscription to these channels. Updates the grant."""
        if grant.page:
            if not self._origins.names(grant.page):
                return False
            grant.cors = self._origins.cors_of(grant.page)
        return True

    @property
    def cross_origin(self) -> bool:
        """Pages of other origins may use this server: preflights are answered."""
        return self._origins.open

    def admit(self, request: Request) -> Grant | None:
        """The grant for a request. Raises RequestError, with the CORS lines of the response.

        None: the body is needed. Call ``admit_body`` when it is complete.
        """
        publishes = request.method == "POST"
        remembered = self._publishers if publishes else self._subscribers
        grant = remembered.get(request.fields)
        if grant is not None and grant.until > self._clock():
            return grant
        cors = self._origins.cors(request)
        try:
            page = self._origins.check(request)
            if not publishes:
                grant = Grant(cors=cors, page=page)
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
        """Like ``admit``, for a request whose signature includes the body. Raises RequestError."""
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
        """Like ``admit``, for the list of channels, which needs the publish key. Raises RequestError."""
        cors = self._origins.cors(request)
        try:
            self._origins.check(request)
            return Grant(self._keys.check(request, "listing channels"), cors)
        except RequestError as refused:
            refused.cors = cors
            raise

    def preflight(self, request: Request) -> Grant:
        """The grant for OPTIONS, which asks whether a request would be allowed, and which any client may send."""
        return Grant(cors=self._origins.cors(request))

    def load(self, messages: Iterable[Message]) -> None:
        """Applies the retained messages of the access log: at the start, and when the log was read again."""
        self._log.load(messages)

    def apply(self, message: Message) -> None:
        """Applies a message of the access log: a revocation, or a publish key."""
        self._log.apply(message)

    def check_room(self, key: str) -> None:
        """Raises StoreFull if the access log has no room for a message with that key."""
        self._log.check_room(key)

    def admit_root(self, authorization: bytes, what: str) -> None:
        """Checks the header field ``Authorization`` for the root key. ``what`` names the action, for the error. Raises
        Unauthorized.
        """
        self._keys.check_given(authorization, what)

    def revoke_key(self, key: bytes) -> None:
        """Makes the key invalid, and all cached grants of publishers."""
        self._keys.revoke(key)
        for grant in self._publishers.values():
            grant.revoke()
        self._publishers.clear()
