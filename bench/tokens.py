"""The server with subscribers that have a ``client`` each, as pages do, and those that have a token (HS256) besides."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import jwt
from servers import Server, Starter, pushcompat

TOKENS, CLIENTS = "tokens", "clients"
_SUBSCRIBERS = 10_000


def starters(checkout: Path) -> dict[str, Starter]:
    return {TOKENS: _with_tokens(checkout), CLIENTS: _without(checkout)}


def _with_tokens(checkout: Path) -> Starter:
    @contextmanager
    def start(folder: Path) -> Iterator[Server]:
        key, keys = secrets.token_urlsafe(32), folder / "key"
        keys.write_text(key)
        exp = int(time.time()) + 3600
        claims = [{"sub": f"{number}", "channels": ["*"], "exp": exp} for number in range(_SUBSCRIBERS)]
        tokens = [f"&token={jwt.encode(claim, key, 'HS256')}" for claim in claims]
        options = {"--store": "memory:", "--token-key-file": str(keys), "--subscribe": "token"}
        with pushcompat(checkout, options)(folder) as server:
            yield replace(server, parameters=_parameters(folder, tokens))

    return start


def _without(checkout: Path) -> Starter:
    @contextmanager
    def start(folder: Path) -> Iterator[Server]:
        with pushcompat(checkout, {"--store": "memory:"})(folder) as server:
            yield replace(server, parameters=_parameters(folder, [""] * _SUBSCRIBERS))

    return start


def _parameters(folder: Path, more: Sequence[str]) -> Path:
    file = folder / "parameters"
    file.write_text("".join(f"client={secrets.token_hex(6)}{own}\n" for own in more))
    return file
