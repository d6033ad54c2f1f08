"""Makes subscriber tokens, for trying them. Applications make theirs with any JWT library: docs/access.md."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from pathlib import Path

import jwt

from ..errors import ConfigError
from .patterns import Pattern
from .token_keys import algorithm_of, need_cryptography, usable_secret


def issue(
    key: str | Path,
    *,
    expires_s: float,
    sub: str | None = None,
    jti: str | None = None,
    channels: Sequence[str] = (),
    audience: Sequence[str] = (),
    issuer: str | None = None,
) -> str:
    """A token that expires in ``expires_s``. ``key``: a secret, or a file with secrets, of which the first is used, or
    with a private key (PEM). Raises ConfigError.
    """
    now = int(time.time())
    claims: dict[str, object] = {"iat": now, "exp": now + int(expires_s), "jti": jti or secrets.token_urlsafe(12)}
    optional = {"sub": sub, "channels": list(channels), "aud": list(audience), "iss": issuer}
    claims |= {name: value for name, value in optional.items() if value}
    try:
        for text in channels:
            Pattern(text)
    except ValueError as error:
        raise ConfigError(f"--channel: {error}") from None
    secret, algorithm = _signing_key(key)
    return jwt.encode(claims, secret, algorithm)


def _signing_key(key: str | Path) -> tuple[str, str]:
    if isinstance(key, str):
        return usable_secret(key, "$PUSHCOMPAT_TOKEN_KEY"), "HS256"
    try:
        text = key.read_text("utf-8-sig").strip()
    except OSError as error:
        raise ConfigError(f"cannot read --token-key-file {key}: {error.strerror}") from error
    except UnicodeDecodeError:
        text = ""
    if "PRIVATE KEY" in text:
        return text, _algorithm(text, str(key))
    if not text or text.startswith(("-----BEGIN", "{", "[")):
        raise ConfigError(f"{key}: to make a token, give a file with a secret or with a private key (PEM)")
    return usable_secret(text.splitlines()[0], str(key)), "HS256"


def _algorithm(text: str, where: str) -> str:
    need_cryptography(where)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        loaded = load_pem_private_key(text.encode(), None)
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{where}: the private key cannot be read: {error}") from None
    return algorithm_of(loaded.public_key(), where)
