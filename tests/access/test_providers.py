"""Signatures of other people's webhooks: their published examples, their own libraries as signers, and forgeries."""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook
from stripe import WebhookSignature
from tornado.httputil import HTTPHeaders

from pushcompat.access.providers import PROVIDERS, TOKEN_FIELD, Unverified, Verified
from pushcompat.access.replays import REPLAY_S, TOLERANCE_S

NOW = 1_795_823_087
BODY = '{"id":"evt_1","name":"José"}'.encode()
STANDARD = "whsec_" + base64.b64encode(b"s" * 32).decode()
OTHER = "whsec_" + base64.b64encode(b"o" * 32).decode()


def verify(name: str, headers: Mapping[str, str], body: bytes, *secrets: str, now: float = NOW) -> Verified:
    provider = PROVIDERS[name]
    return provider.verify(HTTPHeaders(headers), body, [provider.key(secret) for secret in secrets], now)


def refusal(name: str, headers: Mapping[str, str], body: bytes, *secrets: str, now: float = NOW) -> str:
    with pytest.raises(Unverified) as refused:
        verify(name, headers, body, *secrets, now=now)
    assert (int(refused.value.status), refused.value.detail) == (401, "the request could not be verified")
    return refused.value.why


# The examples that senders publish

GITHUB = {"X-Hub-Signature-256": "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"}
GITHUB_SECRET = "It's a Secret to Everybody"

SLACK_TIME = 1531420618
SLACK = {
    "X-Slack-Request-Timestamp": str(SLACK_TIME),
    "X-Slack-Signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
}
SLACK_SECRET = "8f742231b10e8888abcd99yyyzzz85a5"
SLACK_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
    b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
    b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
    b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)

# https://github.com/standard-webhooks/standard-webhooks, libraries/python/tests
PUBLISHED = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
PUBLISHED_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_githubs_published_example_is_verified() -> None:
    assert verify("github", GITHUB, b"Hello, World!", GITHUB_SECRET).replay_key
    assert refusal("github", GITHUB, b"Hello, World?", GITHUB_SECRET) == "wrong signature"


def test_slacks_published_example_is_verified() -> None:
    assert verify("slack", SLACK, SLACK_BODY, SLACK_SECRET, now=SLACK_TIME).replay_key
    assert refusal("slack", SLACK, SLACK_BODY + b"x", SLACK_SECRET, now=SLACK_TIME) == "wrong signature"


@pytest.mark.parametrize("provider", ["standard", "gitlab"])
def test_the_published_example_of_standard_webhooks_is_verified(provider: str) -> None:
    body = b'{"test": 2432232314}'
    assert verify(provider, PUBLISHED, body, PUBLISHED_SECRET, now=1614265330).replay_key
    assert refusal(provider, PUBLISHED, body + b" ", PUBLISHED_SECRET, now=1614265330) == "wrong signature"


# Their libraries sign


def stripe(body: bytes = BODY, secret: str = "whsec_used_as_it_is", time: int = NOW) -> str:
    return WebhookSignature.generate_signature_header(body.decode(), secret, time)


def standard(
    body: bytes = BODY, secret: str = STANDARD, time: int = NOW, id: str = "msg_1", prefix: str = "webhook"
) -> dict[str, str]:
    signature = Webhook(secret).sign(id, datetime.fromtimestamp(time, UTC), body.decode())
    return {f"{prefix}-id": id, f"{prefix}-timestamp": str(time), f"{prefix}-signature": signature}


def shopify(body: bytes = BODY, secret: str = "shpss_0123456789abcdef") -> dict[str, str]:
    digest = base64.b64encode(hmac.digest(secret.encode(), body, "sha256"))
    return {"X-Shopify-Hmac-Sha256": digest.decode()}


def github(body: bytes, secret: str) -> dict[str, str]:
    return {"X-Hub-Signature-256": "sha256=" + hmac.new(secret.encode(), body, "sha256").hexdigest()}


def slack(body: bytes, secret: str, time: int) -> dict[str, str]:
    digest = hmac.new(secret.encode(), f"v0:{time}:".encode() + body, "sha256").hexdigest()
    return {"X-Slack-Request-Timestamp": str(time), "X-Slack-Signature": f"v0={digest}"}


SIGNED = {
    "github": (github(BODY, "g" * 20), "g" * 20),
    "stripe": ({"Stripe-Signature": stripe()}, "whsec_used_as_it_is"),
    "slack": (slack(BODY, "s" * 32, NOW), "s" * 32),
    "standard": (standard(), STANDARD),
    "shopify": (shopify(), "shpss_0123456789abcdef"),
    "gitlab": (standard(), STANDARD),
}
WRONG = {"standard": OTHER, "gitlab": OTHER}


@pytest.mark.parametrize("provider", SIGNED)
def test_what_a_sender_signed_is_verified(provider: str) -> None:
    headers, secret = SIGNED[provider]
    assert verify(provider, headers, BODY, secret).replay_key


@pytest.mark.parametrize("provider", SIGNED)
def test_another_body_another_secret_and_no_signature_are_refused(provider: str) -> None:
    headers, secret = SIGNED[provider]
    assert refusal(provider, headers, BODY + b" ", secret) == "wrong signature"
    assert refusal(provider, headers, BODY, WRONG.get(provider, "another secret, as long")) == "wrong signature"
    assert refusal(provider, {}, BODY, secret).startswith("no ")
    assert refusal(provider, headers, BODY) == "wrong signature"  # no secret: nobody


@pytest.mark.parametrize("provider", SIGNED)
def test_while_a_secret_is_replaced_both_are_accepted(provider: str) -> None:
    headers, secret = SIGNED[provider]
    other = WRONG.get(provider, "another secret, as long")
    assert verify(provider, headers, BODY, other, secret) == verify(provider, headers, BODY, secret, other)


@pytest.mark.parametrize("provider", [name for name in SIGNED if name != "shopify"])
@pytest.mark.parametrize("value", ["", " ", ",", "=", "v1", "v1,", "t=", "t=,v1=", "sha256=", "sha256=xyz", "é" * 64])
def test_a_malformed_signature_is_refused(provider: str, value: str) -> None:
    headers, secret = SIGNED[provider]
    for name in headers:
        assert refusal(provider, {**headers, name: value}, BODY, secret)


@pytest.mark.parametrize("value", ["", "é", "=", "====", "AAAA", "a-_b", "Zm9v\tZm9v"])
def test_a_malformed_signature_of_shopify_is_refused(value: str) -> None:
    assert refusal("shopify", {"X-Shopify-Hmac-Sha256": value}, BODY, SIGNED["shopify"][1])


TIMED = {
    "stripe": lambda time: ({"Stripe-Signature": stripe(time=time)}, "whsec_used_as_it_is"),
    "slack": lambda time: (slack(BODY, "s" * 32, time), "s" * 32),
    "standard": lambda time: (standard(time=time), STANDARD),
    "gitlab": lambda time: (standard(time=time), STANDARD),
}


@pytest.mark.parametrize("provider", TIMED)
@pytest.mark.parametrize(("offset_s", "why"), [(-TOLERANCE_S - 1, "in the past"), (TOLERANCE_S + 1, "in the future")])
def test_a_time_that_is_too_far_away_is_refused_in_both_directions(provider: str, offset_s: int, why: str) -> None:
    headers, secret = TIMED[provider](NOW + offset_s)
    assert why in refusal(provider, headers, BODY, secret)


@pytest.mark.parametrize("provider", TIMED)
def test_a_request_is_accepted_for_as_long_as_its_replay_key_is_remembered_and_no_longer(provider: str) -> None:
    headers, secret = TIMED[provider](NOW)
    first = verify(provider, headers, BODY, secret, now=NOW - TOLERANCE_S)  # the sender's clock is ahead
    assert verify(provider, headers, BODY, secret, now=NOW + TOLERANCE_S) == first
    assert refusal(provider, headers, BODY, secret, now=NOW + TOLERANCE_S + 1)
    assert 2 * TOLERANCE_S < REPLAY_S


@pytest.mark.parametrize("time", ["nan", "inf", "1e9", "-1", "+1", "1.0", " ", "0x10", "9" * 5000, "١٢٣", "1_000"])
@pytest.mark.parametrize("provider", TIMED)
def test_a_time_that_is_no_number_of_seconds_is_refused(provider: str, time: str) -> None:
    headers, secret = TIMED[provider](NOW)
    headers = {name: value.replace(str(NOW), time) for name, value in headers.items()}
    assert refusal(provider, headers, BODY, secret) in ("malformed timestamp",) or time == " "


# Stripe


def test_of_several_signatures_of_stripe_one_has_to_match() -> None:
    right, wrong = stripe().partition(",")[2], "v1=" + "0" * 64
    for signatures in (f"{wrong},{right}", f"{right},{wrong}", f"v0={'1' * 64},{right}", f"{right},v9=x=y,z"):
        assert verify("stripe", {"Stripe-Signature": f"t={NOW},{signatures}"}, BODY, "whsec_used_as_it_is")


def test_the_first_time_of_stripes_header_counts() -> None:
    signature = stripe().partition(",")[2]
    assert verify("stripe", {"Stripe-Signature": f"t={NOW},t=1,{signature}"}, BODY, "whsec_used_as_it_is")
    assert refusal("stripe", {"Stripe-Signature": f"t=1,t={NOW},{signature}"}, BODY, "whsec_used_as_it_is")


def test_the_secret_of_stripe_is_used_as_it_is_and_that_of_standard_webhooks_decoded() -> None:
    """Both begin with whsec_."""
    assert verify("stripe", {"Stripe-Signature": stripe(secret=STANDARD)}, BODY, STANDARD)
    assert PROVIDERS["stripe"].key(STANDARD) == STANDARD.encode()
    assert PROVIDERS["standard"].key(STANDARD) == b"s" * 32


def test_shopifys_events_are_verified_like_its_webhooks() -> None:
    (digest,) = shopify().values()
    assert verify("shopify", {"Shopify-Hmac-SHA256": digest}, BODY, SIGNED["shopify"][1])


# Replay keys


def test_the_body_is_the_replay_key_where_no_id_is_signed() -> None:
    secret = "g" * 20
    first = verify("github", {**github(BODY, secret), "X-GitHub-Delivery": "1"}, BODY, secret)
    assert verify("github", {**github(BODY, secret), "X-GitHub-Delivery": "2"}, BODY, secret) == first
    assert verify("github", github(b"{}", secret), b"{}", secret) != first


def test_a_retry_with_a_new_signature_has_the_replay_key_of_the_first() -> None:
    first = verify("stripe", {"Stripe-Signature": stripe(time=NOW)}, BODY, "whsec_used_as_it_is")
    assert verify("stripe", {"Stripe-Signature": stripe(time=NOW - 60)}, BODY, "whsec_used_as_it_is") == first


def test_the_id_is_the_replay_key_where_it_is_signed() -> None:
    first = verify("standard", standard(), BODY, STANDARD)
    assert verify("standard", standard(time=NOW + 9), BODY, STANDARD) == first
    assert verify("standard", standard(id="msg_2"), BODY, STANDARD) != first
    assert refusal("standard", {**standard(), "webhook-id": "msg_2"}, BODY, STANDARD) == "wrong signature"


def test_an_id_can_not_look_like_a_body() -> None:
    assert verify("standard", standard(id="x"), BODY, STANDARD).replay_key != sha256(b"x").hexdigest()


@pytest.mark.parametrize("id", ["a b", "é", "x" * 257, "\x7f", "msg.1"])
def test_an_id_that_no_sender_sends_is_refused(id: str) -> None:
    assert refusal("standard", {**standard(), "webhook-id": id}, BODY, STANDARD) == "malformed webhook-id"


# Standard Webhooks


def test_the_header_names_of_svix_are_accepted_too() -> None:
    assert verify("standard", standard(prefix="svix"), BODY, STANDARD) == verify("standard", standard(), BODY, STANDARD)


def test_of_several_signatures_of_standard_webhooks_one_has_to_match() -> None:
    right = standard()["webhook-signature"]
    for signatures in (f"v1a,xyz {right}", f"v1,AAAA {right}", f"nonsense {right}", f"{right}  v1,"):
        assert verify("standard", {**standard(), "webhook-signature": signatures}, BODY, STANDARD)
    unknown = right.replace("v1,", "v2,")
    assert refusal("standard", {**standard(), "webhook-signature": unknown}, BODY, STANDARD) == "malformed signature"


def test_a_body_that_is_not_utf_8_can_be_signed() -> None:
    body = b"\xff\xfe"
    digest = base64.b64encode(hmac.digest(b"s" * 32, f"msg_1.{NOW}.".encode() + body, "sha256")).decode()
    assert verify("standard", {**standard(), "webhook-signature": f"v1,{digest}"}, body, STANDARD)


# GitLab and tokens


def test_gitlabs_secret_token_is_compared() -> None:
    secret = "gitlab's secret é"
    sent = secret.encode().decode("latin-1")  # as header fields are read
    assert verify("gitlab", {"X-Gitlab-Token": sent}, BODY, secret).replay_key is None
    assert refusal("gitlab", {"X-Gitlab-Token": sent + "x"}, BODY, secret) == "wrong token"
    assert refusal("gitlab", {"X-Gitlab-Token": STANDARD}, BODY, STANDARD) == "wrong token"
    assert refusal("gitlab", {}, BODY, secret) == "no X-Gitlab-Token"


def test_gitlab_names_its_retries() -> None:
    secret = "a secret of gitlab"
    headers = {"X-Gitlab-Token": secret, "Idempotency-Key": "f5e57ebe"}
    first = verify("gitlab", headers, BODY, secret)
    assert first.replay_key
    assert verify("gitlab", headers, BODY + b" ", secret) == first
    assert verify("gitlab", {**headers, "Idempotency-Key": "2"}, BODY, secret) != first


def test_a_request_of_gitlab_that_is_signed_is_not_verified_by_its_token() -> None:
    secret = "a secret of gitlab"
    forged = {**standard(secret=OTHER), "X-Gitlab-Token": secret}
    assert refusal("gitlab", forged, BODY, secret, STANDARD) == "wrong signature"


def test_a_token_is_compared_with_its_hash() -> None:
    token = "u" * 43
    for secret in (token, "sha256:" + sha256(token.encode()).hexdigest()):
        assert verify("token", {TOKEN_FIELD: token}, BODY, secret) == Verified(None)
        for wrong in (token[:-1], token + "u", token.upper(), "é"):
            assert refusal("token", {TOKEN_FIELD: wrong}, BODY, secret) == "wrong token"
    assert refusal("token", {TOKEN_FIELD: ""}, BODY, token) == "no token in the URL"


# Secrets


@pytest.mark.parametrize(
    ("provider", "secret", "advice"),
    [
        ("github", "short", "must have 16 characters or more"),
        ("stripe", "", "must have 16 characters or more"),
        ("gitlab", "short", "must have 16 characters or more"),
        ("gitlab", "whsec_short", "24 to 64 bytes in base64"),
        ("standard", "x" * 40, "begins with whsec_"),
        ("standard", "whsec_" + base64.b64encode(b"x" * 23).decode(), "24 to 64 bytes"),
        ("standard", "whsec_" + base64.b64encode(b"x" * 65).decode(), "24 to 64 bytes"),
        ("standard", "whsec_" + "-_" * 20, "URL-safe alphabet"),
        ("standard", "whsk_" + base64.b64encode(b"x" * 32).decode(), "a key for ed25519"),
        ("standard", "whpk_" + base64.b64encode(b"x" * 32).decode(), "a key for ed25519"),
        ("token", "guess-me", "22 characters or more"),
        ("token", "a/b" * 10, "of A-Z a-z 0-9 . _ ~ -"),
        ("token", "sha256:xyz", "64 hexadecimal digits"),
    ],
)
def test_a_secret_that_does_not_fit_is_refused_with_advice(provider: str, secret: str, advice: str) -> None:
    with pytest.raises(ValueError, match=re.escape(advice)):
        PROVIDERS[provider].key(secret)


# Whatever is sent

_NAMES = [
    "X-Hub-Signature-256", "Stripe-Signature", "X-Slack-Signature", "X-Slack-Request-Timestamp", "webhook-id",
    "webhook-timestamp", "webhook-signature", "svix-id", "X-Shopify-Hmac-Sha256", "X-Gitlab-Token", "Idempotency-Key",
]  # fmt: skip
_VALUES = st.one_of(
    st.text(st.characters(max_codepoint=255), max_size=40),
    st.lists(st.sampled_from(["t=", "v1=", "v1,", "v0=", "sha256=", str(NOW), "0" * 64, ",", " ", "=", "AAAA"])).map(
        "".join
    ),
)


@given(st.sampled_from(list(PROVIDERS)), st.dictionaries(st.sampled_from(_NAMES), _VALUES), st.binary(max_size=20))
def test_nothing_but_a_signature_is_verified_and_nothing_else_is_raised(
    name: str, headers: dict[str, str], body: bytes
) -> None:
    secret = {"standard": STANDARD, "token": "u" * 43}.get(name, "a secret, long enough")
    with pytest.raises(Unverified):
        verify(name, headers, body, secret)
