"""The URL of a server: its address, the login, and parameters.

    redis://[[USER]:PASSWORD@]HOST[:PORT][/DB]
    rediss://…                                                   the same over TLS
    redis+unix://[[USER]:PASSWORD@]/PATH/OF/SOCKET[?db=DB]
    redis+sentinel://[[USER]:PASSWORD@]HOST[:PORT][,HOST[:PORT]]…/SERVICE[/DB]

Parameters: ``prefix`` (of all keys) and ``wait`` (number of replicas that a publish waits for). With TLS:
``ssl_ca_certs``, ``ssl_certfile``, ``ssl_keyfile`` and ``ssl_check_hostname``. With Sentinels: ``ssl=1`` (TLS to the
master), ``sentinel_username`` and ``sentinel_password``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, unquote

from ...errors import ConfigError

_PORT, _SENTINEL_PORT = 6379, 26379
_URL = re.compile(r"(?P<scheme>[a-z+]+)://(?P<authority>[^/?#]*)(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?")
_PREFIX = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_TLS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname")
_OF_SENTINELS = ("sentinel_username", "sentinel_password")


@dataclass(frozen=True, slots=True)
class Address:
    """``options`` are those of redis-py's connections. They contain the server's address, unless Sentinels provide it.

    ``shown`` is the URL without passwords. ``wait``: how many replicas a publish waits for.
    """

    shown: str
    options: dict[str, Any] = field(repr=False)
    tls: bool = False
    service: str | None = None  # the name of the master in the Sentinels' configuration
    sentinels: tuple[tuple[str, int], ...] = ()
    sentinel_options: dict[str, Any] = field(default_factory=dict, repr=False)
    prefix: str = "pushcompat"
    wait: int = 0


def without_password(url: str) -> str:
    """For messages: everything that may be a password becomes ``***``, also in a malformed URL."""
    url = re.sub(r"(?<=//)([^/@]*?):(.*)@", r"\1:***@", url)
    return re.sub(r"(?i)(password=)[^&]*", r"\1***", url)


def parse(url: str) -> Address:
    """Raises ConfigError."""
    shown = without_password(url)
    parts = _URL.fullmatch(url)
    try:
        if parts is None or "@" in (parts["query"] or ""):
            raise ValueError
        query = dict(parse_qsl(parts["query"] or "", keep_blank_values=True, strict_parsing=bool(parts["query"])))
    except ValueError:
        raise ConfigError("this is not a URL; use redis://HOST:PORT/DB, and %3F for a ? in a password") from None
    scheme = parts["scheme"]
    known = {"prefix", "wait", *(_TLS if scheme == "rediss" else ())}
    known |= {"db"} if scheme == "redis+unix" else set()
    known |= {*_OF_SENTINELS, *_TLS, "ssl"} if scheme == "redis+sentinel" else set()
    if unknown := sorted(query.keys() - known):
        raise ConfigError(f"unknown parameter {unknown[0]}; allowed: {', '.join(sorted(known))}")
    prefix = query.get("prefix", "pushcompat")
    if not _PREFIX.fullmatch(prefix):
        raise ConfigError("prefix must be 1 to 64 letters, digits and . _ : -")
    wait = query.get("wait", "0")
    if not re.fullmatch(r"\d", wait):
        raise ConfigError("wait must be the number of replicas to wait for, 0 to 9")
    options, rest = _login(parts["authority"])
    options |= {name: query[name] for name in _TLS if name in query}
    if "ssl_check_hostname" in options:
        options["ssl_check_hostname"] = options["ssl_check_hostname"].lower() not in ("0", "no", "false")
    path = [unquote(step) for step in parts["path"].split("/") if step]
    try:
        if scheme == "redis+unix":
            if rest or not parts["path"]:
                raise ConfigError("a socket is redis+unix:///PATH")
            options |= {"path": unquote(parts["path"]), "db": _db(query.get("db", "0"))}
            return Address(shown, options, prefix=prefix, wait=int(wait))
        if scheme == "redis+sentinel":
            if not 1 <= len(path) <= 2:
                raise ConfigError("Sentinels are redis+sentinel://HOST:PORT,HOST:PORT/SERVICE/DB")
            options["db"] = _db(path[1] if len(path) == 2 else "0")
            sentinels = tuple(_host(text, _SENTINEL_PORT) for text in rest.split(","))
            logins = {name.partition("_")[2]: query[name] for name in _OF_SENTINELS if name in query}
            tls = query.get("ssl", "0") not in ("0", "no", "false")
            return Address(shown, options, tls, path[0], sentinels, logins, prefix, int(wait))
        if len(path) > 1:
            raise ConfigError("the path is the number of the database, as in redis://HOST:PORT/0")
        options["host"], options["port"] = _host(rest, _PORT)
        options["db"] = _db(path[0] if path else "0")
        return Address(shown, options, scheme == "rediss", prefix=prefix, wait=int(wait))
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _login(authority: str) -> tuple[dict[str, Any], str]:
    """The user and the password, and the rest."""
    login, at, rest = authority.rpartition("@")
    user, colon, password = login.partition(":")
    options: dict[str, Any] = {}
    if at and user:
        options["username"] = unquote(user)
    if colon:
        options["password"] = unquote(password)
    return options, rest


def _host(text: str, port: int) -> tuple[str, int]:
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^:\[\]]*))(?::(\d{1,5}))?", text)
    if found is None or int(found[3] or port) > 65535:
        raise ValueError("the server must be HOST:PORT; write %2F for a / in a password, %23 for a #")
    return found[1] or unquote(found[2]) or "localhost", int(found[3] or port)


def _db(text: str) -> int:
    if not re.fullmatch(r"\d{1,5}", text):
        raise ValueError("the database must be a number, 0 to 99999; write %2F for a / in a password")
    return int(text)
