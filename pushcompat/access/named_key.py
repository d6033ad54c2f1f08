"""A named key: ``pc_``, eight public characters, ``_`` and its secret; it publishes to the channels of its patterns.

It is found by its public part, and only its SHA-256 is kept: the secret has 32 random bytes, which nobody can guess. A
slow hash would protect nothing more, and each wrong key would stop the server for its time (argon2: 0.24 s).

This file knows no requests: the configuration has keys too.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from hashlib import sha256

from ..wire.names import shown
from .patterns import Pattern

ROOT = "root"  # the name of the root key
MAX_PATTERNS = 64  # of one key
KEY_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
RESERVED_NAMES = frozenset((ROOT, "keys", "open", "nobody"))  # the root key; and what rules call other publishers
_PUBLIC_ALPHABET = "abcdefghjkmnpqrstvwxyz23456789"  # no letters that look alike
_PUBLIC_CHARACTERS = 8
PREFIX_CHARACTERS = len("pc_") + _PUBLIC_CHARACTERS
_SECRET_BYTES = 32
_PREFIX = re.compile(rf"pc_[a-z0-9]{{{_PUBLIC_CHARACTERS}}}")
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")


class NamedKey:
    """``channels``: patterns of the channels that it may publish to. ``digest``: the key's SHA-256; empty if it only
    signs. ``prefix``: the public part; empty for a key from the configuration file. ``secrets``: with which publishes
    may be signed. ``created``: seconds since 1970. ``rate``: messages a second, instead of --publish-rate.
    """

    __slots__ = ("channels", "created", "digest", "name", "prefix", "rate", "secrets")

    def __init__(
        self,
        name: str,
        channels: Sequence[Pattern],
        digest: bytes,
        prefix: str = "",
        secrets: Sequence[bytes] = (),
        created: int = 0,
        rate: float | None = None,
    ) -> None:
        self.name = name
        self.channels = tuple(channels)
        self.digest = digest
        self.prefix = prefix
        self.secrets = tuple(secrets)
        self.created = created
        self.rate = rate

    def covers(self, channel: str) -> bool:
        """One of its patterns matches the channel; the channel's rule is another question."""
        return any(pattern.matches(channel) for pattern in self.channels)


def create(name: str, channels: Sequence[Pattern], now: float) -> tuple[NamedKey, str]:
    """A new key: what is kept of it, and its text."""
    public = "".join([secrets.choice(_PUBLIC_ALPHABET) for _ in range(_PUBLIC_CHARACTERS)])
    text = f"pc_{public}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    key = NamedKey(name, channels, sha256(text.encode()).digest(), text[:PREFIX_CHARACTERS], created=int(now))
    return key, text


def checked_name(name: str) -> str:
    """Raises ValueError."""
    if not KEY_NAME.fullmatch(name):
        raise ValueError(f"{shown(name)} is not a name of a key: use 1-64 characters of A-Z a-z 0-9 . _ -")
    if name in RESERVED_NAMES:
        raise ValueError(f"a key cannot be called {name}: the name has a meaning in rules; choose another name")
    return name


def checked_patterns(texts: Sequence[str]) -> list[Pattern]:
    """Raises ValueError."""
    if not texts:
        raise ValueError("a key needs at least one pattern of channels; * is every channel")
    if len(texts) > MAX_PATTERNS:
        raise ValueError(f"a key has at most {MAX_PATTERNS} patterns of channels, not {len(texts)}")
    patterns = [Pattern(text) for text in texts]
    for pattern in patterns:
        if pattern.uses_sub:
            raise ValueError(f"pattern {shown(pattern.text)}: {{sub}} is a subscriber, and keys publish; use * instead")
    return patterns


def checked_digest(text: str) -> bytes:
    """The bytes of a SHA-256 in hexadecimal. Raises ValueError."""
    if not _DIGEST.fullmatch(text):
        raise ValueError('sha256 must be 64 hexadecimal digits: printf %s "$KEY" | sha256sum')
    return bytes.fromhex(text)


# As they are stored


def to_record(key: NamedKey) -> bytes:
    """The key as JSON, without its name."""
    record = {
        "prefix": key.prefix,
        "sha256": key.digest.hex(),
        "channels": [pattern.text for pattern in key.channels],
        "created": key.created,
    }
    return json.dumps(record).encode()


def from_record(name: str, record: bytes) -> NamedKey:
    """Raises ValueError."""
    try:
        document: Mapping[str, object] = json.loads(record)
        prefix, digest, texts, created = [document[field] for field in ("prefix", "sha256", "channels", "created")]
    except (KeyError, TypeError, RecursionError):
        raise ValueError("not the record of a key") from None
    if not (isinstance(prefix, str) and isinstance(digest, str) and isinstance(texts, list) and type(created) is int):
        raise ValueError("not the record of a key")
    if not _PREFIX.fullmatch(prefix):
        raise ValueError("not the prefix of a key")
    return NamedKey(
        checked_name(name), checked_patterns([str(text) for text in texts]), checked_digest(digest), prefix,
        created=created,
    )  # fmt: skip
