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
from .log import AccessLog
from .named_key import ROOT
from .origins import Origins, may_read_credentialed
from .policy import Policy
from .publishers import KIND as KEY_KIND
from .publishers import Publishers
from .questions import Questions, Waiter
from .revocations import KIND, Revocations
from .subscribers import Subscribers

_REMEMBERED = 256


class Access:
    def __init__(
        self,
        policy: Policy,
        *,
        questions: Questions | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self.publishers = Publishers()
        self.revocations = Revocations()
        self._log = AccessLog({KIND: self.revocations.apply, KEY_KIND: self.publishers.apply})
        self.subscribers = Subscribers(questions, self.revocations)
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
        self.publishers.configure(policy)
        self._origins = Origins(policy.origins, policy.loopback, policy.proxies)
        self.rules = policy.rules
        self.message_rules = policy.rules if policy.rules.change_messages else None  # None: nothing to do for each
        self.subscribers.configure(policy.rules, policy.tokens, policy.token_cookie, self._origins.credentialed)

    def renew(self, grant: Grant, names: Sequence[str]) -> bool:
        """Whether the policy, as it is now, still allows the subscription to these channels. Updates the grant."""
        if grant.page:
            cors = self._origins.cors_of(grant.page)
            if not self._origins.names(grant.page) or may_read_credentialed(grant.cors) > may_read_credentialed(cors):
                return False
            grant.cors = cors
        return self.subscribers.renew(grant, names)

    @property
    def cross_origin(self) -> bool:
        """Pages of other origins may use this server: preflights are answered."""
        return self._origins.open

    def cors(self, request: Request) -> bytes:
        """The header lines that allow the page to read the response."""
        return self._origins.cors(request)

    def admit(self, request: Request, names: Sequence[str] = ()) -> Grant | None:
        """The grant for a request that is for these channels. Raises RequestError, with the CORS lines of the response.

        None: more is needed. Of a publish, the body: call ``admit_body`` when it is complete. Of a subscriber, what
        ``verify`` and ``ask`` find out: call this again then.
        """
        publishes = request.method == "POST"
        if not publishes and (self.revocations or not self.subscribers.open):
            return self._admit_subscriber(request, names)
        remembered = self._publishers if publishes else self._subscribers
        grant = remembered.get(request.fields)
        if grant is not None and grant.until > self._clock():
            return grant
        cors = self._origins.cors(request)
        try:
            page = self._origins.check(request)
            grant = self.publishers.admit(request, cors) if publishes else Grant(cors=cors, page=page)
            if grant is None:
                return None
        except RequestError as refused:
            refused.cors = cors
            raise
        if request.proxied and b"origin" in request.fields.headers:
            return grant  # perhaps because of what the proxy reports: it is not valid for other connections
        if len(remembered) >= _REMEMBERED:
            remembered.clear()
        remembered[request.fields] = grant
        return grant

    def _admit_subscriber(self, request: Request, names: Sequence[str]) -> Grant | None:
        cors = self._origins.cors(request)
        try:
            page = self._origins.check(request)
            return self.subscribers.admit(request, names, cors, page)
        except RequestError as refused:
            refused.cors = cors
            raise

    def is_verified(self, request: Request, names: Sequence[str]) -> bool:
        """Whether the subscriber's token, if it has sent one, needs no ``verify``."""
        return self.subscribers.is_verified(request, names)

    def verify(self, request: Request, names: Sequence[str]) -> None:
        """Verifies the subscriber's token: 20 to 500 µs of CPU time. Raises Unauthorized."""
        self.subscribers.verify(request, names)

    def ask(self, request: Request, names: Sequence[str], waiter: Waiter) -> None:
        """Asks the application about the subscriber. ``waiter`` is told when there is an answer. Raises Unavailable."""
        self.subscribers.ask(request, names, waiter)

    def admit_body(self, request: Request) -> Grant:
        """Like ``admit``, for a publish whose body is complete: it is signed, or its grant has ended in the meantime.
        Raises RequestError.
        """
        cors = self._origins.cors(request)
        try:
            return self.publishers.admit_body(request, cors)
        except RequestError as refused:
            refused.cors = cors
            raise

    def admit_listing(self, request: Request) -> Grant:
        """Like ``admit``, for the list of channels, which needs the root key. Raises RequestError."""
        cors = self._origins.cors(request)
        try:
            self._origins.check(request)
            self.admit_root(request.fields.headers.get(b"authorization", b""), "listing channels")
        except RequestError as refused:
            refused.cors = cors
            raise
        return Grant(ROOT, cors)

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
        Unauthorized, or Forbidden for another key.
        """
        self.publishers.admit_root(authorization, what)

    def admit_any_key(self, authorization: bytes, what: str) -> None:
        """Like ``admit_root``, for any publish key. Raises Unauthorized."""
        self.publishers.admit_any(authorization, what)
