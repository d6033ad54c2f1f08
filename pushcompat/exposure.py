"""What a server on a public address must not do by mistake: publish for anyone, take a short key, serve the demo, or
show a secret in the list of processes.

Public is every address that is neither a loopback address nor a Unix socket, also in a container.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from socket import AF_UNIX, socket

from . import logs
from .access.rules import ANYONE, Rules
from .config import Config
from .errors import ConfigError
from .listening import is_loopback

_KEY_CHARACTERS = 32


def check(config: Config, public: Sequence[socket], admin: Sequence[socket]) -> None:
    """``public``: the sockets that it listens on, ``admin``: those of --admin-listen. Raises ConfigError."""
    if config.insecure_public:
        return
    for sockets, danger, advice in _dangers(config, public, admin):
        for sock in sockets:
            if sock.family != AF_UNIX and not is_loopback(sock):
                host, port = sock.getsockname()[:2]
                where = f"{host} port {port} is a public address"
                raise ConfigError(f"{where}, and {danger}: {advice}, listen on 127.0.0.1, or add --insecure-public")


def warn(config: Config) -> None:
    """Logs the secrets that other users of this machine can see."""
    for option in config.visible_secrets:
        logs.event(logs.Event.SECRET_VISIBLE, logging.WARNING, option=f"--{option}")


def _dangers(
    config: Config, public: Sequence[socket], admin: Sequence[socket]
) -> Iterator[tuple[Sequence[socket], str, str]]:
    """For each danger of this configuration: the sockets where it is one, what it is, and what to do."""
    publishing = admin or public
    if config.demo:
        yield public, "with --demo anyone can post", "omit --demo"
    for pattern in _open_to_anyone(config.rules):
        yield publishing, f"anyone may publish to {pattern}", "require a key there"
    if len(config.publish_key) < _KEY_CHARACTERS:
        short = f"the publish key has fewer than {_KEY_CHARACTERS} characters"
        yield publishing, short, "replace it by the output of: openssl rand -hex 32"
    for option in config.visible_secrets:
        yield (
            [*public, *admin],
            f"--{option} shows its secret in the list of processes",
            "use a file or the environment",
        )


def _open_to_anyone(rules: Rules) -> list[str]:
    return [rule.pattern.text for rule in (*rules.rules, rules.default) if rule.publish == ANYONE]
