"""The server's options as a table: name, group, unit, default, and the sentence that explains it.

A parameter that is named like a field of ``Limits`` becomes that field, and ``retention_x`` becomes ``Retention.x``: a
new limit needs one line here, and its default stays in ``limits``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from .config import STORES, read_toml
from .limits import Limits, Retention
from .logs import FORMATS, LEVELS
from .platforms import PLATFORMS

Groups = Mapping[str, Sequence["Setting"]]  # options by the heading they stand under in --help

_RETENTION = "retention_"  # what the parameters of Retention's fields begin with
_CONFIG_PATH = "pushcompat.config"  # where click's context keeps the path of the file
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")


@dataclass(frozen=True, slots=True)
class Unit:
    """What an option counts in. ``factors`` are by suffix, in lower case; ``shown`` those that a default is shown in,
    the largest first.
    """

    metavar: str
    factors: Mapping[str, float]
    shown: Mapping[str, float]
    example: str
    whole: bool = False

    def parse(self, value: object, least: float) -> float | int:
        match = _QUANTITY.fullmatch(str(value).strip().lower())
        if match is None or match[2] not in self.factors:
            raise click.BadParameter(f"{str(value)!r} is no {self.metavar.lower()}; write it like {self.example}.")
        quantity = float(match[1]) * self.factors[match[2]]
        if quantity < least:
            raise click.BadParameter(f"{value} is too little; at least {self.format(least)}.")
        return int(quantity) if self.whole else quantity

    def format(self, quantity: float) -> str:
        for suffix, factor in self.shown.items():
            if quantity >= factor and quantity % factor == 0:
                return f"{quantity / factor:g}{suffix}"
        return f"{quantity:g}"


SECONDS = Unit(
    "DURATION",
    {"ms": 0.001, "": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400},
    {"h": 3600, "m": 60, "s": 1},
    "90s, 5m, 1h or 90 (seconds)",
)
BYTES = Unit(
    "SIZE",
    {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3}
    # A bare k is 1024, as to nginx, dd and Docker
    | {"k": 1024, "kib": 1024, "m": 1024**2, "mib": 1024**2, "g": 1024**3, "gib": 1024**3},
    {"GiB": 1024**3, "MiB": 1024**2, "KiB": 1024},
    "64KiB, 1MiB or 65536 (bytes)",
    whole=True,
)
COUNT = Unit("COUNT", {"": 1}, {}, "100", whole=True)
RATE = Unit("RATE", {"": 1}, {}, "30 or 0.5 (a second)")


def environment_name(flag: str) -> str:
    return "PUSHCOMPAT_" + flag.upper().replace("-", "_")


class Setting(click.Option):
    """An option that ``PUSHCOMPAT_<FLAG>`` sets too, and that says in an error where its wrong value came from.

    ``envvar=None``: one for a single call, which the environment does not set.
    """

    def __init__(self, flag: str, help: str, *, param: str | None = None, **attributes: Any) -> None:
        declarations = [f"--{flag}", param] if param else [f"--{flag}"]
        attributes.setdefault("envvar", environment_name(flag))
        super().__init__(declarations, help=help, **attributes)
        self.flag = flag

    def get_error_hint(self, ctx: click.Context | None) -> str:
        source = ctx.get_parameter_source(self.name) if ctx and self.name else None
        if source is ParameterSource.ENVIRONMENT:
            return environment_name(self.flag)
        if source is ParameterSource.DEFAULT_MAP and ctx:
            return f"{self.flag} in {ctx.meta.get(_CONFIG_PATH, '--platform')}"
        return f"--{self.flag}"

    def value_from_envvar(self, ctx: click.Context) -> Any:
        value = self.resolve_envvar_value(ctx)
        return value.replace(",", " ").split() if value and self.multiple else value


def _port(value: str | int) -> int:
    if str(value).isdecimal() and int(value) <= 65535:
        return int(value)
    raise click.BadParameter(f"{value!r} is no port; that is a number from 0 (any free one) to 65535.")


def _measure(flag: str, unit: Unit, default: Any, least: float, help: str, **attributes: Any) -> Setting:
    """An option that is a number with a unit. Where there is no default, ``none`` can be given too."""

    def convert(value: object) -> float | int | None:
        return None if value == "none" and default is None else unit.parse(value, least)

    shown = "none" if default is None else unit.format(default)
    return Setting(
        flag, f"{help} [default: {shown}]", type=convert, metavar=unit.metavar, default=default, **attributes
    )


def _limit(flag: str, unit: Unit, param: str, least: float, help: str) -> Setting:
    """An option that sets one field of the limits, and has its default from there."""
    limits = Limits()
    owner = limits.retention if param.startswith(_RETENTION) else limits
    return _measure(flag, unit, getattr(owner, param.removeprefix(_RETENTION)), least, help, param=param)


def limits_from(values: dict[str, Any]) -> Limits:
    """Takes the limits' parameters out of ``values``; a limit without an option keeps its default."""
    names = [field.name for field in fields(Retention) if _RETENTION + field.name in values]
    retention = {name: values.pop(_RETENTION + name) for name in names}
    own = {field.name: values.pop(field.name) for field in fields(Limits) if field.name in values}
    return Limits(**own, retention=Retention(**retention))


def _take_config(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    ctx.meta[_CONFIG_PATH] = path
    known = [option for option in ctx.command.params if isinstance(option, Setting)]
    names = {option.flag: option.name for option in known}
    settings = read_toml(path, names.keys() - {"config"}, {option.flag for option in known if option.is_flag})
    ctx.default_map = {**(ctx.default_map or {}), **{str(names[flag]): settings[flag] for flag in settings}}


def _take_platform(ctx: click.Context, param: click.Parameter, name: str | None) -> None:
    if name is None:
        return
    platform = PLATFORMS[name]
    preset = {"request_cap_s": platform.request_cap_s, "heartbeat_s": platform.heartbeat_s}
    ctx.default_map = {
        **preset,
        **(ctx.default_map or {}),
    }  # whichever is read first, the file beats the preset


_FORMATS = click.Choice(FORMATS)
_LEVELS = click.Choice(LEVELS)
_PATH: dict[str, Any] = {"type": click.Path(path_type=Path), "metavar": "PATH"}

# Also those of the commands that talk to a server
PUBLISH_KEY = (
    Setting(
        "publish-key",
        "The publish key itself. Other users see it in ps; the file or the environment is better.",
        metavar="KEY",
    ),
    Setting("publish-key-file", "A file that holds the publish key.", **_PATH),
    Setting(
        "state-dir",
        "Where the publish key is made at the first start, and kept. "
        "[default: $XDG_STATE_HOME/pushcompat or ~/.local/state/pushcompat]",
        **_PATH,
    ),
)

_LISTENING = (
    Setting("host", "Address to listen on; 0.0.0.0 or :: for all.", default="127.0.0.1", show_default=True),
    Setting(
        "port",
        "Port to listen on; 0 for any free one.",
        type=_port,
        metavar="PORT",
        default=8888,
        show_default=True,
    ),
    Setting("unix-socket", "Listen on this Unix socket instead of host and port.", **_PATH),
    Setting("prefix", "Path that everything is under, like /push.", default="", metavar="PATH"),
)

_ACCESS = (
    *PUBLISH_KEY,
    Setting(
        "cors-origin",
        "Origin whose pages may connect, like https://example.com; * for all. Can be given several times. "
        "[default: pages of this server only]",
        param="cors_origins",
        multiple=True,
        metavar="ORIGIN",
    ),
)

_WINDOWS = (
    Setting(
        "platform",
        f"Sets request cap and heartbeat for what stands in front: {', '.join(PLATFORMS)}.",
        type=click.Choice(list(PLATFORMS)),
        metavar="NAME",
        is_eager=True,
        callback=_take_platform,
        expose_value=False,
    ),
    _limit("request-cap", SECONDS, "request_cap_s", 0, "No request outlives this; more than 6s."),
    _limit("poll-window", SECONDS, "poll_window_s", 1, "How long a poll is held when nothing comes."),
    _limit("heartbeat", SECONDS, "heartbeat_s", 1, "A stream says something at least this often."),
    _limit("poll-grace", SECONDS, "poll_grace_s", 0, "How long one between two polls is still a subscriber."),
    _limit("refetch-rate", RATE, "refetch_rate", 0.001, "Refetches a second that your application can serve."),
)

_HISTORY = (
    Setting("store", "Where the log is kept.", default=STORES[0], show_default=True),
    _limit("history", COUNT, "retention_count", 1, "Messages kept per channel."),
    _limit("history-age", SECONDS, "retention_age_s", 1, "How long a message is kept."),
    _limit("history-bytes", BYTES, "retention_bytes", 1, "Payload kept, all channels together."),
    _limit("idempotency-window", SECONDS, "retention_idempotency_s", 0, "How long a repeated publish is known."),
    _limit(
        "idempotency-bytes", BYTES, "retention_idempotency_bytes", 1024, "Memory for the keys of repeated publishes."
    ),
)

_LIMITS = (
    _limit("message-limit", BYTES, "message_bytes", 1, "Largest message."),
    _limit("batch-limit", BYTES, "batch_bytes", 1, "Largest batch."),
    _limit("batch-messages", COUNT, "batch_messages", 1, "Most messages in a batch."),
    _limit("channels-per-request", COUNT, "names", 1, "Most channels in one request."),
    _limit("websocket-message-limit", BYTES, "websocket_message_bytes", 125, "Largest message from a client."),
    _limit("head-limit", BYTES, "head_bytes", 1024, "Largest request head."),
    _limit("head-timeout", SECONDS, "head_s", 1, "How long a request's head may take to come."),
    _limit("body-timeout", SECONDS, "body_s", 1, "How long a request's body may take to come."),
    _limit("idle-timeout", SECONDS, "idle_s", 1, "How long a connection without a request is kept."),
    _limit("stall-timeout", SECONDS, "stall_s", 1, "A reader that takes nothing for this long is cut off."),
    _limit("close-timeout", SECONDS, "close_s", 1, "How long a client may take to answer a Close."),
    _limit("drain-time", SECONDS, "drain_s", 0, "How long a stopping server takes to let its clients go."),
    _limit("publish-wait", SECONDS, "publish_wait_s", 0, "How long a publish waits for a crowded channel."),
    _limit("send-limit", BYTES, "send_bytes", 1024, "Most that one send takes from the log."),
    _limit("unsent-limit", BYTES, "unsent_bytes", 1024, "Most that the kernel holds unsent for a connection."),
    _limit("websocket-input-rate", BYTES, "stream_input_bytes", 125, "Bytes read from one WebSocket in a second."),
    _limit("max-connections", COUNT, "max_connections", 1, "Connections beyond which subscribers are refused."),
    _limit("unsent-budget", BYTES, "unsent_budget_bytes", 1024, "Most that all connections together have unsent."),
    _limit("visits", COUNT, "visits", 1, "Subscribers served before anything else gets a turn."),
)

_OBSERVATION = (
    Setting("log-format", "How log lines look.", type=_FORMATS, default="text", show_default=True),
    Setting("log-level", "The least that is logged.", type=_LEVELS, default="info", show_default=True),
)

_PAGES = (
    Setting("demo", "Serve a chat at /demo/chat, to try it all out. Anyone who reaches it can write.", is_flag=True),
)

_CONFIGURATION = (
    Setting(
        "config",
        "TOML file with any of these options by name, like request-cap = 30.",
        is_eager=True,
        callback=_take_config,
        expose_value=False,
        **_PATH,
    ),
)

SERVER: Groups = {
    "Listening": _LISTENING,
    "Who may do what": _ACCESS,
    "Platform and windows": _WINDOWS,
    "History": _HISTORY,
    "Limits": _LIMITS,
    "Pages": _PAGES,
    "Observation": _OBSERVATION,
    "Configuration": _CONFIGURATION,
}


# Of the commands that talk to a server

_TRANSPORTS = click.Choice(["auto", "websocket", "eventsource", "longpoll"])

_URL = Setting("url", "The server. [default: http://127.0.0.1:8888]", metavar="URL")

PUBLISH: Groups = {
    "Message": (
        Setting("json", "DATA is JSON, not text.", param="is_json", is_flag=True, envvar=None),
        Setting("key", "Of messages with the same key only the latest is kept.", metavar="KEY", envvar=None),
        Setting("type", "What kind of message it is.", param="kind", metavar="TYPE", envvar=None),
        _measure("ttl", SECONDS, None, 0, "How long the message is of use.", envvar=None),
        Setting("idempotency-key", "Of publishes with the same one the first counts.", metavar="KEY", envvar=None),
    ),
    "Server": (
        _URL,
        *PUBLISH_KEY,
        _measure("timeout", SECONDS, 10.0, 0.001, "How long all tries may take together.", envvar=None),
        Setting("retries", "How often to try again.", type=click.IntRange(0), default=3, show_default=True,
                metavar="COUNT", envvar=None),
    ),
}  # fmt: skip

LISTEN: Groups = {
    "What": (
        Setting("cursor", "Go on after this one, the id of the last message seen.", metavar="CURSOR", envvar=None),
        Setting("earliest", "Begin with all that the server has kept.", is_flag=True, envvar=None),
        _measure("count", COUNT, None, 1, "Stop after this many messages.", envvar=None),
        _measure("timeout", SECONDS, None, 0.001, "Stop after this time.", envvar=None),
    ),
    "Server": (
        _URL,
        Setting("token", "The subscriber's token. Other users see it in ps; the environment is better.",
                metavar="TOKEN"),
        Setting("transport", "websocket, eventsource, longpoll, or auto: the first of these that works.",
                type=_TRANSPORTS, default="auto", show_default=True, metavar="NAME",
                envvar=None),
        Setting("verbose", "Say on stderr what the connection does.", is_flag=True, envvar=None),
    ),
}  # fmt: skip
