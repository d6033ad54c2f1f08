"""Who may publish where, and what ends it."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import pytest

from pushcompat.access.grant import Grant
from pushcompat.access.named_key import NamedKey, checked_patterns, create
from pushcompat.access.patterns import Pattern
from pushcompat.access.policy import Policy
from pushcompat.access.publishers import Publishers
from pushcompat.access.rules import ANYONE, NO_ONE, Rule, Rules
from pushcompat.errors import Forbidden, RequestError, Unauthorized
from pushcompat.message import ACCESS_LOG, Message
from pushcompat.wire.request import Request, parse_head

from .signing import SECRET, sign

ROOT = b"root-key"


def key(name: str, *patterns: str, secrets: tuple[bytes, ...] = ()) -> NamedKey:
    """Its text is its name."""
    return NamedKey(name, checked_patterns(patterns), sha256(name.encode()).digest(), secrets=secrets)


def make(keys: Sequence[NamedKey] = (), limits: Rules | None = None) -> Publishers:
    publishers = Publishers()
    publishers.configure(Policy([ROOT], keys=keys, rules=limits or Rules()))
    return publishers


def request(text: str = "", **headers: str) -> Request:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    if text:
        fields["Authorization"] = f"Bearer {text}"
    lines = [f"{name}: {value}" for name, value in fields.items()]
    return parse_head("\r\n".join(["POST /channels/a HTTP/1.1", "Host: h", *lines, "", ""]).encode())


def rules(*publish: tuple[str, tuple[str, ...]]) -> Rules:
    return Rules(tuple([Rule(Pattern(pattern), who) for pattern, who in publish]))


def admit(publishers: Publishers, text: str = "", cors: bytes = b"") -> Grant:
    grant = publishers.admit(request(text), cors)
    assert grant is not None
    return grant


def allowed(grant: Grant, channel: str) -> bool:
    """Asked twice: the second answer may be a remembered one."""
    answers = []
    for _ in range(2):
        try:
            grant.check_publish([channel])
        except RequestError:
            answers.append(False)
        else:
            answers.append(grant.scope is None or grant.scope.allows(channel))
    assert answers[0] == answers[1]
    return answers[0]


def test_a_key_may_publish_to_the_channels_of_its_patterns() -> None:
    publishers = make([key("shop", "orders.*", "stock")])
    grant = admit(publishers, "shop")
    assert grant.publisher == "shop"
    assert [name for name in ("orders.7", "stock", "orders.", "stocks", "chat") if allowed(grant, name)] == [
        "orders.7",
        "stock",
    ]


def test_the_refusal_names_the_key_and_the_channel() -> None:
    grant = admit(make([key("shop", "orders.*", "stock")]), "shop")
    with pytest.raises(
        Forbidden, match=r"key shop may not publish to channel chat: its channels are orders\.\*, stock"
    ):
        grant.check_publish(["orders.7", "chat"])
    grant = admit(make([key("shop", "*")], rules(("vip", ("other",)))), "shop")
    with pytest.raises(
        Forbidden, match="key shop may not publish to channel vip: the rule of this channel names other"
    ):
        grant.check_publish(["vip"])


def test_a_rule_names_the_keys_that_may_publish_and_patterns_limit_them_as_well() -> None:
    limits = rules(("vip.*", ("shop",)), ("closed", NO_ONE))
    publishers = make([key("shop", "vip.1", "chat", "closed"), key("other", "*")], limits)
    shop, other, root = (admit(publishers, text) for text in ("shop", "other", "root-key"))
    channels = ("vip.1", "vip.2", "chat", "closed")
    assert [name for name in channels if allowed(shop, name)] == ["vip.1", "chat"]
    assert [name for name in channels if allowed(other, name)] == ["chat"]
    assert all(allowed(root, name) for name in channels)


def test_a_key_for_all_channels_costs_no_check_unless_a_rule_could_refuse_it() -> None:
    assert admit(make([key("all", "*")]), "all").scope is None
    assert admit(make([key("all", "*")], rules(("board", ANYONE))), "all").scope is None
    assert admit(make([key("all", "*")], rules(("vip", ("shop",)))), "all").scope is not None
    assert admit(make([], rules(("vip", NO_ONE))), "root-key").scope is None


def test_anyone_may_publish_where_the_rule_says_so_and_nowhere_else() -> None:
    publishers = make([key("shop", "orders.*")], rules(("board", ANYONE)))
    anyone = admit(publishers)
    assert anyone.publisher == ""
    assert allowed(anyone, "board")
    with pytest.raises(Unauthorized, match="publishing needs the publish key"):
        anyone.check_publish(["board", "chat"])


def test_a_wrong_key_never_becomes_an_anonymous_publisher() -> None:
    with pytest.raises(Unauthorized, match="invalid publish key"):
        make([], rules(("*", ANYONE))).admit(request("wrong"), b"")


def test_without_open_channels_a_publish_needs_a_key() -> None:
    with pytest.raises(Unauthorized, match="publishing needs the publish key"):
        make().admit(request(), b"")


def test_only_the_root_key_administers() -> None:
    publishers = make([key("shop", "*")])
    publishers.admit_root(b"Bearer root-key", "listing keys")
    with pytest.raises(Forbidden, match="listing keys needs the root key of the server; key shop can only publish"):
        publishers.admit_root(b"Bearer shop", "listing keys")
    for authorization in (b"", b"Bearer", b"Bearer wrong", b"Bearer \xff", b"root-key"):
        with pytest.raises(Unauthorized):
            publishers.admit_root(authorization, "listing keys")


# What ends a grant


def added(publishers: Publishers, name: str = "shop") -> str:
    key, text = create(name, checked_patterns(["*"]), 0.0)
    publishers.apply(publishers.added(key))
    return text


def test_all_grants_of_a_key_end_when_it_is_removed_and_no_others() -> None:
    publishers = make()
    text, other = added(publishers), added(publishers, "other")
    ended = [admit(publishers, text, cors) for cors in (b"", b"A: b\r\n")]
    lasting = [admit(publishers, other), admit(publishers, "root-key")]
    publishers.apply(publishers.revoked("shop"))
    assert all(grant.until < 0 for grant in ended)
    assert all(grant.until > 0 for grant in lasting)
    with pytest.raises(Unauthorized):
        admit(publishers, text)


def test_a_key_that_is_replaced_takes_its_grants_with_it() -> None:
    publishers = make()
    old = added(publishers)
    grant = admit(publishers, old)
    new = added(publishers)
    assert grant.until < 0
    assert admit(publishers, new).until > 0


def test_new_rules_and_keys_apply_to_publishers_that_were_admitted_before() -> None:
    shop = key("shop", "chat")
    publishers = make([shop])
    text = added(publishers, "added")
    grants = [admit(publishers, known) for known in ("root-key", "shop", text)]
    publishers.configure(Policy([b"new-root"], keys=[key("late", "*")], rules=rules(("vip", NO_ONE))))
    assert all(grant.until < 0 for grant in grants)
    for gone in ("root-key", "shop"):
        with pytest.raises(Unauthorized):
            admit(publishers, gone)
    assert admit(publishers, "new-root").publisher == "root"
    assert not allowed(admit(publishers, "late"), "vip")
    assert not allowed(admit(publishers, text), "vip")


@pytest.mark.parametrize("data", [b"", b"{}", b'{"revoked":false}', b"\xff"])
def test_a_record_that_this_version_cannot_read_is_no_valid_key(data: bytes) -> None:
    publishers = make()
    text = added(publishers)
    grant = admit(publishers, text)
    publishers.apply(Message(ACCESS_LOG, data, key="key:shop"))
    assert grant.until < 0
    with pytest.raises(Unauthorized):
        admit(publishers, text)


def test_the_log_keeps_a_key_until_it_is_revoked_and_that_for_a_month() -> None:
    publishers = make()
    key, _ = create("shop", checked_patterns(["*"]), 0.0)
    message, revoked = publishers.added(key), publishers.revoked("shop")
    assert (message.channel, message.key, message.ttl_s) == (ACCESS_LOG, "key:shop", None)
    assert (revoked.channel, revoked.key, revoked.ttl_s) == (ACCESS_LOG, "key:shop", 30 * 86400)


def test_requests_with_one_key_share_a_grant_and_the_number_of_grants_is_bounded() -> None:
    publishers = make()
    first = admit(publishers, "root-key")
    assert admit(publishers, "root-key") is first
    for number in range(2000):
        admit(publishers, "root-key", b"Origin: %d\r\n" % number)
    assert len(publishers._grants) <= 1024
    assert first.until < 0, "a grant that is no longer known must be asked for again, or it could not be ended"


# Signed requests


def test_a_signed_request_needs_its_body_and_gets_the_scope_of_the_key_that_signed_it() -> None:
    publishers = make([key("shop", "orders.*", secrets=(SECRET,))])
    signed = request(Content_Length="5", **sign(b"hello"))
    assert publishers.admit(signed, b"") is None
    signed.feed(b"hello")
    grant = publishers.admit_body(signed, b"A: b\r\n")
    assert (grant.publisher, grant.signed, grant.cors) == ("shop", True, b"A: b\r\n")
    assert (allowed(grant, "orders.1"), allowed(grant, "chat")) == (True, False)
    assert signed.idempotency_key == b"msg_1"


def test_a_bearer_key_counts_and_not_a_signature_beside_it() -> None:
    publishers = make([key("shop", "*", secrets=(SECRET,))])
    signed = sign(b"hello")
    grant = publishers.admit(request("root-key", **signed), b"")
    assert grant is not None
    assert (grant.publisher, grant.signed) == ("root", False)
    with pytest.raises(Unauthorized, match="invalid publish key"):
        publishers.admit(request("wrong", **signed), b"")
    assert publishers.admit(request(Authorization="Basic eDp5", **signed), b"") is None


def test_an_unsigned_request_is_refused_by_its_head_and_a_wrong_signature_is_never_anonymous() -> None:
    publishers = make([key("shop", "*", secrets=(SECRET,))], rules(("*", ANYONE)))
    signed = request(Content_Length="5", **sign(b"hello"))
    assert publishers.admit(signed, b"") is None
    signed.feed(b"hallo")
    with pytest.raises(Unauthorized, match="invalid signature"):
        publishers.admit_body(signed, b"")
    with pytest.raises(Unauthorized):
        make([key("shop", "*", secrets=(SECRET,))]).admit(request(Content_Length="5"), b"")


def test_all_grants_of_a_key_share_its_quota_and_another_key_has_another() -> None:
    shop, other = key("shop", "*"), key("other", "*")
    publishers = Publishers()
    publishers.configure(Policy([ROOT], keys=[shop, other], publish_rate=5.0))

    def quota(text: str, cors: bytes = b"") -> object:
        grant = publishers.admit(request(text), cors)
        assert grant is not None
        return grant.quota

    assert quota("shop") is not None
    assert quota("shop") is quota("shop", b"X: y\r\n")
    assert quota("shop") is not quota("other")
    assert quota("root-key") not in (None, quota("shop"))


def test_a_quota_outlives_a_new_configuration_unless_its_rate_changes() -> None:
    publishers, quotas = Publishers(), []
    for rate in (5.0, 5.0, 6.0, None):
        publishers.configure(Policy([ROOT], publish_rate=rate))
        grant = publishers.admit(request("root-key"), b"")
        assert grant is not None
        quotas.append(grant.quota)
    assert quotas[0] is quotas[1]
    assert quotas[1] is not quotas[2] is not None
    assert quotas[3] is None


def test_a_key_may_have_a_rate_of_its_own() -> None:
    slow = NamedKey("slow", checked_patterns(["*"]), sha256(b"slow").digest(), rate=1.0)
    publishers = Publishers()
    publishers.configure(Policy([ROOT], keys=[slow]))
    for text, limited in (("slow", True), ("root-key", False)):
        grant = publishers.admit(request(text), b"")
        assert grant is not None
        assert (grant.quota is not None) is limited
