"""The server's options as a table: name, group, unit, default, and help text.

A parameter that is named like a field of ``Limits`` becomes that field, and ``retention_x`` becomes ``Retention.x``: a
new limit needs one line here, and its default stays in ``limits``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from . import address, cores
from .access.providers import PROVIDERS
from .access.rules import Subscribe
from .access.token_settings import DEFAULTS, TokenSettings
from .address import Address
from .config_file import Table, read_config
from .environment import PREFIX, SERVICE_LINK, unknown
from .limits import Limits, Retention
from .logs import FORMATS, LEVELS
from .platforms import PLATFORMS
from .units import BYTES, COUNT, RATE, SECONDS, Unit

Groups = Mapping[str, Sequence["Setting"]]  # options by their heading in --help

_RETENTION = "retention_"  # prefix of the parameters for Retention's fields
_CONFIG_PATH = "pushcompat.config"  # key in click's context for the path of the file
_TABLES = "pushcompat.tables"  # for its tables
_IGNORED = "pushcompat.ignored"  # for the names of ignored variables
_PLATFORM = "pushcompat.platform"  # for the name of the platform
_PRESET = "pushcompat.preset"  # and for what --platform sets: by parameter, the name of its source
_WORKERS_PER_CORE = 16  # more would only use memory, and CPU time to start them


def environment_name(flag: str) -> str:
    return PREFIX + flag.upper().replace("-", "_")


class Setting(click.Option):
    """An option that ``PUSHCOMPAT_<FLAG>`` sets too, and whose error messages name the source of the value.

    ``envvar=None``: no environment variable. ``is_secret``: whether a value must not be in the list of processes.
    ``unit``: of a number.
    """

    def __init__(
        self,
        flag: str,
        help: str,
        *,
        param: str | None = None,
        is_secret: Callable[[str], bool] = lambda _: False,
        unit: Unit | None = None,
        **attributes: Any,
    ) -> None:
        declarations = [f"--{flag}", param] if param else [f"--{flag}"]
        attributes.setdefault("envvar", environment_name(flag))
        super().__init__(declarations, help=help, **attributes)
        self.flag = flag
        self.is_secret = is_secret
        self.unit = unit

    def source(self, ctx: click.Context) -> str:
        """Where the value comes from: the flag, the variable, the file, ``--platform NAME``, or ``default``."""
        kind = ctx.get_parameter_source(str(self.name))
        if kind is ParameterSource.DEFAULT_MAP:
            return str(ctx.meta.get(_PRESET, {}).get(self.name) or ctx.meta.get(_CONFIG_PATH))
        named = {ParameterSource.COMMANDLINE: f"--{self.flag}", ParameterSource.ENVIRONMENT: str(self.envvar)}
        return named.get(kind, "default") if kind else "default"

    def get_error_hint(self, ctx: click.Context | None) -> str:
        source = ctx.get_parameter_source(self.name) if ctx and self.name else None
        if source is ParameterSource.ENVIRONMENT:
            return environment_name(self.flag)
        if source is ParameterSource.DEFAULT_MAP and ctx:
            where = self.source(ctx)
            return where if where.startswith("PORT") else f"{self.flag} in {where}"
        return f"--{self.flag}"

    def value_from_envvar(self, ctx: click.Context) -> Any:
        value = self.resolve_envvar_value(ctx)
        return value.replace(",", " ").split() if value and self.multiple else value


class PortSetting(Setting):
    """The port. If $PUSHCOMPAT_PORT is set by Kubernetes for a Service named ``pushcompat``, it is ignored."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        value = super().resolve_envvar_value(ctx)
        # Kubernetes sets NAME_PORT=tcp://10.0.0.1:8888 for a Service of that name, in each container of its namespace
        if value is None or not SERVICE_LINK.match(value):
            return value
        ctx.meta.setdefault(_IGNORED, set()).add(environment_name(self.flag))
        return None


class EnvironmentSetting(Setting):
    """A secret, from the environment or the configuration file only: arguments are visible to other users in ps."""

    def __init__(self, flag: str, help: str, **attributes: Any) -> None:
        super().__init__(flag, help, hidden=True, **attributes)

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        if self.name and ctx.get_parameter_source(self.name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"--{self.flag} would be visible to other users in ps; set {environment_name(self.flag)}, or use"
                f" --{self.flag}-file"
            )
        return super().process_value(ctx, value)


def platform_of(ctx: click.Context) -> str | None:
    name: str | None = ctx.meta.get(_PLATFORM)
    return name


def visible_secrets(ctx: click.Context) -> tuple[str, ...]:
    """The options whose secret was given as an argument, so that other users of the machine see it."""
    given = [option for option in ctx.command.params if isinstance(option, Setting) and option.name in ctx.params]
    return tuple(
        option.flag
        for option in given
        if ctx.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
        and option.is_secret(str(ctx.params[str(option.name)]))
    )


def _always(value: str) -> bool:
    return True


def has_password(url: str) -> bool:
    return "@" in url.partition("://")[2]


def ignored_variables(ctx: click.Context) -> dict[str, str]:
    """The PUSHCOMPAT_… variables that set nothing, and why."""
    known = {str(setting.envvar) for groups in COMMANDS for group in groups.values() for setting in group}
    services = dict.fromkeys(ctx.meta.get(_IGNORED, ()), "Kubernetes has set it for a Service of this name")
    return services | unknown(os.environ, known)


def tables(ctx: click.Context, kind: str) -> Sequence[Table]:
    """The tables of that kind in the configuration file."""
    return [table for table in ctx.meta.get(_TABLES, ()) if table.kind == kind]


def _port(value: str | int) -> int:
    if str(value).isdecimal() and int(value) <= 65535:
        return int(value)
    raise click.BadParameter(f"{value!r} is not a valid port; expected 0 (any free port) to 65535.")


def _mode(value: str | int) -> int:
    text = str(value)
    # A number in TOML may be octal, 0o660, and is decimal here: no such number has both rights of the owner.
    if not re.fullmatch("0?[0-7]{3}", text) or int(text, 8) & 0o600 != 0o600:
        raise click.BadParameter(f"{text!r} is not a valid mode; use three octal digits in quotes, 600 to 777.")
    return int(text, 8)


def _address(value: str | Address) -> Address:
    try:
        return value if isinstance(value, Address) else address.parse(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from None


def _workers(value: str | int) -> int:
    usable = cores.usable()
    if value != "auto" and not str(value).isdecimal():
        raise click.BadParameter(f"{value!r} is not a valid count; expected a number of processes, or auto.")
    try:
        workers = usable if value == "auto" else int(COUNT.parse(value, 1))
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from None
    if workers > _WORKERS_PER_CORE * usable:
        most = f"the maximum is {_WORKERS_PER_CORE * usable}, {_WORKERS_PER_CORE} for each usable core"
        raise click.BadParameter(f"{value} is too many; {most}.")
    return workers


def _measure(flag: str, unit: Unit, default: Any, minimum: float, help: str, **attributes: Any) -> Setting:
    """An option that is a number with a unit. Without a default, ``none`` is a valid value too."""

    def convert(value: object) -> float | int | None:
        if value == "none" and default is None:
            return None
        try:
            return unit.parse(value, minimum)
        except ValueError as error:
            raise click.BadParameter(f"{error}.") from None

    shown = "none" if default is None else unit.format(default)
    return Setting(
        flag, f"{help} [default: {shown}]", type=convert, metavar=unit.metavar, default=default, unit=unit, **attributes
    )


def _limit(flag: str, unit: Unit, param: str, minimum: float, help: str) -> Setting:
    """An option that sets one field of the limits, and has its default from there."""
    limits = Limits()
    owner = limits.retention if param.startswith(_RETENTION) else limits
    return _measure(flag, unit, getattr(owner, param.removeprefix(_RETENTION)), minimum, help, param=param)


def limits_from(values: dict[str, Any]) -> Limits:
    """Takes the limits' parameters out of ``values``; a limit without an option keeps its default."""
    names = [field.name for field in fields(Retention) if _RETENTION + field.name in values]
    retention = {name: values.pop(_RETENTION + name) for name in names}
    own = {field.name: values.pop(field.name) for field in fields(Limits) if field.name in values}
    return Limits(**own, retention=Retention(**retention))


def tokens_from(values: dict[str, Any]) -> TokenSettings:
    """Takes the parameters of subscriber tokens out of ``values``."""
    names = [name for name in values if name.startswith("token_")]
    return TokenSettings(**{name.removeprefix("token_"): values.pop(name) for name in names})


def _take_config(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    ctx.meta[_CONFIG_PATH] = path
    known = [option for option in ctx.command.params if isinstance(option, Setting)]
    names = {option.flag: option.name for option in known}
    switches = {option.flag for option in known if option.is_flag}
    lists = {option.flag for option in known if option.multiple}
    settings, ctx.meta[_TABLES] = read_config(path, names.keys() - NOT_IN_FILES, switches, lists)
    found = {str(names[flag]): settings[flag] for flag in settings}
    ctx.default_map = {**(ctx.default_map or {}), **found}
    _forget_presets(ctx, found)


def _take_platform(ctx: click.Context, param: click.Parameter, name: str | None) -> None:
    if name is None:
        return
    platform, port = PLATFORMS[name], os.environ.get("PORT")
    preset: dict[str, Any] = {"request_cap_s": platform.request_cap_s, "heartbeat_s": platform.heartbeat_s}
    sources = dict.fromkeys(preset, f"--platform {name}")
    if platform.sets_port and port:
        preset |= {"port": port, "host": "0.0.0.0"}
        sources |= dict.fromkeys(("port", "host"), f"PORT, --platform {name}")
    ctx.meta[_PRESET], ctx.meta[_PLATFORM] = sources, name
    found = ctx.default_map or {}
    ctx.default_map = {**preset, **found}  # the file overrides the preset, in either order
    _forget_presets(ctx, found)


def _forget_presets(ctx: click.Context, overridden: Mapping[str, Any]) -> None:
    for name in overridden:
        ctx.meta.get(_PRESET, {}).pop(name, None)


_FORMATS = click.Choice(FORMATS)
_LEVELS = click.Choice(LEVELS)
NOT_IN_FILES = {"config", "print-config"}
_PATH: dict[str, Any] = {"type": click.Path(path_type=Path), "metavar": "PATH"}

# Also those of the commands that talk to a server
PUBLISH_KEY = (
    Setting(
        "publish-key",
        "Publish key, a shared secret. Visible to other users in ps; prefer --publish-key-file or the environment.",
        metavar="KEY",
        is_secret=_always,
    ),
    Setting("publish-key-file", "File that contains the publish key.", **_PATH),
    Setting(
        "state-dir",
        "State directory. The publish key is created here at the first start. "
        "[default: $XDG_STATE_HOME/pushcompat or ~/.local/state/pushcompat]",
        **_PATH,
    ),
)

_LISTENING = (
    Setting("host", "Address to listen on; 0.0.0.0 or :: for all.", default="127.0.0.1", show_default=True),
    PortSetting(
        "port",
        "Port to listen on; 0 for any free one.",
        type=_port,
        metavar="PORT",
        default=8888,
        show_default=True,
    ),
    Setting("unix-socket", "Listen on this Unix socket instead of host and port.", **_PATH),
    Setting("tls-cert", "Certificate and its chain (PEM), for https and wss; Unix sockets stay plain.", **_PATH),
    Setting("tls-key", "Its private key (PEM). [default: in the file of --tls-cert]", **_PATH),
    Setting(
        "unix-socket-mode",
        "Permissions of the server's Unix sockets, as in chmod: 660 lets the group connect.",
        type=_mode,
        metavar="OCTAL",
        default="600",
        show_default=True,
    ),
    Setting(
        "admin-listen",
        "Separate address for publishing, metrics and administration, HOST:PORT or unix:PATH; --host and --port then "
        "refuse them.",
        type=_address,
        metavar="ADDRESS",
    ),
    Setting(
        "workers",
        "Worker processes that share the port and the store; auto: one for each usable core.",
        type=_workers,
        metavar="COUNT",
        default=1,
        show_default=True,
    ),
    Setting("prefix", "URL path prefix of all endpoints, for example /push.", default="", metavar="PATH"),
)

_ACCESS = (
    *PUBLISH_KEY,
    Setting(
        "publish",
        "Who may publish to channels without a rule: keys (any publish key) or open (anyone).",
        type=click.Choice(["keys", "open"]),
        metavar="WHO",
        default="keys",
        show_default=True,
    ),
    Setting(
        "subscribe",
        "Who may subscribe to channels without a rule: open (anyone), token, ask (the application decides) or nobody. "
        "[default: token if there are token keys, ask with --authorize-url, otherwise open]",
        type=click.Choice([who.value for who in Subscribe]),
        metavar="WHO",
    ),
    Setting(
        "cors-origin",
        "Origin whose pages may connect, for example https://example.com; * allows any. Repeatable. "
        "[default: same origin only]",
        param="cors_origins",
        multiple=True,
        metavar="ORIGIN",
    ),
    Setting(
        "trusted-proxies",
        "Proxy whose Forwarded and X-Forwarded-For, -Host and -Proto are believed: an address, a network like "
        "10.1.0.0/16, loopback, private, unix, or none. Repeatable. [default: loopback and unix]",
        multiple=True,
        metavar="PROXY",
    ),
    Setting(
        "insecure-public",
        "Start on a public address in spite of --demo, open publishing, a publish key of less than 32 characters or a "
        "secret among the arguments.",
        is_flag=True,
    ),
)

_TOKENS = (
    Setting(
        "token-key-file",
        "File with keys of subscriber tokens (JWT): PEM public keys, a JSON Web Key set, or secrets for HS256, one in "
        "a line. Repeatable. A single secret can be given as PUSHCOMPAT_TOKEN_KEY.",
        param="token_key_files",
        multiple=True,
        **_PATH,
    ),
    EnvironmentSetting("token-key", "A secret for HS256.", metavar="SECRET"),
    Setting("token-audience", "Required audience (aud) of tokens. Repeatable.", multiple=True, metavar="NAME"),
    Setting("token-issuer", "Required issuer (iss) of tokens.", metavar="NAME"),
    _measure(
        "token-leeway", SECONDS, DEFAULTS.leeway_s, 0, "Tolerance for clocks that differ (exp, nbf, iat).",
        param="token_leeway_s",
    ),
    _measure(
        "token-max-age", SECONDS, DEFAULTS.max_age_s, 1,
        "How far in the future a token may expire. Revocations are kept as long.",
        param="token_max_age_s",
    ),
    Setting("token-cookie", "Cookie that may hold the token.", metavar="NAME"),
)  # fmt: skip

_ASKING = (
    Setting(
        "authorize-url",
        "URL of your application that decides about subscribers, where a rule says ask; docs/access.md.",
        metavar="URL",
    ),
    _limit("authorize-timeout", SECONDS, "authorize_s", 0.1, "Time limit for its answer."),
    _limit("authorize-ttl", SECONDS, "authorize_ttl_s", 2, "How long an answer is kept that has no expires."),
    _limit("authorize-max-ttl", SECONDS, "authorize_most_s", 2, "How long an answer is kept at most."),
    _limit("authorize-concurrency", COUNT, "authorize_at_once", 1, "Questions to it at the same time."),
)

_WINDOWS = (
    Setting(
        "platform",
        "Preset request cap and heartbeat for a hosting platform or proxy, and where the platform sets PORT, that port "
        f"of all addresses: {', '.join(PLATFORMS)}.",
        type=click.Choice(list(PLATFORMS)),
        metavar="NAME",
        is_eager=True,
        callback=_take_platform,
        expose_value=False,
    ),
    _limit(
        "request-cap", SECONDS, "request_cap_s", 0, "Maximum lifetime of a request or stream; must be more than 6s."
    ),
    _limit(
        "poll-window", SECONDS, "poll_window_s", 1, "How long a long-poll request is held if there are no messages."
    ),
    _limit("heartbeat", SECONDS, "heartbeat_s", 1, "Maximum silence on a WebSocket or event stream, at most 1 day."),
    _limit(
        "poll-grace",
        SECONDS,
        "poll_grace_s",
        0,
        "How long a long-poll client still counts as a subscriber after a poll.",
    ),
    _limit(
        "refetch-rate",
        RATE,
        "refetch_rate",
        0.001,
        "Requests a second that your application can serve; messages then carry a spread for refetches.",
    ),
)

_PRESENCE = (
    Setting(
        "presence-webhook",
        "URL that receives a request when a channel gets its first subscriber or loses its last.",
        metavar="URL",
    ),
    Setting(
        "presence-secret",
        "Secret that signs these requests (Standard Webhooks): whsec_ and base64. Visible to other users in ps; "
        "prefer the environment.",
        metavar="SECRET",
        is_secret=_always,
    ),
    _limit("presence-delay", SECONDS, "presence_delay_s", 0, "How long a change must last before the webhook is sent."),
)

_HISTORY = (
    Setting(
        "store",
        "Where the log is kept: sqlite:PATH (without PATH: log.sqlite in the state directory), memory:, redis://…; "
        "docs/scaling.md.",
        default="sqlite:",
        show_default=True,
        metavar="URL",
        is_secret=has_password,
    ),
    _limit("history", COUNT, "retention_count", 1, "Maximum number of messages retained per channel."),
    _limit("history-age", SECONDS, "retention_age_s", 1, "Maximum age of retained messages."),
    _limit(
        "history-bytes",
        BYTES,
        "retention_bytes",
        1,
        "Maximum size of all retained messages; each counts as its payload and 256 bytes.",
    ),
    _limit("idempotency-window", SECONDS, "retention_idempotency_s", 0, "How long an Idempotency-Key is remembered."),
    _limit(
        "idempotency-bytes",
        BYTES,
        "retention_idempotency_bytes",
        1024,
        "Memory limit for Idempotency-Keys; beyond it they are remembered for less time.",
    ),
)

_LIMITS = (
    _limit("message-limit", BYTES, "message_bytes", 1, "Maximum size of a published message."),
    _limit("batch-limit", BYTES, "batch_bytes", 1, "Maximum size of a batch request body."),
    _limit("batch-messages", COUNT, "batch_messages", 1, "Maximum number of messages in a batch."),
    _limit("channels-per-request", COUNT, "max_channels", 1, "Maximum number of channels in one request."),
    _limit(
        "websocket-message-limit",
        BYTES,
        "websocket_message_bytes",
        125,
        "Maximum size of a WebSocket message from a client.",
    ),
    _limit("hook-body-limit", BYTES, "hook_body_bytes", 1, "Maximum size of the body of a received webhook."),
    _limit("hook-budget", BYTES, "hook_budget_bytes", 1, "Maximum size of all webhooks that a process is receiving."),
    _limit("head-limit", BYTES, "head_bytes", 1024, "Maximum size of request line and header together."),
    _limit("head-timeout", SECONDS, "head_s", 1, "Time limit for receiving a request's header."),
    _limit("body-timeout", SECONDS, "body_s", 1, "Time limit for receiving a request's body."),
    _limit("idle-timeout", SECONDS, "idle_s", 1, "How long a connection stays open between requests."),
    _limit("write-timeout", SECONDS, "write_s", 1, "Close a connection whose client has read nothing for this long."),
    _limit("close-timeout", SECONDS, "close_s", 1, "Time limit for the client's half of closing a connection."),
    _limit(
        "drain-timeout", SECONDS, "drain_s", 0, "On shutdown, spread disconnecting subscribers over up to this time."
    ),
    _limit(
        "publish-timeout",
        SECONDS,
        "publish_s",
        0,
        "How long a publish waits for an overloaded channel before its 503.",
    ),
    _limit("send-limit", BYTES, "send_bytes", 1024, "Maximum bytes of messages in one send or poll response."),
    _limit(
        "unsent-limit",
        BYTES,
        "unsent_bytes",
        1024,
        "Maximum unsent bytes in the kernel per connection (TCP_NOTSENT_LOWAT).",
    ),
    _limit(
        "websocket-input-rate", BYTES, "stream_input_bytes", 125, "Maximum bytes read from one WebSocket in a second."
    ),
    _limit(
        "max-connections",
        COUNT,
        "max_connections",
        1,
        "Connections beyond which subscribers are refused; none: by the limit of open files.",
    ),
    _limit(
        "max-connections-per-address",
        COUNT,
        "max_connections_per_address",
        1,
        "Connections from one address (an IPv6 /64) beyond which its subscribers are refused; none: half of "
        "--max-connections. Trusted proxies are exempt; what they report is counted.",
    ),
    _limit(
        "handshake-rate",
        RATE,
        "handshake_rate",
        0.001,
        "Connections that one address may open a second, on average; ten seconds' worth at once.",
    ),
    _limit(
        "publish-rate",
        RATE,
        "publish_rate",
        0.001,
        "Messages that one key may publish a second, on average; ten seconds' worth at once.",
    ),
    _limit(
        "unsent-budget",
        BYTES,
        "unsent_budget_bytes",
        1024,
        "Maximum unsent bytes of all connections in a process.",
    ),
    _limit(
        "verify-share",
        RATE,
        "verify_share",
        0.01,
        "Seconds of each second in which a process may verify tokens; others wait, and then get 503.",
    ),
    _limit(
        "visits",
        COUNT,
        "max_visits",
        1,
        "Maximum number of subscribers and sockets served in one turn of the event loop.",
    ),
)

_OBSERVATION = (
    Setting("log-format", "Log format.", type=_FORMATS, default="text", show_default=True),
    Setting("log-level", "Minimum level to log.", type=_LEVELS, default="info", show_default=True),
)

_PAGES = (Setting("demo", "Serve a demo chat at /demo/chat. Anyone who can reach the server can post.", is_flag=True),)

_CONFIGURATION = (
    Setting(
        "config",
        "Configuration file (TOML) of options by name, for example request-cap = 30.",
        is_eager=True,
        callback=_take_config,
        expose_value=False,
        **_PATH,
    ),
)

SERVER: Groups = {
    "Listening": _LISTENING,
    "Access control": _ACCESS,
    "Subscriber tokens": _TOKENS,
    "Asking the application": _ASKING,
    "Timing": _WINDOWS,
    "Presence": _PRESENCE,
    "History": _HISTORY,
    "Limits": _LIMITS,
    "Demo": _PAGES,
    "Logging": _OBSERVATION,
    "Configuration": _CONFIGURATION,
}

SERVE: Groups = {
    **SERVER,
    "Configuration": (
        *_CONFIGURATION,
        Setting(
            "print-config",
            "Print each option with its value and the source of it, and exit. Secrets are not shown.",
            is_flag=True,
            envvar=None,
        ),
    ),
}

CHECK: Groups = {
    "Case": (
        Setting("channel", "Explain what applies to this channel.", param="case_channel", metavar="NAME", envvar=None),
        Setting(
            "token",
            "File with a subscriber token to explain; - for standard input.",
            param="case_token",
            envvar=None,
            **_PATH,
        ),
    ),
    **SERVER,
}

# Of the commands that talk to a server

_TRANSPORTS = click.Choice(["auto", "websocket", "eventsource", "longpoll"])

_URL = Setting("url", "URL of the server. [default: http://127.0.0.1:8888]", metavar="URL")

PUBLISH: Groups = {
    "Message": (
        Setting("json", "DATA is JSON, not text.", param="is_json", is_flag=True, envvar=None),
        Setting("key", "Message key. Only the latest message with a key is retained.", metavar="KEY", envvar=None),
        Setting("type", "Message type (the event's name in a stream).", param="kind", metavar="TYPE", envvar=None),
        _measure("ttl", SECONDS, None, 0, "Delete the message from history after this time.", envvar=None),
        Setting("idempotency-key", "Publishes with one key are stored once. [default: random]", metavar="KEY",
                envvar=None),
    ),
    "Server": (
        _URL,
        *PUBLISH_KEY,
        _measure("timeout", SECONDS, 10.0, 0.001, "Total time limit, retries included.", envvar=None),
    ),
}  # fmt: skip

_ROOT = (
    _URL,
    *PUBLISH_KEY,
    _measure("timeout", SECONDS, 10.0, 0.001, "Total time limit.", envvar=None),
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
        _measure("expires", SECONDS, None, 0.001, "For how long. None: as long as a token can be valid "
                 "(--token-max-age).", param="expires_s", envvar=None),
    ),
    "Server": _ROOT,
}  # fmt: skip

TOKEN: Groups = {
    "Claims": (
        Setting("sub", "Name of the subscriber.", metavar="NAME", envvar=None),
        Setting("channel", "Name or pattern of channels. Repeatable.", param="channels", multiple=True,
                metavar="PATTERN", envvar=None),
        _measure("expires", SECONDS, 3600.0, 1, "How long the token is valid.", param="expires_s", envvar=None),
        Setting("jti", "Id of the token. [default: random]", metavar="ID", envvar=None),
        Setting("token-audience", "Audience (aud). Repeatable.", param="audience", multiple=True, metavar="NAME"),
        Setting("token-issuer", "Issuer (iss).", param="issuer", metavar="NAME"),
    ),
    "Key": (
        Setting("token-key-file", "File with a secret or a PEM private key. [default: PUSHCOMPAT_TOKEN_KEY]",
                param="key_file", **_PATH),
        EnvironmentSetting("token-key", "A secret for HS256.", param="key", metavar="SECRET"),
    ),
}  # fmt: skip

LISTEN: Groups = {
    "What": (
        Setting("cursor", "Resume after this cursor, the id of the last message.", metavar="CURSOR", envvar=None),
        Setting("earliest", "Start at the oldest retained message.", is_flag=True, envvar=None),
        _measure("count", COUNT, None, 1, "Stop after this many messages.", envvar=None),
        _measure("timeout", SECONDS, None, 0.001, "Stop after this time.", envvar=None),
    ),
    "Server": (
        _URL,
        Setting("token", "Subscriber token. Visible to other users in ps; prefer the environment.",
                metavar="TOKEN", is_secret=_always),
        Setting("token-file", "File with the subscriber token, read again when the token has expired.", **_PATH),
        Setting("transport", "websocket, eventsource or longpoll; auto tries them in this order.",
                type=_TRANSPORTS, default="auto", show_default=True, metavar="NAME",
                envvar=None),
        Setting("verbose", "Print connection events on stderr.", is_flag=True, envvar=None),
    ),
}  # fmt: skip


# Of the commands about webhooks

_HOOK_FILE = Setting("config", "Configuration file (TOML) of the server.", param="path", **_PATH)

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
                envvar=None, **_PATH),
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
