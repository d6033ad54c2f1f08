"""``[[hook]]`` tables of the configuration file: other people's webhooks that the server receives."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .access.hooks import Challenge, Hook
from .access.providers import PROVIDERS
from .config_file import Table
from .errors import RequestError
from .units import BYTES
from .wire.names import NAME, label
from .wire.templates import Template

HOOK_NAME = re.compile(r"[A-Za-z0-9._~-]{1,64}")
_SECRETS, _SECRETS_FILE, _SECRETS_VARIABLE = _SOURCES = ("secrets", "secrets-file", "secrets-env")
_SIGNAL, _BODY = "UPDATED", "body"
_MOST_CHANNELS = 64
_MOST_SECRETS = 4  # each costs a hash of the body

Reader = Callable[[Table, str, Any], Any]


def hooks_from(tables: Iterable[Table], environ: Mapping[str, str] = os.environ) -> tuple[Hook, ...]:
    """Raises ConfigError, with the line and what to write instead."""
    hooks: dict[str, Hook] = {}
    for table in tables:
        hook = _hook(table, environ)
        if hook.name in hooks:
            raise table.error(
                f"a hook {hook.name!r} is in line {hooks[hook.name].line} already; use another name", "name"
            )
        hooks[hook.name] = hook
    return tuple(hooks.values())


def _hook(table: Table, environ: Mapping[str, str]) -> Hook:
    table.check_keys(KEYS)
    for key, example in _NEEDED.items():
        if key not in table.values:
            raise table.error(f"[[hook]] without {key}; write for example {key} = {example}")
    provider = PROVIDERS.get(str(table.values["verify"]))
    if provider is None:
        raise table.error(f"verify must be one of {', '.join(PROVIDERS)}", "verify")
    values = {
        name: read(table, key, table.values[key]) for key, (name, read) in _READERS.items() if key in table.values
    }
    hook = Hook(
        _name(table, table.values["name"]),
        _channels(table, table.values["channels"]),
        provider,
        tuple([_key(table, provider.key, secret) for secret in _secrets(table, environ)]),
        line=table.line,
        **values,
    )
    _check_together(table, hook)
    return hook


def _check_together(table: Table, hook: Hook) -> None:
    if hook.template is not None and "publish" in table.values:
        raise table.error("publish and template are mutually exclusive; remove one of them", "publish")
    if hook.allows_get and not hook.has_token:
        raise table.error(
            'allow-get needs verify = "token", because a GET has no body that could be signed', "allow-get"
        )
    if (hook.challenge is Challenge.META) != bool(hook.verify_token):
        raise table.error(
            'challenge = "meta" and verify-token belong together; Meta sends the token that you enter there'
        )


def _name(table: Table, value: Any) -> str:
    if not isinstance(value, str) or not HOOK_NAME.fullmatch(value) or value in (".", ".."):
        raise table.error("name must be 1 to 64 characters of A-Z a-z 0-9 . _ ~ -; it becomes part of the URL", "name")
    return value


def _channels(table: Table, value: Any) -> tuple[str, ...]:
    names = value if isinstance(value, list) else [value]
    if not 0 < len(names) <= _MOST_CHANNELS or not all(
        isinstance(name, str) and NAME.fullmatch(name) for name in names
    ):
        example = 'channels = ["orders"]'
        raise table.error(
            f"channels must be names of channels, for example {example}; patterns cannot be used", "channels"
        )
    return tuple(dict.fromkeys(names))


def _secrets(table: Table, environ: Mapping[str, str]) -> Sequence[str]:
    source = _source(table)
    value = table.values[source]
    secrets = value if isinstance(value, list) and source == _SECRETS else [value]
    if not all(isinstance(secret, str) for secret in secrets):
        raise table.error(f"{source} must be a text, and secrets may be a list of texts", source)
    if source != _SECRETS:
        secrets = [line.strip() for line in _lines(table, source, value, environ).split("\n") if line.strip()]
    if not 0 < len(secrets) <= _MOST_SECRETS:
        raise table.error(f"{source}: a hook has 1 to {_MOST_SECRETS} secrets, one in each line", source)
    return secrets


def _source(table: Table) -> str:
    given = [source for source in _SOURCES if source in table.values]
    if len(given) != 1:
        raise table.error(
            "a hook needs either secrets, secrets-file or secrets-env; pushcompat hooks add creates a whole table"
        )
    return given[0]


def _lines(table: Table, source: str, name: str, environ: Mapping[str, str]) -> str:
    """Of the environment variable, or of the file, relative to the configuration's."""
    if source == _SECRETS_VARIABLE:
        if name in environ:
            return environ[name]
        raise table.error(f"the environment has no variable {name}", source)
    path = table.path.parent / name
    try:
        return path.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise table.error(f"cannot read {source} {path}: {reason}", source) from None


def _key(table: Table, key: Callable[[str], bytes], secret: str) -> bytes:
    try:
        return key(secret)
    except ValueError as error:
        source = _source(table)
        raise table.error(f"{source}: {error}", source) from None


def _publish(table: Table, key: str, value: Any) -> bool:
    if value not in (_SIGNAL, _BODY):
        raise table.error(f'publish must be "{_SIGNAL}" or "{_BODY}"; for anything else use template', key)
    return bool(value == _BODY)


def _template(table: Table, key: str, value: Any) -> Template:
    if not isinstance(value, str) or not value:
        raise table.error('template must be a text like "order {order.id} is {action}"', key)
    try:
        return Template(value)
    except ValueError as error:
        raise table.error(str(error), key) from None


def _label(table: Table, key: str, value: Any) -> str:
    try:
        return label(key.removeprefix("message-"), str(value))
    except RequestError as error:
        raise table.error(error.detail, key) from None


def _size(table: Table, key: str, value: Any) -> int:
    try:
        return int(BYTES.parse(value, 1))
    except ValueError as error:
        raise table.error(f"{key}: {error}", key) from None


def _boolean(table: Table, key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise table.error(f"{key} must be true or false", key)
    return value


def _challenge(table: Table, key: str, value: Any) -> Challenge:
    try:
        return Challenge(value)
    except ValueError:
        raise table.error('challenge must be "meta" or "websub"', key) from None


def _verify_token(table: Table, key: str, value: Any) -> bytes:
    if not isinstance(value, str) or not value:
        raise table.error("verify-token must be the text that is entered at Meta", key)
    return value.encode()


_NEEDED = {"name": '"orders"', "channels": '["orders"]', "verify": '"github"'}
_READERS: dict[str, tuple[str, Reader]] = {
    "publish": ("publishes_body", _publish),
    "template": ("template", _template),
    "message-key": ("key", _label),
    "message-type": ("type", _label),
    "body-limit": ("body_bytes", _size),
    "allow-get": ("allows_get", _boolean),
    "challenge": ("challenge", _challenge),
    "verify-token": ("verify_token", _verify_token),
}
KEYS = (*_NEEDED, *_SOURCES, *_READERS)
