"""``[[key]]`` tables of the configuration file become publish keys.

[[key]]
name = "shop"
channels = ["orders.*", "stock"]
sha256 = "…"                                       # of the key, in hexadecimal
webhook-secrets-file = "/etc/pushcompat/shop.secrets"  # secrets that sign publishes, one a line
publish-rate = 50                                    # messages a second, instead of --publish-rate
"""

from __future__ import annotations

import os
from codecs import BOM_UTF8
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Any

from .access.named_key import NamedKey, checked_digest, checked_name, checked_patterns
from .access.webhook_secret import MAX_SECRETS, require_library, secret_bytes
from .config_file import Table

_RATE = "publish-rate"
_DIGEST = "sha256"
_SECRETS = "webhook-secrets"
_SECRETS_FILE = "webhook-secrets-file"
_SECRETS_VARIABLE = "webhook-secrets-env"
_SOURCES = (_SECRETS, _SECRETS_FILE, _SECRETS_VARIABLE)


def keys_from(tables: Iterable[Table], environ: Mapping[str, str] = os.environ) -> tuple[NamedKey, ...]:
    """Raises ConfigError, with the line and what to write instead."""
    keys: dict[str, NamedKey] = {}
    owners: dict[bytes, str] = {}  # of secrets and keys
    for table in tables:
        key = _key(table, environ)
        if key.name in keys:
            raise table.error(f"key {key.name!r} is given twice; a key has one name", "name")
        keys[key.name] = key
        for secret in (*key.secrets, *filter(None, [key.digest])):
            owner = owners.setdefault(secret, key.name)
            if owner != key.name:
                raise table.error(f"keys {owner!r} and {key.name!r} are the same secret; give each its own")
    return tuple(keys.values())


def _key(table: Table, environ: Mapping[str, str]) -> NamedKey:
    table.check_keys(("name", "channels", _DIGEST, _RATE, *_SOURCES))
    for required, example in (("name", '"shop"'), ("channels", '["orders.*"]')):
        if required not in table.values:
            raise table.error(f"[[key]] without {required}; write for example {required} = {example}")
    given = [source for source in _SOURCES if source in table.values]
    if len(given) > 1:
        raise table.error(f"{given[0]} and {given[1]} are mutually exclusive", given[1])
    if _DIGEST not in table.values and not given:
        raise table.error(f"[[key]] without a key; write {_DIGEST} of a key, or {_SECRETS_FILE}, or both")
    name = _read(table, "name", lambda: checked_name(_text(table, "name")))
    channels = _read(table, "channels", lambda: checked_patterns(_texts(table, "channels")))
    digest = _read(table, _DIGEST, lambda: checked_digest(_text(table, _DIGEST))) if _DIGEST in table.values else b""
    secrets = _read(table, "".join(given), lambda: [secret_bytes(text) for text in _secrets(table, given, environ)])
    return NamedKey(name, channels, digest, secrets=secrets, rate=_rate(table))


def _rate(table: Table) -> float | None:
    rate = table.values.get(_RATE)
    if rate is None or (isinstance(rate, int | float) and not isinstance(rate, bool) and 0 < rate < inf):
        return rate
    raise table.error(f"{_RATE} must be a number above 0, of messages a second", _RATE)


def _secrets(table: Table, given: Sequence[str], environ: Mapping[str, str]) -> Sequence[str]:
    if not given:
        return ()
    source = given[0]
    texts = _texts(table, source) if source == _SECRETS else _lines(table, source, environ).split()
    if not 0 < len(texts) <= MAX_SECRETS:
        raise table.error(f"{source}: {len(texts)} secrets; a key has one, or two while they are rotated", source)
    _read(table, source, require_library)
    return texts


def _lines(table: Table, source: str, environ: Mapping[str, str]) -> str:
    name = _text(table, source)
    if source == _SECRETS_VARIABLE:
        if name in environ:
            return environ[name]
        raise table.error(f"the environment has no variable {name}", source)
    path = table.path.parent / Path(name)
    try:
        return path.read_bytes().removeprefix(BOM_UTF8).decode("ascii")
    except OSError as error:
        raise table.error(f"cannot read {path}: {error.strerror}", source) from None
    except UnicodeDecodeError:
        raise table.error(f"{path} is not ASCII; write one secret in each line", source) from None


def _read(table: Table, key: str, read: Any) -> Any:
    try:
        return read()
    except ValueError as error:
        raise table.error(f"{key}: {error}", key) from None


def _text(table: Table, key: str) -> str:
    value = table.values[key]
    if not isinstance(value, str):
        raise table.error(f'{key} must be a text like "…"', key)
    return value


def _texts(table: Table, key: str) -> list[str]:
    value = table.values[key]
    if isinstance(value, list) and all(isinstance(text, str) for text in value):
        return value
    raise table.error(f'{key} must be a list of texts like ["…"]', key)
