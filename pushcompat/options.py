"""The server's options as a table: name, group, unit, default, and help text.

A parameter that is named like a field of ``Limits`` becomes that field, and ``retention_x`` becomes ``Retention.x``: a
new limit needs one line here, and its default stays in ``limits``.
"""

from __future__ import annotations

import click

from .access.rules import Subscribe
from .access.token_settings import DEFAULTS
from .logs import FORMATS, LEVELS
from .platforms import PLATFORMS
from .settings import (
    PATH,
    EnvironmentSetting,
    Groups,
    PortSetting,
    Setting,
    address_of,
    always,
    file_mode,
    has_password,
    limit,
    measure,
    port_number,
    take_config,
    take_platform,
    worker_count,
)
from .units import BYTES, COUNT, RATE, SECONDS

_FORMATS = click.Choice(FORMATS)
_LEVELS = click.Choice(LEVELS)

# Also those of the commands that talk to a server
PUBLISH_KEY = (
    Setting(
        "publish-key",
        "Publish key, a shared secret. Visible to other users in ps; prefer --publish-key-file or the environment.",
        metavar="KEY",
        is_secret=always,
    ),
    Setting("publish-key-file", "File that contains the publish key.", **PATH),
    Setting(
        "state-dir",
        "State directory. The publish key is created here at the first start. "
        "[default: $XDG_STATE_HOME/pushcompat or ~/.local/state/pushcompat]",
        **PATH,
    ),
)

_LISTENING = (
    Setting("host", "Address to listen on; 0.0.0.0 or :: for all.", default="127.0.0.1", show_default=True),
    PortSetting(
        "port",
        "Port to listen on; 0 for any free one.",
        type=port_number,
        metavar="PORT",
        default=8888,
        show_default=True,
    ),
    Setting("unix-socket", "Listen on this Unix socket instead of host and port.", **PATH),
    Setting("tls-cert", "Certificate and its chain (PEM), for https and wss; Unix sockets stay plain.", **PATH),
    Setting("tls-key", "Its private key (PEM). [default: in the file of --tls-cert]", **PATH),
    Setting(
        "unix-socket-mode",
        "Permissions of the server's Unix sockets, as in chmod: 660 lets the group connect.",
        type=file_mode,
        metavar="OCTAL",
        default="600",
        show_default=True,
    ),
    Setting(
        "admin-listen",
        "Separate address for publishing, metrics and administration, HOST:PORT or unix:PATH; --host and --port then "
        "refuse them.",
        type=address_of,
        metavar="ADDRESS",
    ),
    Setting(
        "workers",
        "Worker processes that share the port and the store; auto: one for each usable core.",
        type=worker_count,
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
        **PATH,
    ),
    EnvironmentSetting("token-key", "A secret for HS256.", metavar="SECRET"),
    Setting("token-audience", "Required audience (aud) of tokens. Repeatable.", multiple=True, metavar="NAME"),
    Setting("token-issuer", "Required issuer (iss) of tokens.", metavar="NAME"),
    measure(
        "token-leeway", SECONDS, DEFAULTS.leeway_s, 0, "Tolerance for clocks that differ (exp, nbf, iat).",
        param="token_leeway_s",
    ),
    measure(
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
    limit("authorize-timeout", SECONDS, "authorize_s", 0.1, "Time limit for its answer."),
    limit("authorize-ttl", SECONDS, "authorize_ttl_s", 2, "How long an answer is kept that has no expires."),
    limit("authorize-max-ttl", SECONDS, "authorize_most_s", 2, "How long an answer is kept at most."),
    limit("authorize-concurrency", COUNT, "authorize_at_once", 1, "Questions to it at the same time."),
)

_WINDOWS = (
    Setting(
        "platform",
        "Preset request cap and heartbeat for a hosting platform or proxy, and where the platform sets PORT, that port "
        f"of all addresses: {', '.join(PLATFORMS)}.",
        type=click.Choice(list(PLATFORMS)),
        metavar="NAME",
        is_eager=True,
        callback=take_platform,
        expose_value=False,
    ),
    limit("request-cap", SECONDS, "request_cap_s", 0, "Maximum lifetime of a request or stream; must be more than 6s."),
    limit("poll-window", SECONDS, "poll_window_s", 1, "How long a long-poll request is held if there are no messages."),
    limit("heartbeat", SECONDS, "heartbeat_s", 1, "Maximum silence on a WebSocket or event stream, at most 1 day."),
    limit(
        "poll-grace",
        SECONDS,
        "poll_grace_s",
        0,
        "How long a long-poll client still counts as a subscriber after a poll.",
    ),
    limit(
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
        is_secret=always,
    ),
    limit("presence-delay", SECONDS, "presence_delay_s", 0, "How long a change must last before the webhook is sent."),
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
    limit("history", COUNT, "retention_count", 1, "Maximum number of messages retained per channel."),
    limit("history-age", SECONDS, "retention_age_s", 1, "Maximum age of retained messages."),
    limit(
        "history-bytes",
        BYTES,
        "retention_bytes",
        1,
        "Maximum size of all retained messages; each counts as its payload and 256 bytes.",
    ),
    limit("idempotency-window", SECONDS, "retention_idempotency_s", 0, "How long an Idempotency-Key is remembered."),
    limit(
        "idempotency-bytes",
        BYTES,
        "retention_idempotency_bytes",
        1024,
        "Memory limit for Idempotency-Keys; beyond it they are remembered for less time.",
    ),
)

_LIMITS = (
    limit("message-limit", BYTES, "message_bytes", 1, "Maximum size of a published message."),
    limit("batch-limit", BYTES, "batch_bytes", 1, "Maximum size of a batch request body."),
    limit("batch-messages", COUNT, "batch_messages", 1, "Maximum number of messages in a batch."),
    limit("channels-per-request", COUNT, "max_channels", 1, "Maximum number of channels in one request."),
    limit(
        "websocket-message-limit",
        BYTES,
        "websocket_message_bytes",
        125,
        "Maximum size of a WebSocket message from a client.",
    ),
    limit("hook-body-limit", BYTES, "hook_body_bytes", 1, "Maximum size of the body of a received webhook."),
    limit("hook-budget", BYTES, "hook_budget_bytes", 1, "Maximum size of all webhooks that a process is receiving."),
    limit("head-limit", BYTES, "head_bytes", 1024, "Maximum size of request line and header together."),
    limit("head-timeout", SECONDS, "head_s", 1, "Time limit for receiving a request's header."),
    limit("body-timeout", SECONDS, "body_s", 1, "Time limit for receiving a request's body."),
    limit("idle-timeout", SECONDS, "idle_s", 1, "How long a connection stays open between requests."),
    limit("write-timeout", SECONDS, "write_s", 1, "Close a connection whose client has read nothing for this long."),
    limit("close-timeout", SECONDS, "close_s", 1, "Time limit for the client's half of closing a connection."),
    limit(
        "drain-timeout", SECONDS, "drain_s", 0, "On shutdown, spread disconnecting subscribers over up to this time."
    ),
    limit(
        "publish-timeout",
        SECONDS,
        "publish_s",
        0,
        "How long a publish waits for an overloaded channel before its 503.",
    ),
    limit("send-limit", BYTES, "send_bytes", 1024, "Maximum bytes of messages in one send or poll response."),
    limit(
        "unsent-limit",
        BYTES,
        "unsent_bytes",
        1024,
        "Maximum unsent bytes in the kernel per connection (TCP_NOTSENT_LOWAT).",
    ),
    limit(
        "websocket-input-rate", BYTES, "stream_input_bytes", 125, "Maximum bytes read from one WebSocket in a second."
    ),
    limit(
        "max-connections",
        COUNT,
        "max_connections",
        1,
        "Connections beyond which subscribers are refused; none: by the limit of open files.",
    ),
    limit(
        "max-connections-per-address",
        COUNT,
        "max_connections_per_address",
        1,
        "Connections from one address (an IPv6 /64) beyond which its subscribers are refused; none: half of "
        "--max-connections. Trusted proxies are exempt; what they report is counted.",
    ),
    limit(
        "handshake-rate",
        RATE,
        "handshake_rate",
        0.001,
        "Connections that one address may open a second, on average; ten seconds' worth at once.",
    ),
    limit(
        "publish-rate",
        RATE,
        "publish_rate",
        0.001,
        "Messages that one key may publish a second, on average; ten seconds' worth at once.",
    ),
    limit(
        "unsent-budget",
        BYTES,
        "unsent_budget_bytes",
        1024,
        "Maximum unsent bytes of all connections in a process.",
    ),
    limit(
        "verify-share",
        RATE,
        "verify_share",
        0.01,
        "Seconds of each second in which a process may verify tokens; others wait, and then get 503.",
    ),
    limit(
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
        callback=take_config,
        expose_value=False,
        **PATH,
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
            **PATH,
        ),
    ),
    **SERVER,
}
