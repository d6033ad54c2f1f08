"""The options of the commands besides the server: publish, listen, keys, revoke, token, hooks."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from .access.providers import PROVIDERS
from .config_file import Table, read_config
from .environment import unknown
from .options import PUBLISH_KEY, SERVER
from .settings import (
    IGNORED,
    NOT_IN_FILES,
    PATH,
    EnvironmentSetting,
    Groups,
    Setting,
    always,
    measure,
)
from .units import COUNT, SECONDS


def ignored_variables(ctx: click.Context) -> dict[str, str]:
    """The PUSHCOMPAT_… variables that set nothing, and why."""
    known = {str(setting.envvar) for groups in COMMANDS for group in groups.values() for setting in group}
    services = dict.fromkeys(ctx.meta.get(IGNORED, ()), "Kubernetes has set it for a Service of this name")
    return services | unknown(os.environ, known)


# Of the commands that talk to a server

_TRANSPORTS = click.Choice(["auto", "websocket", "eventsource", "longpoll"])

_URL = Setting("url", "URL of the server. [default: http://127.0.0.1:8888]", metavar="URL")

PUBLISH: Groups = {
    "Message": (
        Setting("json", "DATA is JSON, not text.", param="is_json", is_flag=True, envvar=None),
        Setting("key", "Message key. Only the latest message with a key is retained.", metavar="KEY", envvar=None),
        Setting("type", "Message type (the event's name in a stream).", param="kind", metavar="TYPE", envvar=None),
        measure("ttl", SECONDS, None, 0, "Delete the message from history after this time.", envvar=None),
        Setting("idempotency-key", "Publishes with one key are stored once. [default: random]", metavar="KEY",
                envvar=None),
    ),
    "Server": (
        _URL,
        *PUBLISH_KEY,
        measure("timeout", SECONDS, 10.0, 0.001, "Total time limit, retries included.", envvar=None),
    ),
}  # fmt: skip

_ROOT = (
    _URL,
    *PUBLISH_KEY,
    measure("timeout", SECONDS, 10.0, 0.001, "Total time limit.", envvar=None),
)

KEY_ADD: Groups = {
    "Key": (
        Setting("channel", "Name or pattern of channels that the key may publish to, for example orders.*. "
                "Repeatable.", param="channels", multiple=True, required=True, metavar="PATTERN", envvar=None),
    ),
    "Server": _ROOT,
}  # fmt: skip

KEYS: Groups = {"Server": _ROOT}

REVOKE: Groups = {
    "Who": (
        Setting("sub", "Name of the subscriber, as in its tokens.", metavar="NAME", envvar=None),
        Setting("jti", "Id of one token.", metavar="ID", envvar=None),
        Setting("channel", "Name of a channel.", metavar="NAME", envvar=None),
        measure("expires", SECONDS, None, 0.001, "For how long. None: as long as a token can be valid "
                 "(--token-max-age).", param="expires_s", envvar=None),
    ),
    "Server": _ROOT,
}  # fmt: skip

TOKEN: Groups = {
    "Claims": (
        Setting("sub", "Name of the subscriber.", metavar="NAME", envvar=None),
        Setting("channel", "Name or pattern of channels. Repeatable.", param="channels", multiple=True,
                metavar="PATTERN", envvar=None),
        measure("expires", SECONDS, 3600.0, 1, "How long the token is valid.", param="expires_s", envvar=None),
        Setting("jti", "Id of the token. [default: random]", metavar="ID", envvar=None),
        Setting("token-audience", "Audience (aud). Repeatable.", param="audience", multiple=True, metavar="NAME"),
        Setting("token-issuer", "Issuer (iss).", param="issuer", metavar="NAME"),
    ),
    "Key": (
        Setting("token-key-file", "File with a secret or a PEM private key. [default: PUSHCOMPAT_TOKEN_KEY]",
                param="key_file", **PATH),
        EnvironmentSetting("token-key", "A secret for HS256.", param="key", metavar="SECRET"),
    ),
}  # fmt: skip

LISTEN: Groups = {
    "What": (
        Setting("cursor", "Resume after this cursor, the id of the last message.", metavar="CURSOR", envvar=None),
        Setting("earliest", "Start at the oldest retained message.", is_flag=True, envvar=None),
        measure("count", COUNT, None, 1, "Stop after this many messages.", envvar=None),
        measure("timeout", SECONDS, None, 0.001, "Stop after this time.", envvar=None),
    ),
    "Server": (
        _URL,
        Setting("token", "Subscriber token. Visible to other users in ps; prefer the environment.",
                metavar="TOKEN", is_secret=always),
        Setting("token-file", "File with the subscriber token, read again when the token has expired.", **PATH),
        Setting("transport", "websocket, eventsource or longpoll; auto tries them in this order.",
                type=_TRANSPORTS, default="auto", show_default=True, metavar="NAME",
                envvar=None),
        Setting("verbose", "Print connection events on stderr.", is_flag=True, envvar=None),
    ),
}  # fmt: skip


# Of the commands about webhooks

_HOOK_FILE = Setting("config", "Configuration file (TOML) of the server.", param="path", **PATH)

HOOK_ADD: Groups = {
    "What is published": (
        Setting("channel", "Channel to publish to. Repeatable.", param="channels", multiple=True, required=True,
                metavar="NAME", envvar=None),
        Setting("publish", "UPDATED or body. [default: UPDATED]", metavar="WHAT", envvar=None),
        Setting("template", "Text with fields of the request: \"order {order.id} is {action}\".", metavar="TEXT",
                envvar=None),
        Setting("message-key", "Message key. Only the latest message with a key is retained.", metavar="KEY",
                envvar=None),
        Setting("message-type", "Message type (the event's name in a stream).", metavar="TYPE", envvar=None),
    ),
    "What is accepted": (
        Setting("verify", f"How requests are verified: {', '.join(PROVIDERS)}.", required=True, metavar="HOW",
                envvar=None),
        Setting("secrets-file", "File with the secret, or with several, one in each line. [default: a new secret]",
                envvar=None, **PATH),
        Setting("body-limit", "Maximum size of the body. [default: --hook-body-limit]", metavar="SIZE", envvar=None),
        Setting("allow-get", "Accept GET too: then link previews and scanners publish as well.", is_flag=True,
                envvar=None),
        Setting("challenge", "Answer the GET with which meta or websub verify the URL.", metavar="WHOSE", envvar=None),
    ),
    "Where": (
        _HOOK_FILE,
        Setting("url", "URL of the server as senders reach it, with its prefix.", metavar="URL"),
    ),
}  # fmt: skip

HOOK_LIST: Groups = {"Where": (_HOOK_FILE,)}


def read_server_config(path: Path) -> tuple[dict[str, str | list[str]], Sequence[Table]]:
    """The options and the tables of a server's configuration file. Raises ConfigError."""
    known = [setting for settings in SERVER.values() for setting in settings]
    switches = {setting.flag for setting in known if setting.is_flag}
    lists = {setting.flag for setting in known if setting.multiple}
    return read_config(path, {setting.flag for setting in known} - NOT_IN_FILES, switches, lists)


COMMANDS = (SERVER, PUBLISH, LISTEN, KEY_ADD, REVOKE, TOKEN, HOOK_ADD)  # all that have options of their own
