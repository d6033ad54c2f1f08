"""Subscriber tokens: JSON Web Tokens (RFC 7519), checked by PyJWT.

PyJWT checks the signature and the registered claims; ``_decode`` is the only place that sets its options. What PyJWT
lets through is normalised here, once: ``exp`` as text or as a huge number, empty names, an unbounded lifetime.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jwt
from jwt.exceptions import InvalidJTIError, InvalidSubjectError

from ..errors import Unauthorized
from . import claims as access
from .patterns import Pattern
from .token_keys import MOST_TRIED, TokenKey, TokenKeys
from .token_settings import DEFAULTS, TokenSettings

MAX_CHANNELS = 64  # in the claim
_MAX_NAME = 256  # characters of sub and jti

_WRONG = "the token is not valid: its signature fits none of the server's keys"
_MALFORMED = "the token is not a JSON Web Token"
_AUDIENCE = "the token is for another audience"
_OPTIONS: Any = {"require": ["exp"], "enforce_minimum_key_length": True}
_MESSAGES: dict[type[Exception], str] = {
    jwt.ExpiredSignatureError: "the token has expired; request a new one",
    jwt.ImmatureSignatureError: "the token is not valid yet: its nbf or iat is in the future, by this server's clock",
    jwt.MissingRequiredClaimError: "the token has no {claim}, which this server requires",
    jwt.InvalidIssuerError: "the token is from another issuer than --token-issuer names",
    InvalidSubjectError: "sub in the token must be a string",
    InvalidJTIError: "jti in the token must be a string",
    jwt.InvalidIssuedAtError: "iat in the token must be a number of seconds",
    jwt.InvalidSignatureError: _WRONG,
    jwt.InvalidAlgorithmError: "the token's algorithm is not that of the server's key",
}


class Claims(NamedTuple):
    """The verified contents of a token. ``channels``: None if the token has no such claim. ``until``: Unix seconds at
    which it is no longer accepted, the leeway included. ``issued_at``: Unix seconds, None without ``iat``. ``key``:
    what it was verified with.
    """

    sub: str
    jti: str
    channels: tuple[Pattern, ...] | None
    until: float
    issued_at: float | None
    key: bytes


class Verifier:
    """Verifies tokens: each costs 36 µs (HS256) to 0.5 ms (ES512) of CPU time.

    ``leeway_s`` is the tolerance for the clocks of several machines, for exp, nbf and iat. ``max_age_s`` is how far in
    the future ``exp`` may be: a revocation is kept as long as the tokens that it revokes can live.
    """

    def __init__(
        self,
        keys: TokenKeys,
        settings: TokenSettings = DEFAULTS,
    ) -> None:
        self._keys = keys
        self._audience = list(settings.audience) or None
        self._issuer = settings.issuer
        self._required = repr((settings.audience, settings.issuer)).encode()
        self._trusted = {digest + self._required for digest in keys.digests}
        self._leeway_s = settings.leeway_s
        self._max_age_s = settings.max_age_s

    def verify(self, token: bytes, now: float) -> Claims:
        """``now``: Unix seconds. Raises Unauthorized."""
        claims, key = self._verified(token)
        until = self._until(claims["exp"], now)
        return Claims(
            _name("sub", claims),
            _name("jti", claims),
            _channels(claims["channels"]) if "channels" in claims else None,
            until,
            _issued_at(claims["iat"]) if "iat" in claims else None,
            key.digest + self._required,
        )

    def trusts(self, claims: access.Claims) -> bool:
        """Whether claims that were verified before would be verified again: the key is still there, and as much is
        required.
        """
        return claims.key in self._trusted

    def _verified(self, token: bytes) -> tuple[dict[str, Any], TokenKey]:
        """The claims, and the first key that fits. Raises Unauthorized."""
        refused = Unauthorized(_WRONG)
        for key in self._candidates(token):
            try:
                return self._decode(token, key), key
            except (jwt.InvalidSignatureError, jwt.InvalidAlgorithmError) as error:
                refused = Unauthorized(_MESSAGES[type(error)])
            except jwt.PyJWTError as error:
                raise Unauthorized(self._message(error)) from None
            except (ValueError, TypeError, OverflowError, RecursionError):
                raise Unauthorized(_MALFORMED) from None
        raise refused

    def _candidates(self, token: bytes) -> Sequence[TokenKey]:
        """The keys that may have signed the token, by its header."""
        only = self._keys.only
        if only is not None:
            return (only,)  # its header need not be parsed twice
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            raise Unauthorized(_MALFORMED) from None
        algorithm, kid = header.get("alg"), header.get("kid")
        found = self._keys.candidates(algorithm if isinstance(algorithm, str) else "", kid)
        if len(found) > MOST_TRIED:
            raise Unauthorized("the token has no kid, and the server has many keys: name the key in the token's header")
        return found

    def _decode(self, token: bytes, key: TokenKey) -> dict[str, Any]:
        claims: dict[str, Any] = jwt.decode(
            token,
            key.jwk,
            algorithms=[key.algorithm],
            options=_OPTIONS,
            audience=self._audience,
            issuer=self._issuer,
            leeway=self._leeway_s,
        )
        return claims

    def _message(self, error: jwt.PyJWTError) -> str:
        if isinstance(error, jwt.InvalidAudienceError):
            return _AUDIENCE if self._audience else f"{_AUDIENCE}: aud is in the token, set --token-audience"
        message = _MESSAGES.get(type(error), _MALFORMED)
        return message.format(claim=getattr(error, "claim", ""))

    def _until(self, exp: object, now: float) -> float:
        if isinstance(exp, bool) or not isinstance(exp, int | float):
            raise Unauthorized("exp in the token must be a number of seconds")
        if not exp <= now + self._max_age_s:
            raise Unauthorized(
                f"exp in the token is too far in the future: at most {self._max_age_s / 86400:g} days (--token-max-age)"
            )
        return float(exp) + self._leeway_s


def _name(claim: str, claims: dict[str, Any]) -> str:
    """``sub`` or ``jti``; empty if it is missing: that is nobody's name, and an empty one is refused."""
    if claim not in claims:
        return ""
    name = claims[claim]
    if not name or len(name) > _MAX_NAME:
        raise Unauthorized(f"{claim} in the token must have 1 to {_MAX_NAME} characters")
    return str(name)


def _issued_at(iat: object) -> float:
    if isinstance(iat, bool) or not isinstance(iat, int | float) or not iat >= 0:
        raise Unauthorized("iat in the token must be a number of seconds")
    return float(iat)  # not in the future, by PyJWT


def _channels(claim: object) -> tuple[Pattern, ...]:
    if not isinstance(claim, list) or not all(isinstance(name, str) for name in claim):
        raise Unauthorized('channels in the token must be a list of names and patterns, like ["orders.*"]')
    if len(claim) > MAX_CHANNELS:
        raise Unauthorized(f"channels in the token has more than {MAX_CHANNELS} entries; use patterns")
    return _patterns(tuple(claim))


@lru_cache(512)
def _patterns(texts: tuple[str, ...]) -> tuple[Pattern, ...]:
    """Many tokens have the same. Raises Unauthorized."""
    try:
        found = tuple(Pattern(text) for text in texts)
    except ValueError as error:
        raise Unauthorized(f"channels in the token: {error}") from None
    if any(pattern.uses_sub for pattern in found):
        raise Unauthorized("channels in the token: {sub} is only valid in the server's rules; write the name itself")
    return found
