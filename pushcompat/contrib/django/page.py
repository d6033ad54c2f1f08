"""What a view and its template need of the push server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest

from ..page import token
from .conf import only_recorded, push_options

_View = Callable[..., Any]


def push_cursor(view: _View) -> _View:
    """Decorates a view: asks for the cursor of the log before the view reads its data. The template tag then lets the
    page subscribe from there, so that it misses nothing that happens between the query and its first connection.
    """
    if iscoroutinefunction(view):

        @wraps(view)
        async def asynchronous(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            request.push_cursor = await sync_to_async(cursor, thread_sensitive=False)()
            return await view(request, *args, **kwargs)

        return asynchronous

    @wraps(view)
    def synchronous(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        request.push_cursor = cursor()
        return view(request, *args, **kwargs)

    return synchronous


def cursor(channel: str = "") -> str:
    """The position of the log; empty in tests, and while the push server does not answer."""
    return "" if only_recorded() else push_options().cursors.now(channel)


def make_token(channels: Sequence[str], sub: str | None = None) -> str | None:
    """A subscriber token, by the settings TOKEN_KEY or TOKEN_KEY_FILE and TOKEN_TTL; None without a key.

    Check first that the user may see these channels.
    """
    given = push_options()
    return token(given.token_key, given.token_key_file, given.token_ttl, channels, sub)
