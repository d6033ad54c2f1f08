"""Makes token keys and tokens for the tests."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from jwt.utils import base64url_encode

SECRET = "a secret of at least thirty-two bytes, for tests"
OTHER_SECRET = "another secret of at least thirty-two bytes, too"


def token(key: Any = SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **claims: Any) -> bytes:
    """A token that expires in a minute, unless ``exp`` says otherwise; ``exp=None``: without."""
    claims = {"exp": int(time.time()) + 60, **claims}
    if claims["exp"] is None:
        del claims["exp"]
    return jwt.encode(claims, key, algorithm, headers).encode()


PRIVATE: dict[str, Any] = {
    "RS256": rsa.generate_private_key(65537, 2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


def public_pem(algorithm: str) -> str:
    key = PRIVATE[algorithm].public_key()
    return str(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def private_pem(algorithm: str) -> str:
    return str(PRIVATE[algorithm].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


def public_jwk(algorithm: str, **members: Any) -> dict[str, Any]:
    jwk = jwt.get_algorithm_by_name(algorithm).to_jwk(PRIVATE[algorithm].public_key(), as_dict=True)
    return {**jwk, **members}


def by_hand(header: dict[str, Any], claims: dict[str, Any], sign: Callable[[bytes], bytes]) -> bytes:
    """A token that PyJWT refuses to make."""
    signed = b".".join([base64url_encode(json.dumps(part).encode()) for part in (header, claims)])
    return signed + b"." + base64url_encode(sign(signed))
