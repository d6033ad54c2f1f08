"""The server's whole configuration, as one value that is created once and passed on.

A value comes from the first of these that has it: a flag, a ``PUSHCOMPAT_…`` variable, the ``--config`` file, the
``--platform`` preset, the default. ``cli`` implements that order; this module validates the result. Nothing below
``server`` imports it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from .access.hooks import Hook
from .access.named_key import NamedKey
from .access.proxies import Proxies
from .access.rules import Rules
from .access.token_settings import DEFAULTS, TokenSettings
from .address import Address
from .errors import ConfigError
from .limits import LONGEST_S, Limits
from .logs import FORMATS, LEVELS
from .state import checked_key, default_state_dir

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_SHORTEST_CAP_S = 6  # a poll ends five seconds before the cap, and must be held for at least one
_SOCKET_PATH_BYTES = 103  # the size of macOS's sun_path; Linux has 107


@dataclass(frozen=True, slots=True)
class Config:
    """Server configuration. Raises ConfigError if it is not valid; ``store`` is checked by the store.

    ``publish_key_file`` is the file that the key was read from, for the message at the start; None: the key was given.
    ``prefix`` is normalised to ``""`` or ``"/x"``, ``cors_origins`` to what browsers send; ``unix_socket`` replaces
    host and port. Port 0: any free one. ``visible_secrets``: options whose secret is in the list of processes.
    """

    publish_key: str = field(repr=False)
    publish_key_file: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8888
    unix_socket: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    unix_socket_mode: int = 0o600
    admin_listen: Address | None = None
    workers: int = 1
    prefix: str = ""
    rules: Rules = field(default_factory=Rules)
    keys: tuple[NamedKey, ...] = ()
    tokens: TokenSettings = DEFAULTS
    hooks: tuple[Hook, ...] = ()
    cors_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    state_dir: Path = field(default_factory=default_state_dir)
    store: str = "sqlite:"
    limits: Limits = field(default_factory=Limits)
    log_format: str = "text"
    log_level: str = "info"
    demo: bool = False
    authorize_url: str | None = None
    insecure_public: bool = False
    visible_secrets: tuple[str, ...] = ()
    presence_webhook: str | None = None
    presence_secret: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        checked_key(self.publish_key, "--publish-key")
        _check_choice("--log-format", self.log_format, FORMATS)
        _check_choice("--log-level", self.log_level, LEVELS)
        _check_limits(self.limits)
        _check_rules(self.rules, self.limits)
        _check_proxies(self.trusted_proxies)
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"--port {self.port}: a port is a number from 0 (any free one) to 65535")
        if self.authorize_url is not None:
            _check_authorize_url(self.authorize_url)
        if self.presence_webhook is not None:
            _check_webhook(self.presence_webhook, self.presence_secret)
        if self.tls_key is not None and self.tls_cert is None:
            raise ConfigError("--tls-key needs --tls-cert, the file of the certificate and its chain")
        if self.unix_socket is not None:
            _check_socket_path(self.unix_socket, "--unix-socket")
        if self.admin_listen is not None and self.admin_listen.path is not None:
            _check_socket_path(self.admin_listen.path, "--admin-listen")
        if self.workers > 1 and self.store == "memory:":
            raise ConfigError(
                f"--workers {self.workers}: the memory: store is a log of one process; use --store sqlite: instead"
            )
        object.__setattr__(self, "prefix", normal_prefix(self.prefix))
        object.__setattr__(self, "cors_origins", tuple(dict.fromkeys(map(normal_origin, self.cors_origins))))


def normal_prefix(text: str) -> str:
    """``push/`` and ``/push`` are ``/push``; ``/`` is no prefix."""
    prefix = f"/{text.strip('/')}" if text.strip("/") else ""
    if not _PREFIX.fullmatch(prefix) or {".", ".."} & set(prefix.split("/")):
        raise ConfigError(f"--prefix {text!r}: must be a path like /push, of letters, digits and . _ ~ -")
    return prefix


def normal_origin(text: str) -> str:
    """The origin as a browser writes it (RFC 6454 §6.1): lower case, without the scheme's default port."""
    if text in ("*", "null"):
        return text
    refusal = ConfigError(f"--cors-origin {text!r}: an origin is scheme://host or scheme://host:port, or * for all")
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as error:
        raise refusal from error
    if not (url.scheme and url.hostname) or url.path.strip("/") or url.query or url.fragment or "@" in url.netloc:
        raise refusal
    if not url.hostname.isascii():
        raise ConfigError(f"--cors-origin {text!r}: browsers send this host as {_in_ascii(url.hostname)}; write it so")
    if not (text.isascii() and text.isprintable()) or re.search(r"[\s\\,;*]", url.netloc):
        raise refusal
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    own_port = port is None or port == _DEFAULT_PORTS.get(url.scheme)
    return f"{url.scheme}://{host}" if own_port else f"{url.scheme}://{host}:{port}"


def _in_ascii(host: str) -> str:
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        return "ASCII (xn--…)"


def _check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"{option} {value!r}: must be one of {', '.join(choices)}")


def _check_limits(limits: Limits) -> None:
    cap = limits.request_cap_s
    if cap is not None and cap <= _SHORTEST_CAP_S:
        raise ConfigError(
            f"--request-cap {cap:g}: must be more than {_SHORTEST_CAP_S} s, because polls end 5 s before it"
        )
    if limits.heartbeat_s > LONGEST_S:
        raise ConfigError(f"--heartbeat {limits.heartbeat_s:g}: must be at most {LONGEST_S:g} s, a day")
    if limits.message_bytes > limits.batch_bytes:
        raise ConfigError("--batch-limit must be at least --message-limit, or a batch could not hold one message")
    if limits.message_bytes > limits.retention.bytes:
        raise ConfigError("--history-bytes must be at least --message-limit, or a message could not be kept")


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _check_authorize_url(url: str) -> None:
    if not _is_url(url) or "#" in url or "@" in urlsplit(url).netloc:
        raise ConfigError(
            f"--authorize-url {url!r}: must be a URL like https://app.example/push/authorize, without a password"
        )


def _check_proxies(trusted: tuple[str, ...]) -> None:
    try:
        Proxies(trusted)
    except ValueError as error:
        raise ConfigError(f"--trusted-proxies: {error}") from None


def _check_rules(rules: Rules, limits: Limits) -> None:
    for rule in rules.rules:
        size = rule.message_bytes or 0
        for option, most in (("--batch-limit", limits.batch_bytes), ("--history-bytes", limits.retention.bytes)):
            if size > most:
                raise ConfigError(
                    f"message-limit in the [[channel]] of line {rule.line} must be at most {option}, {most}"
                )


def _check_webhook(url: str, secret: str | None) -> None:
    """The secret itself is checked when it is used."""
    if not _is_url(url):
        raise ConfigError(f"--presence-webhook {url!r}: must be a URL like https://app.example/hooks/presence")
    if not secret:
        made = "whsec_$(openssl rand -base64 32)"
        raise ConfigError(f"--presence-webhook needs --presence-secret, which signs the requests; create one: {made}")


def _check_socket_path(path: Path, option: str) -> None:
    if len(bytes(path)) > _SOCKET_PATH_BYTES:
        raise ConfigError(f"{option} {path}: longer than {_SOCKET_PATH_BYTES} bytes; choose a shorter path")
    if not path.absolute().parent.is_dir():
        raise ConfigError(f"{option} {path}: directory {path.absolute().parent} does not exist")
    if path.exists() and not path.is_socket():
        raise ConfigError(f"{option} {path}: exists and is not a socket; choose another path")
