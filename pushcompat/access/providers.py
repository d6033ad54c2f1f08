"""Verifies requests of other people's webhooks, each as its sender documents it.

Nearly all sign in one way: HMAC-SHA256, with a shared secret, of the raw body after a prefix, which for some contains
the time. They differ in where signature and time are, and in the encoding. So the header fields become a ``Claim``; the
rest is the same for all. A claim that cannot be true is refused before the body is read.

A request that was captured can be sent again. If its time is signed, it is refused after ``TOLERANCE_S``, and its
``replay_key`` is remembered until then (``replays``). GitHub and Shopify sign no time: a captured request is accepted
again once its key is forgotten. Ids of deliveries (X-GitHub-Delivery, X-Shopify-Webhook-Id) are not signed; the body
is, so its hash is the key. Those who know a shared token can send anything: the key then only prevents that a retry is
published twice.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from ..errors import Unauthorized
from .replays import TOLERANCE_S
from .webhook_secret import secret_bytes

Headers = Mapping[str, str]  # by name, in any case

_SECONDS = re.compile(r"[0-9]{1,12}")
_HEX = re.compile(r"[0-9a-f]{64}")
_ID = re.compile(r"[!-,/-~-]{1,256}")  # without ".": it could take the beginning of the body for the time
_SHORTEST = 16  # characters of a secret; senders make 32 or more, people may not
_SHA256 = "sha256:"  # before the hash of a token
_TOKEN_CHARACTERS = 22  # 128 bits in base64


class Unverified(Unauthorized):
    """The response says no more than that. ``why`` is for the server's log."""

    def __init__(self, why: str) -> None:
        super().__init__("the request could not be verified")
        self.why = why


@dataclass(frozen=True, slots=True)
class Claim:
    """What the header fields say: that one of ``digests`` is the HMAC-SHA256 of ``prefix`` and the body; or, if there
    is a ``token``, that it is the secret. ``id`` identifies the request.
    """

    prefix: bytes = b""
    digests: Sequence[bytes] = ()
    token: bytes = b""
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Verified:
    """``replay_key`` is the same if the request is sent again; None: there is no way to know."""

    replay_key: str | None


@dataclass(frozen=True, slots=True)
class Provider:
    """``claim`` raises Unverified. ``key`` turns a secret into the HMAC's key, and raises ValueError with what to
    change.
    """

    name: str
    claim: Callable[[Headers, float], Claim]
    key: Callable[[str], bytes]

    def verify(self, headers: Headers, body: bytes, secrets: Sequence[bytes], now: float) -> Verified:
        """``secrets``: from ``key``; several while one is replaced by another. Raises Unverified."""
        return self.check(self.claim(headers, now), body, secrets)

    def check(self, claim: Claim, body: bytes, secrets: Sequence[bytes]) -> Verified:
        """Like ``verify``. Raises Unverified."""
        if not any(_proves(claim, body, secret) for secret in secrets):
            raise Unverified("wrong signature" if claim.digests else "wrong token")
        if claim.id is not None:
            return Verified(sha256(b"id:" + claim.id.encode()).hexdigest())
        return Verified(None if claim.token else sha256(b"body:" + body).hexdigest())


def _proves(claim: Claim, body: bytes, secret: bytes) -> bool:
    if claim.token:
        return hmac.compare_digest(sha256(claim.token).digest(), secret)
    mac = hmac.new(secret, claim.prefix, "sha256")
    mac.update(body)
    expected = mac.digest()
    return any(hmac.compare_digest(expected, digest) for digest in claim.digests)


# What the senders document


def _github(headers: Headers, now: float) -> Claim:
    """https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries"""
    return Claim(digests=_hex_digests([_after("sha256=", _field(headers, "X-Hub-Signature-256"))]))


def _stripe(headers: Headers, now: float) -> Claim:
    """https://docs.stripe.com/webhooks#verify-manually: other schemes than v1 are ignored, and t after the first."""
    items = [item.partition("=") for item in _field(headers, "Stripe-Signature").split(",")]
    times = [value for name, _, value in items if name == "t"]
    time = _time(times[0] if times else "", now)
    return Claim(b"%b." % time, _hex_digests([value for name, _, value in items if name == "v1"]))


def _slack(headers: Headers, now: float) -> Claim:
    """https://docs.slack.dev/authentication/verifying-requests-from-slack"""
    signature = _after("v0=", _field(headers, "X-Slack-Signature"))
    time = _time(_field(headers, "X-Slack-Request-Timestamp"), now)
    return Claim(b"v0:%b:" % time, _hex_digests([signature]))


def _standard(headers: Headers, now: float) -> Claim:
    """https://github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md. Svix has its own names for
    the same fields.
    """
    names = "webhook" if "webhook-signature" in headers else "svix"
    id, signatures = _field(headers, f"{names}-id"), _field(headers, f"{names}-signature")
    if not _ID.fullmatch(id):
        raise Unverified("malformed webhook-id")
    time = _time(_field(headers, f"{names}-timestamp"), now)
    given = [item.partition(",") for item in signatures.split(" ")]
    digests = _base64_digests([value for version, _, value in given if version == "v1"])
    return Claim(b"%b.%b." % (id.encode(), time), digests, id=id)


def _shopify(headers: Headers, now: float) -> Claim:
    """https://shopify.dev/docs/apps/build/webhooks/verify-deliveries; Events, their successor, have no ``X-``."""
    name = "Shopify-Hmac-Sha256"
    return Claim(digests=_base64_digests([_field(headers, name if name in headers else f"X-{name}")]))


def _gitlab(headers: Headers, now: float) -> Claim:
    """https://docs.gitlab.com/user/project/integrations/webhooks: a signing token (since 19.0) signs as Standard
    Webhooks; a secret token is sent as it is. A request that has both has to be signed.
    """
    if "webhook-signature" in headers:
        return _standard(headers, now)
    token = _field(headers, "X-Gitlab-Token").encode("latin-1")  # the bytes that were sent
    return Claim(token=token, id=headers.get("Idempotency-Key"))


def _token(headers: Headers, now: float) -> Claim:
    """The last part of the URL's path, which the caller sets as ``TOKEN_FIELD``."""
    return Claim(token=_field(headers, TOKEN_FIELD).encode())


TOKEN_FIELD = ":token"  # no header field can have this name


# Their parts


def _field(headers: Headers, name: str) -> str:
    value = headers.get(name, "").strip()
    if not value:
        raise Unverified("no token in the URL" if name == TOKEN_FIELD else f"no {name}")
    return value


def _after(scheme: str, text: str) -> str:
    return text.removeprefix(scheme) if text.startswith(scheme) else ""


def _time(text: str, now: float) -> bytes:
    """The time as it was signed."""
    if not _SECONDS.fullmatch(text):
        raise Unverified("malformed timestamp")
    age_s = now - int(text)
    if abs(age_s) > TOLERANCE_S:
        raise Unverified(f"timestamp {abs(age_s):.0f} s {'in the past' if age_s > 0 else 'in the future'}")
    return text.encode()


def _hex_digests(texts: Sequence[str]) -> list[bytes]:
    return _digests([bytes.fromhex(text) for text in texts if _HEX.fullmatch(text)])


def _base64_digests(texts: Sequence[str]) -> list[bytes]:
    return _digests([decoded for text in texts if (decoded := _decoded(text)) is not None])


def _digests(found: list[bytes]) -> list[bytes]:
    if not found:
        raise Unverified("malformed signature")
    return found


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return None


# Secrets


def _as_it_is(secret: str) -> bytes:
    """Stripe's too, although it begins with whsec_. Raises ValueError."""
    if len(secret) < _SHORTEST:
        raise ValueError(f"a secret must have {_SHORTEST} characters or more; create one: openssl rand -hex 32")
    return secret.encode()


def _gitlab_key(secret: str) -> bytes:
    return secret_bytes(secret) if secret.startswith("whsec_") else sha256(_as_it_is(secret)).digest()


def _token_key(secret: str) -> bytes:
    """The token's SHA-256, or the token."""
    if secret.startswith(_SHA256):
        if not _HEX.fullmatch(secret.removeprefix(_SHA256)):
            raise ValueError(f"{_SHA256} must be followed by 64 hexadecimal digits: the SHA-256 of the token")
        return bytes.fromhex(secret.removeprefix(_SHA256))
    if len(secret) < _TOKEN_CHARACTERS or not re.fullmatch(r"[A-Za-z0-9._~-]+", secret):
        least = f"{_TOKEN_CHARACTERS} characters or more of A-Z a-z 0-9 . _ ~ -"
        raise ValueError(f"a token must have {least}, since whoever guesses the URL can publish")
    return sha256(secret.encode()).digest()


PROVIDERS: Mapping[str, Provider] = {
    provider.name: provider
    for provider in (
        Provider("github", _github, _as_it_is),
        Provider("stripe", _stripe, _as_it_is),
        Provider("slack", _slack, _as_it_is),
        Provider("standard", _standard, secret_bytes),
        Provider("shopify", _shopify, _as_it_is),
        Provider("gitlab", _gitlab, _gitlab_key),
        Provider("token", _token, _token_key),
    )
}
