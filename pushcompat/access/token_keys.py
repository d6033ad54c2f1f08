"""The keys that subscriber tokens are verified with, from files: secrets, PEM public keys, JSON Web Key sets.

One key is one algorithm: a token cannot choose another one. What cannot be used is an error at the start, or is named
there, rather than a token that fails later.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import jwt

from ..errors import ConfigError

MOST_TRIED = 8  # keys for one token: each wrong ES512 signature costs 0.5 ms
_LEAST_SECRET_BYTES = 32  # RFC 7518 §3.2: as long as the hash
_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_SAME = {"Ed25519": "EdDSA"}  # RFC 9864's name of RFC 8037's algorithm
_NAMES = frozenset(("kid", "use", "key_ops", "alg"))  # members of a JSON Web Key that are not the key
_PRIVATE = frozenset(("d", "p", "q"))


class TokenKey(NamedTuple):
    """``digest`` identifies the key, whatever its kid."""

    algorithm: str
    kid: str | None
    jwk: jwt.PyJWK
    digest: bytes


class TokenKeys:
    """``skipped``: a sentence for each key of a set that is not for signatures, or of a kind that is not supported."""

    def __init__(self, keys: Sequence[TokenKey], skipped: Sequence[str] = ()) -> None:
        self._keys = list(keys)
        self.skipped = list(skipped)
        for key in keys:
            if len(self.candidates(key.algorithm, key.kid)) > MOST_TRIED:
                same = "without a kid" if key.kid is None else f"for kid {key.kid}"
                raise ConfigError(f"token keys: more than {MOST_TRIED} {key.algorithm} keys {same}; remove old ones")

    def __bool__(self) -> bool:
        return bool(self._keys)

    @property
    def shared(self) -> bool:
        """Some are public keys: who has the private ones may issue tokens for other applications too."""
        return any(not key.algorithm.startswith("HS") for key in self._keys)

    @property
    def digests(self) -> set[bytes]:
        return {key.digest for key in self._keys}

    @property
    def only(self) -> TokenKey | None:
        return self._keys[0] if len(self._keys) == 1 else None

    def candidates(self, algorithm: str, kid: object) -> list[TokenKey]:
        """The keys for a token with that header. A key without a kid may have signed any token of its algorithm."""
        fitting = [key for key in self._keys if key.algorithm == algorithm]
        if kid is not None:
            fitting = [key for key in fitting if key.kid is None or key.kid == kid]
        return fitting[: MOST_TRIED + 1]


def load_token_keys(files: Iterable[Path], secret: str | None = None) -> TokenKeys:
    """The keys of all files, and the secret. Raises ConfigError.

    A file has one or several PEM public keys, a JSON Web Key (set), or secrets for HS256, one in a line.
    """
    keys: list[TokenKey] = []
    skipped: list[str] = []
    if secret is not None:
        keys.append(_secret(secret.strip(), "$PUSHCOMPAT_TOKEN_KEY"))
    for path in files:
        try:
            text = path.read_text("utf-8-sig").strip()
        except OSError as error:
            raise ConfigError(f"cannot read --token-key-file {path}: {error.strerror}") from error
        except UnicodeDecodeError:
            raise ConfigError(f"--token-key-file {path}: must be text: PEM, JSON Web Keys, or secrets") from None
        found, left_out = _keys_in(text, str(path))
        keys += found
        skipped += left_out
    return TokenKeys([named for key in keys for named in _names(key)], skipped)


def _names(key: TokenKey) -> Sequence[TokenKey]:
    """The key under each name that a token may give its algorithm."""
    if key.algorithm != "EdDSA":
        return (key,)
    renamed = copy.copy(key.jwk)
    renamed.algorithm_name = "Ed25519"
    return key, key._replace(algorithm="Ed25519", jwk=renamed)


def _keys_in(text: str, where: str) -> tuple[list[TokenKey], list[str]]:
    if not text:
        raise ConfigError(f"{where}: no token key in it")
    if text.startswith(("{", "[")):
        return _set(text, where)
    if "-----BEGIN" in text:
        return [_pem(match[0], match[1], where) for match in _PEM.finditer(text)], []
    return [_secret(line.strip(), where) for line in text.splitlines() if line.strip()], []


def usable_secret(text: str, where: str) -> str:
    """Raises ConfigError if it is too short."""
    size = len(text.encode())
    if size < _LEAST_SECRET_BYTES:
        raise ConfigError(
            f"{where}: a secret has {size} bytes, and needs {_LEAST_SECRET_BYTES}; create one: openssl rand -base64 48"
        )
    return text


def _secret(text: str, where: str) -> TokenKey:
    encoded = jwt.utils.base64url_encode(usable_secret(text, where).encode()).decode()
    return _key({"kty": "oct", "k": encoded}, "HS256", where)


def _pem(text: str, kind: str, where: str) -> TokenKey:
    if "PRIVATE" in kind:
        raise ConfigError(f"{where}: a private key; give the public one: openssl pkey -in {where} -pubout")
    if kind not in ("PUBLIC KEY", "RSA PUBLIC KEY"):
        raise ConfigError(f"{where}: {kind} is not a public key; create one: openssl x509 -in {where} -noout -pubkey")
    need_cryptography(where)
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        loaded = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{where}: the PEM key cannot be read: {error}") from None
    algorithm = algorithm_of(loaded, where)
    jwk = jwt.get_algorithm_by_name(algorithm).to_jwk(loaded, as_dict=True)
    return _key(jwk, algorithm, where)


def algorithm_of(public_key: object, where: str) -> str:
    """The one algorithm of a key of this kind. Raises ConfigError."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(public_key, rsa.RSAPublicKey):
        return "RS256"
    if isinstance(public_key, ed25519.Ed25519PublicKey):
        return "EdDSA"
    if isinstance(public_key, ec.EllipticCurvePublicKey) and public_key.curve.name in _CURVES:
        return _CURVES[public_key.curve.name]
    raise ConfigError(f"{where}: unsupported key; use RSA, EC (P-256, P-384, P-521) or Ed25519")


def _set(text: str, where: str) -> tuple[list[TokenKey], list[str]]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where} is not valid JSON: {error}") from None
    members = document.get("keys", [document]) if isinstance(document, dict) else document
    if not isinstance(members, list):
        raise ConfigError(f'{where}: must be a JSON Web Key set, {{"keys": […]}}')
    keys: list[TokenKey] = []
    skipped: list[str] = []
    for number, member in enumerate(members, 1):
        if not isinstance(member, dict):
            raise ConfigError(f"{where}: key {number} is not an object")
        name = f"{where}: key {number}" + (f" ({member['kid']})" if "kid" in member else "")
        reason = _unusable(member)
        if reason is None:
            keys.append(_key(member, _SAME.get(member.get("alg", ""), member.get("alg")), name))
        else:
            skipped.append(f"{name} is not used: {reason}")
    if not keys:
        raise ConfigError("; ".join([f"{where}: no usable token key", *skipped]))
    return keys, skipped


def _unusable(member: dict[str, Any]) -> str | None:
    """Why a member of a set cannot verify tokens; None: it can."""
    kind, curve, algorithm = member.get("kty"), member.get("crv"), member.get("alg")
    if member.get("use", "sig") != "sig" or "verify" not in member.get("key_ops", ["verify"]):
        return "it is not for signatures"
    if kind not in ("oct", "RSA", "EC", "OKP"):
        return f"kty {kind!r} is not supported"
    if kind == "OKP" and curve != "Ed25519":
        return f"crv {curve!r} is not supported"
    if algorithm is not None and not _known(algorithm):
        return f"alg {algorithm!r} is not supported"
    return None


def _known(algorithm: object) -> bool:
    return isinstance(algorithm, str) and re.fullmatch("(HS|RS|PS|ES)[0-9]+K?|EdDSA|Ed25519", algorithm) is not None


def _key(jwk: dict[str, Any], algorithm: str | None, where: str) -> TokenKey:
    kid = jwk.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise ConfigError(f"{where}: kid must be a string")
    if jwk.get("kty") != "oct":
        need_cryptography(where)
        if _PRIVATE & jwk.keys():
            raise ConfigError(f"{where}: a private key; remove its private members ({', '.join(sorted(_PRIVATE))}, …)")
    try:
        key = jwt.PyJWK(jwk, algorithm)
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{where}: the key cannot be read: {_without_key(error)}") from None
    weak = key.Algorithm.check_key_length(key.key)
    if weak:
        raise ConfigError(f"{where}: the key is too short: {weak}")
    material = sorted((name, str(value)) for name, value in jwk.items() if name not in _NAMES)
    return TokenKey(key.algorithm_name, kid, key, sha256(repr((key.algorithm_name, material)).encode()).digest())


def _without_key(error: Exception) -> str:
    """PyJWT's messages may end with the key itself."""
    return str(error).partition(": {")[0]


def need_cryptography(where: str) -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError:
        raise ConfigError(f'{where}: RSA, EC and Ed25519 keys need: pip install "pushcompat[access]"') from None
