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

KEY_CHARACTERS = 32


def check(config: Config, public: Sequence[socket], admin: Sequence[socket]) -> None:
    """``public``: the sockets that it listens on, ``admin``: those of --admin-listen. Raises ConfigError."""
    for refusal in refusals(config, _public_address(public), _public_address(admin or public)):
        raise ConfigError(refusal)


def refusals(config: Config, pages: str, publishing: str) -> list[str]:
    """Why the server does not start. ``pages``: the public address of subscribers and pages, ``publishing``: that of
    publishers and administration; empty if it is not public.
    """
    if config.insecure_public:
        return []
    advice = "listen on 127.0.0.1, or add --insecure-public"
    return [
        f"{address} is a public address, and {danger}: {instead}, {advice}"
        for address, danger, instead in _dangers(config, pages, publishing)
        if address
    ]


def _public_address(sockets: Sequence[socket]) -> str:
    """Of the first one that is public; empty if none is."""
    for sock in sockets:
        if sock.family != AF_UNIX and not is_loopback(sock):
            return "{} port {}".format(*sock.getsockname())
    return ""


def warn(config: Config) -> None:
    """Logs the secrets that other users of this machine can see."""
    for option in config.visible_secrets:
        logs.event(logs.Event.SECRET_VISIBLE, logging.WARNING, option=f"--{option}")


def _dangers(config: Config, pages: str, publishing: str) -> Iterator[tuple[str, str, str]]:
    """For each danger of this configuration: the address where it is one, what it is, and what to do."""
    if config.demo:
        yield pages, "with --demo anyone can post", "omit --demo"
    for pattern in _open_to_anyone(config.rules):
        yield publishing, f"anyone may publish to {pattern}", "require a key there"
    if len(config.publish_key) < KEY_CHARACTERS:
        short = f"the publish key has fewer than {KEY_CHARACTERS} characters"
        yield publishing, short, "replace it by the output of: openssl rand -hex 32"
    for option in config.visible_secrets:
        shown = f"--{option} shows its secret in the list of processes"
        yield pages or publishing, shown, "use a file or the environment"


def _open_to_anyone(rules: Rules) -> list[str]:
    return [rule.pattern.text for rule in (*rules.rules, rules.default) if rule.publish == ANYONE]
