"""What a page needs to subscribe: the client, the address of its channels, a token, and the cursor of the render."""

from __future__ import annotations

import html
import json
import logging
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..access.issuing import issue
from ..client.failures import PublishError

CURSOR_AGE_S = 1.0  # an older cursor loses nothing: the page gets a few messages that it has seen already
_BAD = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026", 0x2028: "\\u2028", 0x2029: "\\u2029"}
_ID = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")

log = logging.getLogger("pushcompat.contrib")


class Cursors:
    """The position of the log, from which a page that is rendered now subscribes. ``ask(channel)`` asks the server.

    One cursor is for all channels, so a busy application asks once a second, not for each page.
    """

    def __init__(self, ask: Callable[[str], str]) -> None:
        self._ask = ask
        self._known = ("", -CURSOR_AGE_S)

    def now(self, channel: str) -> str:
        """An empty text while the push server does not answer: the page then subscribes from when it connects."""
        cursor, asked_at = self._known
        started_at = time.monotonic()
        if started_at - asked_at < CURSOR_AGE_S:
            return cursor
        try:
            cursor = self._ask(channel)
        except PublishError as error:
            log.warning("a page subscribes without a cursor: %s", error)
            return ""
        self._known = cursor, started_at
        return cursor


def token(key: str | None, key_file: str | None, ttl_s: float, channels: Sequence[str], sub: str | None) -> str | None:
    """A subscriber token for these channels; None without a key. Raises ConfigError for a key that is none."""
    if key is None and key_file is None:
        return None
    secret = key if key is not None else Path(str(key_file))
    return issue(secret, expires_s=ttl_s, sub=sub, channels=channels)


def page(url: str, channels: Sequence[str], cursor: str, token: str | None) -> dict[str, str]:
    """The first argument of the client's ``subscribe`` (``url``), and its options."""
    given = {"url": f"{url.rstrip('/')}/channels/{','.join(channels)}", "cursor": cursor, "token": token}
    return {name: value for name, value in given.items() if value}


def markup(url: str, data: dict[str, str], element_id: str = "pushcompat") -> str:
    """The client's script, and ``data`` as a JSON document of the page: nothing that a Content-Security-Policy has to
    allow besides the server itself.
    """
    if not _ID.fullmatch(element_id):
        raise ValueError(f"{element_id!r} cannot be an element's id: use letters, digits, - and _")
    text = json.dumps(data).translate(_BAD)
    return (
        f'<script src="{html.escape(url.rstrip("/"))}/static/pushcompat.js"></script>\n'
        f'<script type="application/json" id="{element_id}">{text}</script>'
    )
