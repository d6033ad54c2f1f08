"""``[[hook]]`` tables of the configuration file: other people's webhooks that the server receives."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .access.hooks import Challenge, Hook
from .access.providers import PROVIDERS
from .config_file import Table
from .errors import RequestError
from .units import BYTES
from .wire.names import NAME, label
from .wire.templates import Template

HOOK_NAME = re.compile(r"[A-Za-z0-9._~-]{1,64}")
_SIGNAL, _BODY = "UPDATED", "body"
_MOST_CHANNELS = 64
_MOST_SECRETS = 4  # each costs a hash of the body

Reader = Callable[[Table, str, Any], Any]


def hooks_from(tables: Iterable[Table]) -> tuple[Hook, ...]:
    """Raises ConfigError, with the line and what to write instead."""
    hooks: dict[str, Hook] = {}
    for table in tables:
        hook = _hook(table)
        if hook.name in hooks:
            raise table.error(
                f"a hook {hook.name!r} is in line {hooks[hook.name].line} already; use another name", "name"
            )
        hooks[hook.name] = hook
    return tuple(hooks.values())


def _hook(table: Table) -> Hook:
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
        tuple([_key(table, provider.key, secret) for secret in _secrets(table)]),
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


def _secrets(table: Table) -> Sequence[str]:
    given = [key for key in _SECRETS if key in table.values]
    if len(given) != 1:
        raise table.error("a hook needs either secrets or secrets-file; pushcompat hooks add creates a whole table")
    value = table.values[given[0]]
    if given[0] == "secrets-file":
        return _in_file(table, value)
    secrets = value if isinstance(value, list) else [value]
    if not all(isinstance(secret, str) for secret in secrets):
        raise table.error("secrets must be a list of texts", "secrets")
    return _counted(table, secrets, "secrets")


def _in_file(table: Table, value: Any) -> Sequence[str]:
    """The lines of the file, relative to the configuration's."""
    path = table.path.parent / str(value)
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise table.error(f"cannot read secrets-file {path}: {reason}", "secrets-file") from None
    return _counted(table, [line.strip() for line in lines if line.strip()], "secrets-file")


def _counted(table: Table, secrets: Sequence[str], key: str) -> Sequence[str]:
    if not 0 < len(secrets) <= _MOST_SECRETS:
        raise table.error(f"{key}: a hook has 1 to {_MOST_SECRETS} secrets, one in each line of a file", key)
    return secrets


def _key(table: Table, key: Callable[[str], bytes], secret: str) -> bytes:
    try:
        return key(secret)
    except ValueError as error:
        where = "secrets" if "secrets" in table.values else "secrets-file"
        raise table.error(f"{where}: {error}", where) from None


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
_SECRETS = ("secrets", "secrets-file")
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
KEYS = (*_NEEDED, *_SECRETS, *_READERS)
