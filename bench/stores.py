"""The server with each store: alone, or as two processes that share a log, one for subscribers and one for publishers.

A Redis server runs on the servers' core too. Its CPU time is not counted as ours; it is there in the rates.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from servers import Options, Server, Starter, free_port, pushcompat, running

MEMORY, SQLITE, SQLITE_FULL, REDIS = "memory", "SQLite", "SQLite (full)", "Redis"
TWO_ON_SQLITE, TWO_ON_REDIS, WORKERS = "two on SQLite", "two on Redis", "two workers"

ORDER = SQLITE, MEMORY, SQLITE_FULL, REDIS, TWO_ON_SQLITE, TWO_ON_REDIS, WORKERS
Store = Callable[[Path], AbstractContextManager[Options]]  # makes it, in a folder; the servers' options


def starters(checkout: Path) -> dict[str, Starter]:
    """By name; those with Redis only where it is installed."""
    found = {
        MEMORY: pushcompat(checkout, {"--store": "memory:"}),
        SQLITE: pushcompat(checkout, {"--store": "sqlite:"}),
        SQLITE_FULL: pushcompat(checkout, {"--store": "sqlite:?synchronous=full"}),
        TWO_ON_SQLITE: _two(checkout, _sqlite),
        WORKERS: pushcompat(checkout, {"--store": "sqlite:", "--workers": "2"}),
    }
    if shutil.which("redis-server"):
        found |= {REDIS: _one(checkout, _redis), TWO_ON_REDIS: _two(checkout, _redis)}
    return found


def _sqlite(folder: Path) -> nullcontext[Options]:
    return nullcontext({"--store": f"sqlite:{folder}/log.sqlite"})


@contextmanager
def _redis(folder: Path) -> Iterator[Options]:
    port, own = free_port(), folder / "redis"
    own.mkdir()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(own), "--appendonly", "yes"]
    with running(command, port, own, ask=b"PING\r\n"):
        yield {"--store": f"redis://127.0.0.1:{port}/0"}


def _one(checkout: Path, store: Store) -> Starter:
    @contextmanager
    def start(folder: Path) -> Iterator[Server]:
        with store(folder) as options, pushcompat(checkout, options)(folder) as server:
            yield server

    return start


def _two(checkout: Path, store: Store) -> Starter:
    @contextmanager
    def start(folder: Path) -> Iterator[Server]:
        folders = folder / "one", folder / "other"
        for own in folders:
            own.mkdir()
        with store(folder) as options:
            shared = {**options, "--publish-key": secrets.token_hex(16)}
            with pushcompat(checkout, shared)(folders[0]) as one, pushcompat(checkout, shared)(folders[1]) as other:
                yield replace(one, publish_port=other.port, pids=one.pids + other.pids)

    return start
