"""Whether and which worker this process is, from the environment variable that its parent (``supervisor``) has set.

It imports only the standard library, since every command checks it.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_ENVIRONMENT = "_PUSHCOMPAT_WORKER"


class Place(NamedTuple):
    """``number``: from 1. ``line``: the descriptor of the socket to the parent. ``sockets``: descriptors of those that
    each worker listens on. ``settled``: options that must be the same in all workers. ``admin``: descriptors of the
    sockets of --admin-listen, which all workers share.
    """

    number: int
    line: int
    sockets: Sequence[Sequence[int]]
    settled: Mapping[str, str]
    admin: Sequence[int] = ()

    @property
    def workers(self) -> int:
        return len(self.sockets)

    def environment(self) -> dict[str, str]:
        return {**os.environ, _ENVIRONMENT: json.dumps(self._asdict())}


def find() -> Place | None:
    """None: this process was not started as a worker."""
    text = os.environ.get(_ENVIRONMENT)
    if text is None:
        return None
    document = json.loads(text)  # of a parent of another version, maybe
    return Place(**{name: document[name] for name in Place._fields if name in document})


def fail(place: Place, detail: str) -> None:
    """Tells the parent why this process cannot be started: ``worker.Failed``."""
    try:
        with socket.socket(fileno=os.dup(place.line)) as sock:
            sock.sendall(json.dumps({"type": "Failed", "detail": detail}).encode() + b"\n")
    except OSError:
        pass  # the parent has ended
