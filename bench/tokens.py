"""The server with a token for each subscriber (HS256), which it verifies at the handshake."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import jwt
from servers import Server, Starter, pushcompat

TOKENS = "tokens"
_SUBSCRIBERS = 10_000


def starters(checkout: Path) -> dict[str, Starter]:
    return {TOKENS: _with_tokens(checkout)}


def _with_tokens(checkout: Path) -> Starter:
    @contextmanager
    def start(folder: Path) -> Iterator[Server]:
        key, keys, tokens = secrets.token_urlsafe(32), folder / "key", folder / "tokens"
        keys.write_text(key)
        exp = int(time.time()) + 3600
        claims = ({"sub": f"{number}", "channels": ["*"], "exp": exp} for number in range(_SUBSCRIBERS))
        tokens.write_text("".join(f"{jwt.encode(claim, key, 'HS256')}\n" for claim in claims))
        options = {"--store": "memory:", "--token-key-file": str(keys), "--subscribe": "token"}
        with pushcompat(checkout, options)(folder) as server:
            yield replace(server, tokens=tokens)

    return start
