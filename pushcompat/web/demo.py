"""The demo chat, an example application. It saves comments, and publishes a signal for each.

    a comment is posted ──► saved ──► publish("chat"), without data ──► 303, back to the page
    pages receive UPDATED (static/chat.js) ──► they fetch the newest twenty again

Like any application it uses ``publish_async``: over HTTP, with the publish key, although the server is this process.
The signal carries no data. A page that connects late, receives it twice or receives ``reset`` does the same: it shows
what is in the database.
"""

from __future__ import annotations

import asyncio
import sqlite3
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tornado.escape import url_escape, url_unescape
from tornado.routing import URLSpec
from tornado.web import url

from .. import PublishError, publish_async
from ..access.origins import is_same_origin
from ..errors import BadRequest, ConfigError, RequestError
from ..logs import log
from .app import BODY_BYTES, NO_STORE, Handler, policy

CHANNEL = "chat"
SHOWN = 20
KEPT = 2000  # comments; older ones are deleted
LONGEST = {"name": 40, "text": 1000}  # characters

_POLICY = policy("script-src", "style-src", "img-src", "connect-src", "form-action")


class Comments:
    """Comments in a SQLite file. Calls wait for the disk: make them in a thread, not in the event loop. Each opens a
    connection of its own, which takes half a millisecond and needs no lock.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._database() as database:
                database.execute("PRAGMA journal_mode = WAL")
                database.execute(
                    "PRAGMA user_version = 1"
                )  # fails now, not at the first comment, if the file cannot be written
                database.execute(
                    "CREATE TABLE IF NOT EXISTS comment (id INTEGER PRIMARY KEY, name TEXT NOT NULL,"
                    " text TEXT NOT NULL, time TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%SZ', 'now')))"
                )
        except (OSError, sqlite3.Error) as error:
            advice = "set another --state-dir, or omit --demo"
            raise ConfigError(f"cannot create the demo's database {path}: {error}; {advice}") from error

    def add(self, name: str, text: str) -> None:
        with self._database() as database:
            added = database.execute("INSERT INTO comment (name, text) VALUES (?, ?)", (name, text)).lastrowid
            database.execute("DELETE FROM comment WHERE id <= ? - ?", (added, KEPT))

    def newest(self) -> list[dict[str, str | int]]:
        """The last twenty, oldest first."""
        with self._database() as database:
            rows = database.execute("SELECT * FROM comment ORDER BY id DESC LIMIT ?", (SHOWN,)).fetchall()
        return [dict(row) for row in reversed(rows)]

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(self._path)
        database.row_factory = sqlite3.Row
        try:
            with database:  # a transaction
                yield database
        finally:
            database.close()


@dataclass(frozen=True, slots=True)
class Chat:
    """What the handlers need: the database, and the push server to publish to, with its key as it is now."""

    comments: Comments
    prefix: str
    push_url: str
    publish_key: Callable[[], str]
    ssl_context: Callable[[], ssl.SSLContext | None] = lambda: None


class _ChatHandler(Handler):
    methods = "GET, HEAD, POST"
    body_bytes = BODY_BYTES

    def initialize(self, chat: Chat) -> None:
        self.chat = chat

    def prepare(self) -> None:
        self.set_header(*NO_STORE)
        if self.request.method == "POST" and not self._is_own_page():
            self.problem(403, "cross-origin form posts are not allowed")

    def _is_own_page(self) -> bool:
        """Protects from cross-site request forgery by Sec-Fetch-Site, in browsers without it by Origin."""
        header = self.request.headers.get
        site, origin = header("Sec-Fetch-Site", ""), header("Origin", "")
        if site or not origin:
            return site in ("", "same-origin")
        return any(is_same_origin(origin, host) for host in (self.request.host, self.reported_host))

    async def newest(self) -> list[dict[str, str | int]]:
        return await asyncio.to_thread(self.chat.comments.newest)

    async def save(self) -> None:
        """Saves the comment that was posted, and publishes. Raises RequestError."""
        name, text = self._field("name"), self._field("text")
        if not text:
            raise BadRequest("write something first")
        await asyncio.to_thread(self.chat.comments.add, name or "anonymous", text)
        self.set_cookie("name", url_escape(name), path=f"{self.chat.prefix}/demo", httponly=True, samesite="Lax")
        try:
            await publish_async(
                CHANNEL,
                url=self.chat.push_url,
                key=self.chat.publish_key(),
                ssl_context=self.chat.ssl_context(),
            )
        except PublishError as error:  # pages get the comment with the next signal
            log.warning("comment saved, but publishing failed: %s", error)

    def _field(self, name: str) -> str:
        value = self.get_body_argument(name, "").replace("\r\n", "\n")
        if len(value) > LONGEST[name]:
            raise BadRequest(f"the {name} is too long: {len(value)} characters, maximum {LONGEST[name]}")
        return value


class Page(_ChatHandler):
    async def get(self) -> None:
        await self._show()

    head = get  # Tornado leaves the body out

    async def post(self) -> None:
        try:
            await self.save()
        except RequestError as refused:
            self.set_status(refused.status)
            await self._show(refused.detail)
        else:
            self.redirect(f"{self.chat.prefix}/demo/chat", status=303)

    async def _show(self, error: str = "") -> None:
        self.set_header("Content-Security-Policy", _POLICY)
        await self.render(
            "chat.html",
            prefix=self.chat.prefix,
            channel=CHANNEL,
            comments=await self.newest(),
            longest=LONGEST,
            name=self.get_body_argument("name", url_unescape(self.get_cookie("name", ""))),
            text=self.get_body_argument("text", ""),
            error=error,
        )


class Newest(_ChatHandler):
    """The same resource for scripts: JSON, and problem documents."""

    async def get(self) -> None:
        self.finish({"comments": await self.newest()})

    head = get

    async def post(self) -> None:
        try:
            await self.save()
        except RequestError as refused:
            self.problem(refused.status, refused.detail)
        else:
            self.set_status(204)


def routes(chat: Chat) -> list[URLSpec]:
    base = f"{chat.prefix}/demo/chat"
    return [url(base, Page, {"chat": chat}), url(f"{base}/comments", Newest, {"chat": chat})]
