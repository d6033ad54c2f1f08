"""New ``[[hook]]`` tables, for ``pushcompat hooks add``: checked as at a start, and appended to the configuration."""

from __future__ import annotations

import base64
import json
import os
import secrets
import tomllib
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from .access.hooks import Hook
from .config_file import Table
from .errors import ConfigError
from .hook_tables import hooks_from


def _random_standard() -> str:
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


def _random_text() -> str:
    return secrets.token_hex(32)


# Of the providers that take a secret that was made here
_NEW_SECRET: Mapping[str, Callable[[], str]] = {
    "github": _random_text,
    "gitlab": _random_text,
    "standard": _random_standard,
    "token": lambda: secrets.token_urlsafe(32),
}
_FOUND_AT = {
    "stripe": "Stripe shows it at the endpoint, as signing secret (whsec_…)",
    "slack": "Slack shows it in the app's Basic Information, as Signing Secret",
    "meta": "it is the App Secret in the app's basic settings",
    "shopify": "it is the app's client secret, or is shown below the list of webhooks in the shop's settings",
}
_ENTER = {
    "meta": "the app's Webhooks: Callback URL and Verify token",
    "github": "Settings, Webhooks, Add webhook: Payload URL, content type application/json, Secret",
    "stripe": "Workbench, Webhooks, Add destination: Endpoint URL",
    "slack": "the app's Event Subscriptions: Request URL",
    "standard": "the sender's settings: URL and signing secret",
    "shopify": "the app's webhook subscriptions, or Settings, Notifications, Webhooks: URL, format JSON",
    "gitlab": "Settings, Webhooks, Add new webhook: URL, Secret token",
    "token": "the sender's settings: the URL, which is a secret as a whole",
}


class NewHook:
    """A table that is not in the file yet. ``values``: its keys and values, without secrets if they are to be made.
    ``tables``: the other hooks of the file. Raises ConfigError.
    """

    def __init__(self, path: Path, values: Mapping[str, Any], tables: Sequence[Table]) -> None:
        self.path = path
        self.values = {key: value for key, value in values.items() if value not in (None, False, ())}
        self.sender = str(values.get("verify"))
        if values.get("challenge") == "meta":
            self.sender = "meta"
            self.values["verify-token"] = secrets.token_urlsafe(16)
        self.secret = "" if "secrets-file" in self.values else self._new_secret(self.sender)
        line = 1 + (path.read_text("utf-8").count("\n") if path.exists() else 0)
        self.hook = hooks_from([*tables, Table("hook", path, line, self.values)])[-1]

    def _new_secret(self, sender: str) -> str:
        """Made here, and kept as its hash if that suffices."""
        if sender in _FOUND_AT:
            raise ConfigError(
                f"the secret is made by {sender.capitalize()}: {_FOUND_AT[sender]}; write it into a file, and add"
                " --secrets-file PATH"
            )
        if sender not in _NEW_SECRET:
            return ""  # the table is refused as it is
        secret = _NEW_SECRET[sender]()
        hashed = f"sha256:{sha256(secret.encode()).hexdigest()}"
        self.values["secrets"] = [hashed if sender == "token" else secret]
        return secret

    def table(self) -> str:
        """Raises ConfigError."""
        lines = [f"{key} = {_toml(value)}" for key, value in self.values.items()]
        text = "\n".join(["[[hook]]", *lines, ""])
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise ConfigError("the arguments are not valid UTF-8")
        return text

    def notes(self, url: str) -> list[str]:
        """What to enter at the sender. ``url``: of the server, with its prefix."""
        end = f"/{self.secret}" if self.hook.has_token and self.secret else ""
        notes = [f"URL: {url.rstrip('/')}/hooks/{self.hook.name}{end}"]
        if self.secret and not self.hook.has_token:
            notes.append(f"Secret: {self.secret}")
        if self.hook.verify_token:
            notes.append(f"Verify token: {self.hook.verify_token.decode()}")
        return [*notes, f"Enter it in {_ENTER[self.sender]}."]

    def append(self) -> str:
        """Returns a warning, or nothing. A new file is readable by its owner alone. Raises ConfigError."""
        try:
            before = self.path.read_text("utf-8") if self.path.exists() else ""
            addition = ("" if not before or before.endswith("\n") else "\n") + "\n" * bool(before) + self.table()
            tomllib.loads(before + addition)
            with open(os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
                file.write(addition)
                mode = os.fstat(file.fileno()).st_mode
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"cannot add a [[hook]] to {self.path}: {error}") from error
        except OSError as error:
            raise ConfigError(f"cannot write {self.path}: {error.strerror}") from error
        if self.secret and not self.hook.has_token and mode & 0o077:
            return f"{self.path} contains a secret, and other users can read it: chmod 600 {self.path}"
        return ""


def described(hook: Hook) -> str:
    """The hook in a line, without its secrets."""
    what = "its body" if hook.publishes_body else "UPDATED" if hook.template is None else repr(hook.template.text)
    get = ", also with GET" if hook.allows_get else ""
    end = "/TOKEN" if hook.has_token else ""
    channels = ", ".join(hook.channels)
    return f"/hooks/{hook.name}{end}: verified as {hook.provider.name}{get}, publishes {what} to {channels}"


def _toml(value: Any) -> str:
    """A JSON string is one of TOML, except for characters that only TOML wants escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
