"""The limit of open files, and the number of connections that it allows."""

from __future__ import annotations

import resource

_OPEN_MAX = 10_240  # macOS's maximum if it reports the hard limit as unlimited
_OWN = 32  # the server's own: standard streams, the event loop's, listening sockets
_MAX_RESERVED = 224


def raise_limit() -> int | None:
    """Raises the soft limit, 1,024 under systemd and in most shells, to the hard one. None: there is no limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (hard, max(soft, _OPEN_MAX)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        except (ValueError, OSError):
            continue
        return None if limit == resource.RLIM_INFINITY else limit
    return soft


def connections_within(limit: int | None, asked: int | None) -> int | None:
    """The number of connections above which subscribers are refused. None: no limit.

    An eighth of the limit, at most 224, is reserved for publishers, pages and files.
    """
    if limit is None:
        return asked
    room = max(1, limit - _OWN - min(_MAX_RESERVED, limit // 8))
    return room if asked is None else min(asked, room)
