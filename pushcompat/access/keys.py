"""The keys that a request may have, sent as ``Authorization: Bearer KEY``.

The root key may publish to any channel, and administers the server; named keys are in ``named_key``. Hashes are
compared, not the keys: they have one length, and may be of any bytes that a header can have.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from hmac import compare_digest

from ..errors import Unauthorized
from .named_key import PREFIX_CHARACTERS, NamedKey

NEEDS_KEY = 'publishing needs the publish key: send "Authorization: Bearer KEY"'


class PublishKeys:
    """The root keys, and the named keys: those of the configuration, and those added since."""

    def __init__(self, roots: Iterable[bytes] = (), configured: Iterable[NamedKey] = ()) -> None:
        self.configure(roots, configured)
        self._added: dict[str, NamedKey] = {}  # by name
        self._by_prefix: dict[str, NamedKey] = {}

    def configure(self, roots: Iterable[bytes], configured: Iterable[NamedKey]) -> None:
        self._roots = [sha256(key).digest() for key in roots]
        self._configured = {key.name: key for key in configured}

    def add(self, key: NamedKey) -> None:
        """Replaces an earlier key of that name."""
        self.remove(key.name)
        self._added[key.name] = self._by_prefix[key.prefix] = key

    def remove(self, name: str) -> None:
        earlier = self._added.pop(name, None)
        if earlier is not None:
            self._by_prefix.pop(earlier.prefix, None)

    def is_configured(self, name: str) -> bool:
        return name in self._configured

    def get(self, name: str) -> NamedKey | None:
        return self._configured.get(name) or self._added.get(name)

    def named(self) -> list[NamedKey]:
        """All named keys, by name."""
        return [key for _, key in sorted((self._added | self._configured).items())]

    def find(self, given: bytes) -> NamedKey | None:
        """The key with this text; None for a root key. Raises Unauthorized."""
        digest = sha256(given).digest()
        if _any_equal(self._roots, digest):
            return None
        key = self._by_prefix.get(given[:PREFIX_CHARACTERS].decode("latin-1"))
        if key is not None and compare_digest(key.digest, digest) and not self.is_configured(key.name):
            return key
        found = None
        for key in self._configured.values():
            if compare_digest(key.digest, digest):
                found = key
        if found is None:
            raise Unauthorized("invalid publish key; the server prints the path of the key's file at its start")
        return found


def _any_equal(digests: Iterable[bytes], digest: bytes) -> bool:
    equal = False
    for one in digests:  # compares with all: timing must not reveal which one matched
        equal |= compare_digest(one, digest)
    return equal


def bearer(authorization: bytes) -> bytes:
    """The credentials in a header field ``Authorization: Bearer``; empty if there are none."""
    scheme, _, credentials = authorization.partition(b" ")
    return credentials.strip() if scheme.lower() == b"bearer" else b""
