"""Who may subscribe: every way of asking, under every rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest

from pushcompat.access.grant import FOREVER, Grant
from pushcompat.access.patterns import Pattern
from pushcompat.access.questions import Answer, OnAnswer, Outcome, Question, Questions
from pushcompat.access.revocations import Revocations, Target
from pushcompat.access.rules import Rule, Rules, Subscribe
from pushcompat.access.subscribers import Subscribers
from pushcompat.errors import BadRequest, Forbidden, RequestError, Unauthorized, Unavailable
from pushcompat.message import Message
from pushcompat.wire.request import Request, parse_head

NOW = 1_800_000_000.0  # by the wall clock
TICK = 1000  # by the monotonic clock


class Claims(NamedTuple):
    sub: str = ""
    jti: str = ""
    channels: tuple[Pattern, ...] | None = None
    until: float = NOW + 60
    issued_at: float | None = NOW - 10
    key: bytes = b"first"


def allowing(*patterns: str, **more: object) -> Claims:
    return Claims(channels=tuple(map(Pattern, patterns)), **more)  # type: ignore[arg-type]


class Tokens:
    """Knows the valid tokens."""

    def __init__(self) -> None:
        self.valid = {
            b"orders": allowing("orders.*", sub="ann", jti="1"),
            b"ann": Claims(sub="ann", jti="2"),
            b"ann-x": allowing("user:ann:x", sub="ann"),
            b"nobody": allowing("orders.*"),
            b"bob": Claims(sub="bob"),
        }
        self.verified: list[bytes] = []
        self.keys = {b"first"}

    def verify(self, token: bytes, now: float) -> Claims:
        self.verified.append(token)
        if token not in self.valid:
            raise Unauthorized("wrong")
        return self.valid[token]

    def trusts(self, claims: object) -> bool:
        assert isinstance(claims, Claims)
        return claims.key in self.keys


class Application:
    def __init__(self) -> None:
        self.asked: list[tuple[Question, OnAnswer]] = []

    def ask(self, question: Question, on_answer: OnAnswer) -> None:
        self.asked.append((question, on_answer))

    def answer(self, outcome: Outcome) -> Question:
        question, on_answer = self.asked.pop(0)
        on_answer(question, outcome)
        return question


class Waiter:
    waits = True

    def __init__(self) -> None:
        self.told: list[RequestError | None] = []

    def answered(self, refused: RequestError | None) -> None:
        self.told.append(refused)


RULES = Rules(
    (
        Rule(Pattern("public.*"), subscribe=Subscribe.OPEN),
        Rule(Pattern("orders.*"), subscribe=Subscribe.TOKEN),
        Rule(Pattern("user:{sub}:*"), subscribe=Subscribe.TOKEN),
        Rule(Pattern("app.*"), subscribe=Subscribe.ASK),
    ),
    Rule(Pattern("*"), subscribe=Subscribe.NOBODY),
)


class Desk:
    """Subscribers, with clocks that a test can set."""

    def __init__(self, rules: Rules = RULES, cookie: str = "session") -> None:
        self.now = float(TICK)
        self.wall = NOW
        self.tokens = Tokens()
        self.application = Application()
        self.revocations = Revocations(lambda: self.wall)
        clocks = (lambda: self.now, lambda: self.wall)
        questions = Questions(self.application, 2, 300, 3600, *clocks)
        self.subscribers = Subscribers(questions, self.revocations, *clocks)
        self.subscribers.configure(rules, self.tokens, cookie)

    def admit(self, names: str, token: str = "", *lines: str) -> Grant | None:
        return self.subscribers.admit(request(names, token, *lines), names.split(","), b"", "")

    def grant(self, names: str, token: str = "", *lines: str) -> Grant:
        """The grant, once the token was verified."""
        asked = request(names, token, *lines)
        grant = self.subscribers.admit(asked, names.split(","), b"cors", "page")
        if grant is None:
            self.subscribers.verify(asked, names.split(","))
            grant = self.subscribers.admit(asked, names.split(","), b"cors", "page")
        assert grant is not None, "the application must be asked"
        return grant

    def ask(self, names: str, token: str = "", *lines: str) -> Waiter:
        waiter = Waiter()
        self.subscribers.ask(request(names, token, *lines), names.split(","), waiter)
        return waiter


def request(names: str, token: str = "", *lines: str) -> Request:
    query = f"?token={token}" if token else ""
    return parse_head("\r\n".join([f"GET /channels/{names}{query} HTTP/1.1", "Host: h", *lines, "", ""]).encode())


@pytest.fixture
def desk() -> Desk:
    return Desk()


# Rules


def test_an_open_channel_is_everyones(desk: Desk) -> None:
    grant = desk.admit("public.a")
    assert grant is not None
    assert (grant.until, grant.sub, grant.jti, grant.issued_at) == (FOREVER, "", "", None)


@pytest.mark.parametrize("token", ["", "orders"])
@pytest.mark.parametrize("names", ["other", "public.a,other", "orders.1,other"])
def test_a_channel_of_nobody_is_nobodys(desk: Desk, names: str, token: str) -> None:
    with pytest.raises(Forbidden, match="nobody may subscribe to channel other"):
        desk.admit(names, token)
    assert desk.tokens.verified == []


def test_a_channel_that_needs_a_token_says_so(desk: Desk) -> None:
    with pytest.raises(Unauthorized, match=r"channel orders\.1 needs a token"):
        desk.admit("public.a,orders.1")


@pytest.mark.parametrize(
    ("names", "token"),
    [
        ("orders.1", "orders"),
        ("orders.1,orders.2,public.a", "orders"),
        ("orders.1", "nobody"),
        ("user:ann:x", "ann"),
        ("user:ann:x,user:ann:y", "ann"),
        ("user:ann:x", "ann-x"),
    ],
)
def test_a_token_that_allows_all_channels_is_admitted(desk: Desk, names: str, token: str) -> None:
    grant = desk.grant(names, token)
    claims = desk.tokens.valid[token.encode()]
    assert (grant.sub, grant.jti, grant.issued_at) == (claims.sub, claims.jti, claims.issued_at)
    assert (grant.until, grant.cors, grant.page, grant.publisher) == (TICK + 60, b"cors", "page", "")


@pytest.mark.parametrize(
    ("names", "token", "named"),
    [
        ("orders.1,user:ann:x", "orders", "user:ann:x"),  # a channels claim must name every channel
        ("orders.1", "ann", "orders.1"),  # without {sub} in the rule the claim is needed
        ("user:bob:x", "ann", "user:bob:x"),
        ("user:ann:x", "bob", "user:ann:x"),
        ("user:ann:y", "ann-x", "user:ann:y"),
        ("user:ann:x", "nobody", "user:ann:x"),  # the claim alone is not enough where a rule says {sub}
    ],
)
def test_a_token_that_does_not_allow_a_channel_is_refused_with_its_name(
    desk: Desk, names: str, token: str, named: str
) -> None:
    with pytest.raises(Forbidden, match=f"the token does not allow channel {named}$"):
        desk.grant(names, token)


# Where the token is


@pytest.mark.parametrize(
    ("token", "lines"),
    [
        ("orders", ()),
        ("", ("Authorization: Bearer orders",)),
        ("", ("authorization: bearer orders",)),
        ("", ("Cookie: a=b; session=orders",)),
        ("orders", ("Authorization: Bearer orders",)),
        ("orders", ("Authorization: Basic dXNlcjpwYXNz", "Cookie: session=wrong")),
    ],
)
def test_a_token_is_found_in_each_place(desk: Desk, token: str, lines: Sequence[str]) -> None:
    assert desk.grant("orders.1", token, *lines).sub == "ann"


def test_two_different_tokens_are_refused(desk: Desk) -> None:
    with pytest.raises(BadRequest, match="two tokens"):
        desk.admit("orders.1", "orders", "Authorization: Bearer ann")


@pytest.mark.parametrize("lines", [("Authorization: Bearer wrong",), ()])
@pytest.mark.parametrize("names", ["public.a", "orders.1", "public.a,orders.1"])
def test_a_wrong_token_never_becomes_an_anonymous_subscriber(desk: Desk, names: str, lines: Sequence[str]) -> None:
    for _ in range(2):
        with pytest.raises(Unauthorized, match="wrong"):
            desk.grant(names, "" if lines else "wrong", *lines)


def test_a_cookie_counts_only_where_a_rule_needs_a_token(desk: Desk) -> None:
    assert desk.admit("public.a", "", "Cookie: session=wrong") is not None
    with pytest.raises(Unauthorized, match="wrong"):
        desk.grant("orders.1", "", "Cookie: session=wrong")
    assert Desk(cookie="").subscribers.is_verified(request("orders.1", "", "Cookie: session=orders"), ["orders.1"])


def test_without_keys_a_token_is_not_looked_at() -> None:
    subscribers = Subscribers()
    assert subscribers.open
    assert subscribers.admit(request("a", "anything"), ["a"], b"", "") is not None


# What is remembered


def test_a_token_is_verified_once_and_then_known_wherever_it_is_sent(desk: Desk) -> None:
    assert desk.admit("orders.1", "orders") is None
    assert not desk.subscribers.is_verified(request("orders.1", "orders"), ["orders.1"])
    for lines in ((), ("X: y",), ("X: z",)):
        desk.grant("orders.1", "orders", *lines)
    desk.grant("orders.2", "", "Authorization: Bearer orders")
    assert desk.tokens.verified == [b"orders"]


def test_a_wrong_token_is_not_kept(desk: Desk) -> None:
    for number in range(3):
        with pytest.raises(Unauthorized):
            desk.grant("orders.1", f"wrong-{number}")
    assert desk.subscribers._known == {}


def test_a_known_token_is_refused_when_its_time_is_over_whatever_the_wall_clock_says(desk: Desk) -> None:
    desk.grant("orders.1", "orders")
    desk.wall -= 10_000
    desk.now += 59.9
    assert desk.grant("orders.1", "orders").until == TICK + 60
    desk.now += 0.1
    with pytest.raises(Unauthorized, match="expired"):
        desk.admit("orders.1", "orders")
    with pytest.raises(Unauthorized, match="expired"):
        desk.admit("public.a", "orders")


def test_the_number_of_known_tokens_is_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pushcompat.access.subscribers._MOST_KNOWN", 3)
    for number in range(9):
        desk.tokens.valid[b"%d" % number] = allowing("orders.*")
        desk.grant("orders.1", f"{number}")
    assert len(desk.subscribers._known) == 3
    desk.grant("orders.1", "8")
    assert len(desk.tokens.verified) == 9


def test_a_configuration_without_the_tokens_key_verifies_again(desk: Desk) -> None:
    desk.grant("orders.1", "orders")
    desk.tokens.keys = set()
    desk.subscribers.configure(RULES, desk.tokens, "")
    assert desk.admit("orders.1", "orders") is None


# The application


def test_the_application_is_asked_about_the_channels_whose_rule_says_so(desk: Desk) -> None:
    lines = ("Cookie: session=x; a=b", "Origin: https://h", "User-Agent: Firefox", "X-Other: y")
    assert desk.admit("app.1,public.a,app.2", "", *lines) is None
    assert desk.subscribers.is_verified(request("app.1", "", *lines), ["app.1"])
    waiter = desk.ask("app.1,public.a,app.2", "", *lines)
    question = desk.application.answer(Answer(sub="ann", expires_s=20))
    assert question.channels == ("app.1", "app.2")
    assert dict(question.fields) == {
        "Cookie": "session=x; a=b", "Origin": "https://h", "User-Agent": "Firefox"
    }  # fmt: skip
    assert waiter.told == [None]
    grant = desk.admit("app.1,public.a,app.2", "", *lines)
    assert grant is not None
    assert (grant.sub, grant.until, grant.issued_at) == ("ann", TICK + 20, NOW)


def test_a_token_where_only_the_application_decides_is_the_applications(desk: Desk) -> None:
    for token, lines in (("theirs", ()), ("", ("Authorization: Bearer theirs",)), ("", ("Authorization: Basic x",))):
        assert desk.admit("app.1,public.a", token, *lines) is None
        desk.ask("app.1,public.a", token, *lines)
    assert [dict(question.fields)["Authorization"] for question, _ in desk.application.asked] == [
        "Bearer theirs", "Basic x",
    ]  # fmt: skip
    assert desk.tokens.verified == []


@pytest.mark.parametrize("token", ["a%0d%0aCookie:%20session=x", "a%20b", "%C3%A9", "%00"])
def test_a_token_that_could_forge_a_field_is_not_sent_to_the_application(desk: Desk, token: str) -> None:
    with pytest.raises(Unauthorized, match="characters"):
        desk.admit("app.1", token)


def test_both_must_agree_where_one_channel_needs_a_token_and_another_the_application(desk: Desk) -> None:
    with pytest.raises(Unauthorized, match="needs a token"):
        desk.admit("orders.1,app.1")
    with pytest.raises(Unauthorized, match="wrong"):
        desk.grant("orders.1,app.1", "wrong")
    assert desk.application.asked == []
    desk.subscribers.verify(request("orders.1,app.1", "orders"), ["orders.1", "app.1"])
    assert desk.admit("orders.1,app.1", "orders") is None
    desk.ask("orders.1,app.1", "orders")
    desk.application.answer(Answer(expires_s=20))
    grant = desk.admit("orders.1,app.1", "orders")
    assert grant is not None
    assert (grant.until, grant.sub, grant.jti, grant.issued_at) == (TICK + 20, "ann", "1", NOW - 10)


def test_two_names_for_one_subscriber_are_refused(desk: Desk) -> None:
    desk.subscribers.verify(request("orders.1,app.1", "orders"), ["orders.1", "app.1"])
    desk.ask("orders.1,app.1", "orders")
    desk.application.answer(Answer(sub="bob"))
    with pytest.raises(Forbidden, match="another subscriber"):
        desk.admit("orders.1,app.1", "orders")


@pytest.mark.parametrize("refused", [Unauthorized("no"), Forbidden("no")])
def test_what_the_application_refuses_is_refused(desk: Desk, refused: RequestError) -> None:
    waiter = desk.ask("app.1")
    desk.application.answer(refused)
    assert waiter.told == [None]
    with pytest.raises(type(refused), match="no") as raised:
        desk.admit("app.1,public.a")
    assert raised.value is not refused, "each client's refusal gets its own CORS lines"


def test_the_applications_channels_limit_the_grant(desk: Desk) -> None:
    desk.ask("app.1,app.2")
    desk.application.answer(Answer((Pattern("app.1"), Pattern("other.*"))))
    with pytest.raises(Forbidden, match=r"the application does not allow channel app\.2"):
        desk.admit("app.1,app.2")
    desk.ask("app.ann")
    desk.application.answer(Answer((Pattern("app.{sub}"),), sub="ann"))
    assert desk.admit("app.ann") is not None


def test_where_the_rule_has_a_sub_the_application_must_name_the_subscriber_and_the_channel_be_its_own() -> None:
    desk = Desk(changed(Rule(Pattern("room:{sub}"), subscribe=Subscribe.ASK), default=Subscribe.ASK))
    for number, answer in enumerate([Answer(sub="bob"), Answer(), Answer((Pattern("*"),), sub="bob")]):
        session = f"Cookie: session={number}"
        desk.ask("room:ann", "", session)
        desk.application.answer(answer)
        with pytest.raises(Forbidden, match="the application does not allow channel room:ann"):
            desk.admit("room:ann", "", session)
    desk.ask("room:ann,lobby", "", "Cookie: session=ann")
    desk.application.answer(Answer(sub="ann"))
    grant = desk.admit("room:ann,lobby", "", "Cookie: session=ann")
    assert grant is not None
    assert desk.subscribers.renew(grant, ["room:ann", "lobby"])
    desk.subscribers.configure(changed(Rule(Pattern("{sub}"), subscribe=Subscribe.ASK), default=Subscribe.ASK))
    assert not desk.subscribers.renew(grant, ["lobby"])


def test_without_an_application_a_rule_that_asks_admits_nobody() -> None:
    subscribers = Subscribers()
    subscribers.configure(RULES)
    with pytest.raises(Unavailable, match="--authorize-url"):
        subscribers.admit(request("app.1"), ["app.1"], b"", "")


# Revocations


def revoke(desk: Desk, **target: str) -> None:
    message = desk.revocations.message(Target(**target), 3600)
    desk.revocations.apply(
        Message(message.channel, message.data, message.json, message.key, ttl_s=message.ttl_s,
                time_ms=int(desk.wall * 1000))
    )  # fmt: skip


@pytest.mark.parametrize("target", [{"sub": "ann"}, {"jti": "1"}, {"channel": "orders.1"}])
def test_a_known_token_is_refused_once_it_was_revoked(desk: Desk, target: dict[str, str]) -> None:
    desk.grant("orders.1", "orders")
    revoke(desk, **target)
    with pytest.raises(Unauthorized, match="revoked"):
        desk.admit("orders.1", "orders")


def test_a_login_after_the_revocation_is_admitted(desk: Desk) -> None:
    revoke(desk, sub="ann")
    desk.tokens.valid[b"new"] = allowing("orders.*", sub="ann", issued_at=NOW + 1)
    assert desk.grant("orders.1", "new").sub == "ann"


def test_the_application_is_asked_again_about_who_was_revoked_and_may_admit_it_again(desk: Desk) -> None:
    for cookie, sub in (("a", "ann"), ("b", "bob")):
        desk.ask("app.1", "", f"Cookie: {cookie}")
        desk.application.answer(Answer(sub=sub))
    revoke(desk, sub="ann")
    assert desk.admit("app.1", "", "Cookie: b") is not None
    assert desk.admit("app.1", "", "Cookie: a") is None
    desk.wall += 1
    desk.ask("app.1", "", "Cookie: a")
    desk.application.answer(Answer(sub="ann"))
    assert desk.admit("app.1", "", "Cookie: a") is not None


def test_an_answer_that_is_as_old_as_the_revocation_refuses_for_two_seconds_and_not_for_its_ttl(desk: Desk) -> None:
    revoke(desk, sub="ann")
    desk.ask("app.1")
    desk.application.answer(Answer(sub="ann"))
    for passed in (0, 1):
        desk.now += passed
        with pytest.raises(Unauthorized, match="revoked"):
            desk.admit("app.1")
    desk.now += 1
    desk.wall += 2
    assert desk.admit("app.1") is None
    desk.ask("app.1")
    desk.application.answer(Answer(sub="ann"))
    assert desk.admit("app.1") is not None


# Pages that are admitted only because all are


def test_the_cookie_of_such_a_page_is_no_token_and_no_session(desk: Desk) -> None:
    desk.subscribers.configure(RULES, desk.tokens, "session", lambda request: False)
    with pytest.raises(Unauthorized, match="needs a token"):
        desk.admit("orders.1", "", "Cookie: session=orders")
    desk.ask("app.1", "", "Cookie: sid=1", "Authorization: Basic YTpi", "User-Agent: x")
    assert desk.application.asked[0][0].fields == (("User-Agent", "x"),)


def test_what_such_a_page_sends_itself_counts(desk: Desk) -> None:
    desk.subscribers.configure(RULES, desk.tokens, "session", lambda request: False)
    assert desk.grant("orders.1", "", "Authorization: Bearer orders").sub == "ann"
    assert desk.grant("orders.1", "orders").sub == "ann"
    desk.ask("app.1", "", "Authorization: Bearer t")
    assert desk.application.asked[0][0].fields == (("Authorization", "Bearer t"),)


# When the configuration has changed


def changed(*rules: Rule, default: Subscribe = Subscribe.NOBODY) -> Rules:
    return Rules(rules, Rule(Pattern("*"), subscribe=default))


ORDERS = Rule(Pattern("orders.*"), subscribe=Subscribe.TOKEN)


@pytest.mark.parametrize(
    ("rules", "renewed"),
    [
        (RULES, True),
        (changed(ORDERS), True),
        (changed(Rule(Pattern("orders.1"), subscribe=Subscribe.OPEN)), True),
        (changed(Rule(Pattern("orders.2"), subscribe=Subscribe.NOBODY), ORDERS), True),
        (changed(Rule(Pattern("orders.*"), subscribe=Subscribe.NOBODY)), False),
        (changed(), False),
        (changed(Rule(Pattern("orders.{sub}"), subscribe=Subscribe.TOKEN)), False),
        (changed(Rule(Pattern("*"), subscribe=Subscribe.ASK)), False),
    ],
)
def test_a_subscription_by_token_stays_if_its_token_would_be_admitted_again(
    desk: Desk, rules: Rules, renewed: bool
) -> None:
    grant = desk.grant("orders.1", "orders")
    desk.subscribers.configure(rules, desk.tokens)
    assert desk.subscribers.renew(grant, ["orders.1"]) is renewed


def test_a_subscription_ends_with_the_key_of_its_token_and_no_other_one(desk: Desk) -> None:
    desk.tokens.valid[b"rotated"] = allowing("orders.*", key=b"second")
    desk.tokens.keys = {b"first", b"second"}
    old, new = desk.grant("orders.1", "orders"), desk.grant("orders.1", "rotated")
    anonymous = desk.admit("public.a")
    assert anonymous is not None
    desk.tokens.keys = {b"second"}
    desk.subscribers.configure(RULES, desk.tokens)
    assert not desk.subscribers.renew(old, ["orders.1"])
    assert desk.subscribers.renew(new, ["orders.1"])
    assert desk.subscribers.renew(anonymous, ["public.a"])
    assert desk.admit("orders.1", "orders") is None  # it must be verified again
    assert desk.admit("orders.1", "rotated") is not None
    desk.subscribers.configure(changed(default=Subscribe.OPEN))
    assert not desk.subscribers.renew(new, ["orders.1"])


def test_an_anonymous_subscription_ends_where_a_token_is_needed_now(desk: Desk) -> None:
    grant = desk.admit("public.a")
    assert grant is not None
    desk.subscribers.configure(changed(Rule(Pattern("public.*"), subscribe=Subscribe.TOKEN)), desk.tokens)
    assert not desk.subscribers.renew(grant, ["public.a"])


def test_a_subscription_that_the_application_has_allowed_stays_for_the_channels_that_it_was_asked_about(
    desk: Desk,
) -> None:
    desk.ask("app.1,public.a")
    desk.application.answer(Answer())
    grant = desk.admit("app.1,public.a")
    assert grant is not None
    assert desk.subscribers.renew(grant, ["app.1", "public.a"])
    desk.subscribers.configure(changed(default=Subscribe.ASK), desk.tokens)
    assert desk.subscribers.renew(grant, ["app.1"])
    assert not desk.subscribers.renew(grant, ["app.1", "public.a"])
