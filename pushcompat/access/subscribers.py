"""Who may subscribe: decided by the rules of the channels, the subscriber's token, and the application's answer.

``admit`` decides from what is known, and costs little. What costs something is asked for by its caller, one after the
other, and then known to ``admit``: a signature is verified (``verify``), the application is asked (``ask``).

A token that is given is verified, on open channels too: an expired one must not become an anonymous subscriber. There
are two exceptions. The cookie goes along with every request of a browser, so it counts only where a rule needs a token;
and where only the application decides, the token is the application's.

Claims are kept by the digest of their token. Their ``exp`` becomes a tick of the monotonic clock once, when the
signature is verified: a wall clock that is set does not end, or prolong, what was granted.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256

from ..errors import BadRequest, Forbidden, Unauthorized, Unavailable
from ..wire.request import Request
from .claims import Claims, Verifier
from .credentials import bearer, cookie
from .grant import FOREVER, Grant
from .patterns import Pattern
from .questions import Question, Questions, Verdict, Waiter
from .revocations import Revocation, Revocations
from .rules import Rule, Rules, Subscribe

_MOST_KNOWN = 10_000
_OPEN, _TOKEN, _ASK, _NOBODY = Subscribe.OPEN, Subscribe.TOKEN, Subscribe.ASK, Subscribe.NOBODY
_EXPIRED = "the token has expired; request a new one"
_FORWARDED = (  # with a question: what sessions depend on
    (b"cookie", "Cookie"),
    (b"authorization", "Authorization"),
    (b"origin", "Origin"),
    (b"user-agent", "User-Agent"),
)


class _Known:
    """A verified token. ``until``: the tick from which it is no longer valid."""

    __slots__ = ("claims", "until")

    def __init__(self, claims: Claims, until: int) -> None:
        self.claims = claims
        self.until = until


def _any_request(request: Request) -> bool:
    return True


class Subscribers:
    """``questions``: to the application; without them no rule may be ``ask``."""

    def __init__(
        self,
        questions: Questions | None = None,
        revocations: Revocations | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._questions = questions
        self._revocations = Revocations() if revocations is None else revocations
        self._monotonic = monotonic
        self._wall = wall
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._revocations.on_revoked(self._revoked)
        self.configure(Rules())

    def _revoked(self, revocation: Revocation) -> None:
        """The application is asked again. One token concerns no answer: these have no ``jti``."""
        if self._questions is not None and not revocation.target.jti:
            self._questions.forget(revocation.target.sub)

    def configure(
        self,
        rules: Rules,
        tokens: Verifier | None = None,
        token_cookie: str = "",
        credentialed: Callable[[Request], bool] = _any_request,
    ) -> None:
        """Decides by these from now on. ``tokens``: None: tokens are not looked at. ``token_cookie``: the name of the
        cookie that may hold one. ``credentialed``: whether what a browser adds to the request by itself counts.
        """
        self._credentialed = credentialed
        self._rules = rules
        self._tokens = tokens
        self._cookie = token_cookie.encode()
        trusted = [] if tokens is None else [(key, it) for key, it in self._known.items() if tokens.trusts(it.claims)]
        self._known = OrderedDict(trusted)
        everyone = all(rule.subscribe is _OPEN for rule in (*rules.rules, rules.default))
        self.open = everyone and tokens is None  # anyone may subscribe to anything: nothing needs to be decided

    def admit(self, request: Request, names: Sequence[str], cors: bytes, page: str) -> Grant | None:
        """The grant, with ``cors`` and ``page``. None: the token is not verified yet, or else the application must be
        asked. Raises BadRequest, Unauthorized, Forbidden.
        """
        rules = self._rules_of(names)
        token = self._token(request, rules)
        known = None
        if token:
            known = self._known.get(sha256(token).digest())
            if known is None:
                return None
            self._check(known, names, rules)
        else:
            _check_none_is_needed(names, rules)
        verdict = None
        question = self._question(request, names, rules)
        if question is not None:
            verdict = self._asked().find(question)
            if verdict is None:
                return None
            _check_verdict(verdict, known)
        grant = _grant(known, verdict, () if question is None else question.channels, cors, page)
        if verdict is not None:
            _check_asked(verdict, grant, names, rules)
        try:
            self._revocations.check(grant.sub, grant.jti, grant.issued_at, names)
        except Unauthorized:
            if question is not None:  # asked in the millisecond of the revocation, or by a clock that is behind
                self._asked().ask_soon(question)
            raise
        return grant

    def is_verified(self, request: Request, names: Sequence[str]) -> bool:
        """Whether there is no signature to verify before ``admit`` can decide."""
        token = self._token(request, self._rules_of(names))
        return not token or sha256(token).digest() in self._known

    def verify(self, request: Request, names: Sequence[str]) -> None:
        """Verifies the request's token: 20 to 500 µs of CPU time. Raises Unauthorized."""
        token = self._token(request, self._rules_of(names))
        if not token or self._tokens is None:
            return
        now = self._wall()
        claims = self._tokens.verify(token, now)
        if len(self._known) >= _MOST_KNOWN:
            self._known.popitem(last=False)
        self._known[sha256(token).digest()] = _Known(claims, int(self._monotonic() + claims.until - now))

    def ask(self, request: Request, names: Sequence[str], waiter: Waiter) -> None:
        """Asks the application; ``waiter`` is told when ``admit`` can decide. Raises Unavailable."""
        question = self._question(request, names, self._rules_of(names))
        assert question is not None
        self._asked().ask(question, waiter)

    def _asked(self) -> Questions:
        if self._questions is None:
            raise Unavailable("the server asks no application: --authorize-url takes effect when it is restarted")
        return self._questions

    def renew(self, grant: Grant, names: Sequence[str]) -> bool:
        """Whether the grant would be given again, as the rules and keys are now."""
        claims = grant.claims
        if claims is not None and (self._tokens is None or not self._tokens.trusts(claims)):
            return False
        return all(_allows(self._rules.of(name), name, grant) for name in names)

    # Rules

    def _rules_of(self, names: Sequence[str]) -> list[Rule]:
        """The rules of the channels. Raises Forbidden."""
        rules = [self._rules.of(name) for name in names]
        for name, rule in zip(names, rules, strict=True):
            if rule.subscribe is _NOBODY:
                raise Forbidden(f"nobody may subscribe to channel {name}")
        return rules

    # Tokens

    def _token(self, request: Request, rules: Sequence[Rule]) -> bytes:
        """The token to verify; empty: none was given, or none of ours. Raises BadRequest."""
        if self._tokens is None:
            return b""
        needed = any(rule.subscribe is _TOKEN for rule in rules)
        if not needed and any(rule.subscribe is _ASK for rule in rules):
            return b""
        sent, parameter = bearer(request), request.params.get("token", "").encode()
        if sent and parameter and sent != parameter:
            raise BadRequest("the request has two tokens; send it in Authorization or as the parameter, not both")
        token = sent or parameter
        if not token and needed and self._cookie and self._credentialed(request):
            return cookie(request, self._cookie)
        return token

    def _check(self, known: _Known, names: Sequence[str], rules: Sequence[Rule]) -> None:
        if known.until <= self._monotonic():
            raise Unauthorized(_EXPIRED)
        for name, rule in zip(names, rules, strict=True):
            if rule.subscribe is _TOKEN and not _covers(known.claims, rule.pattern, name):
                raise Forbidden(f"the token does not allow channel {name}")

    # Questions

    def _question(self, request: Request, names: Sequence[str], rules: Sequence[Rule]) -> Question | None:
        asked = tuple([name for name, rule in zip(names, rules, strict=True) if rule.subscribe is _ASK])
        if not asked:
            return None
        headers = request.fields.headers
        if not self._credentialed(request):
            headers = _explicit(headers)
        fields = [(title, headers[name].decode("latin-1")) for name, title in _FORWARDED if name in headers]
        token = request.params.get("token", "")
        if token and b"authorization" not in headers:  # a page cannot set header fields of a WebSocket
            if not (token.isascii() and token.isprintable()) or " " in token:
                raise Unauthorized("the token has characters that no token has")
            fields.append(("Authorization", f"Bearer {token}"))
        return Question(asked, tuple(fields))


def _explicit(headers: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """The fields without those that a browser adds by itself: cookies, and the password of HTTP authentication."""
    explicit = {name: value for name, value in headers.items() if name != b"cookie"}
    if not explicit.get(b"authorization", b"").lower().startswith(b"bearer "):
        explicit.pop(b"authorization", None)
    return explicit


def _allows(rule: Rule, name: str, grant: Grant) -> bool:
    """Whether what the grant rests on allows the channel under this rule."""
    if rule.subscribe is _TOKEN:
        return grant.claims is not None and _covers(grant.claims, rule.pattern, name)
    if rule.subscribe is _ASK:
        return name in grant.allowed and rule.pattern.matches_for(name, grant.sub)
    return rule.subscribe is _OPEN


def _covers(claims: Claims, pattern: Pattern, name: str) -> bool:
    """Whether a token allows a channel whose rule has this pattern. Without ``{sub}`` the token must name it."""
    if pattern.uses_sub and not pattern.matches_for(name, claims.sub):
        return False
    if claims.channels is None:
        return pattern.uses_sub
    return any(allowed.matches(name) for allowed in claims.channels)


def _check_none_is_needed(names: Sequence[str], rules: Sequence[Rule]) -> None:
    for name, rule in zip(names, rules, strict=True):
        if rule.subscribe is _TOKEN:
            raise Unauthorized(f"channel {name} needs a token: send it in Authorization (Bearer) or as ?token=")


def _check_verdict(verdict: Verdict, known: _Known | None) -> None:
    verdict.check()
    if known is not None and known.claims.sub and verdict.sub and known.claims.sub != verdict.sub:
        raise Forbidden("the token is for another subscriber than the application names")


def _check_asked(verdict: Verdict, grant: Grant, names: Sequence[str], rules: Sequence[Rule]) -> None:
    """A rule with ``{sub}`` allows a subscriber's own channels only, whatever the application allows."""
    for name, rule in zip(names, rules, strict=True):
        if rule.subscribe is _ASK and not (verdict.covers(name) and rule.pattern.matches_for(name, grant.sub)):
            raise Forbidden(f"the application does not allow channel {name}")


def _grant(known: _Known | None, verdict: Verdict | None, allowed: tuple[str, ...], cors: bytes, page: str) -> Grant:
    """Valid while both are. ``issued_at`` is the earlier one: who is revoked between them is revoked."""
    if known is None:
        if verdict is None:
            return Grant(cors=cors, page=page)
        return Grant("", cors, verdict.until, page=page, sub=verdict.sub, issued_at=verdict.issued_at, allowed=allowed)
    claims, until, sub, issued_at = known.claims, known.until, known.claims.sub, known.claims.issued_at
    if verdict is not None:
        until, sub = min(until, verdict.until), sub or verdict.sub
        issued_at = None if issued_at is None else min(issued_at, verdict.issued_at)
    return Grant(
        "", cors, min(until, FOREVER), page=page, sub=sub, jti=claims.jti, issued_at=issued_at, claims=claims,
        allowed=allowed,
    )  # fmt: skip
