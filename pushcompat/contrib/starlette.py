"""pushcompat in a Starlette application; in one with FastAPI use ``pushcompat.contrib.fastapi``.

push = Push()

async def add(request):
    notify = push.notify()
    notify("chat")
    return PlainTextResponse("saved", background=notify.task)

app = Starlette(routes=…, lifespan=push.lifespan)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from starlette.background import BackgroundTask

from ..client.async_publisher import AsyncPublisher
from ..client.failures import PublishError
from ..errors import ConfigError
from .endings import EndOfRequest
from .messages import Message, fold, messages
from .options import Options
from .page import log, page, token
from .recorder import Recorder, is_test, pytest_test
from .sending import send, send_async


class Push:
    """Has an ``AsyncPublisher`` while the application runs. Takes the fields of ``Options``: ``url``, ``key``, …;
    ``mode`` is ``later``, ``request`` or ``now``.

    ``outbox``: what ``notify`` would have published in tests. Raises ConfigError.
    """

    def __init__(self, **given: Any) -> None:
        self.options = Options(**given)
        if self.options.mode == "outbox":
            raise ConfigError("mode outbox is for Django; docs/applications.md has one for PostgreSQL")
        self._end_of_request = EndOfRequest(lambda seconds: self.options.publisher.flush(seconds), self.options.timeout)
        self.outbox = Recorder(pytest_test)
        self._publisher: AsyncPublisher | None = None

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        """For ``lifespan=``. In a lifespan of your own write ``async with push.lifespan(app):``."""
        async with AsyncPublisher(self.options.url, self.options.given_key, timeout=self.options.timeout) as publisher:
            self._publisher = publisher
            try:
                yield
            finally:
                self._publisher = None
                if self.options.mode != "now" and not self._only_recorded:
                    # Servers end the process by the signal that they got, without Python's exit functions
                    await asyncio.to_thread(self.options.publisher.drain)

    @property
    def publisher(self) -> AsyncPublisher:
        """Raises RuntimeError before the application has started."""
        if self._publisher is None:
            raise RuntimeError("the application was started without its lifespan; give it lifespan=push.lifespan")
        return self._publisher

    def notify(self) -> Notify:
        """Collects messages; give its ``task`` to the response."""
        return Notify(self)

    async def page(self, *channels: str, sub: str | None = None) -> dict[str, str]:
        """``url``, ``cursor`` and ``token`` for ``PushCompat.subscribe``. Call it before the page's data is read, so
        that it misses nothing. Check first that the user may see these channels.
        """
        given = self.options
        made = token(given.token_key, given.token_key_file, given.token_ttl, channels, sub)
        return page(given.page_url, channels, await self._cursor(), made)

    async def _cursor(self) -> str:
        if self._only_recorded:
            return ""
        try:
            return await self.publisher.cursor()
        except PublishError as error:
            log.warning("a page subscribes without a cursor: %s", error)
            return ""

    @property
    def _only_recorded(self) -> bool:
        return is_test() if self.options.test_outbox is None else self.options.test_outbox

    async def send(self, given: list[Message]) -> None:
        """Never raises because of the push server."""
        if self._only_recorded:
            self.outbox.record(fold(given))
        elif self.options.mode == "now":
            await send_async(fold(given), self.publisher)
        else:
            send(fold(given), self.options.publisher, self.options.mode)
            if self.options.mode == "request":
                await asyncio.to_thread(self._end_of_request)


class Notify:
    """Messages of one request, which are published as one batch after the response, and not after an exception."""

    def __init__(self, push: Push) -> None:
        self._messages: list[Message] = []
        self.task = BackgroundTask(push.send, self._messages)

    def __call__(
        self,
        channel: str | Iterable[str],
        data: object = None,
        *,
        message_key: str | None = None,
        type: str | None = None,
        ttl: float | None = None,
    ) -> None:
        """Arguments as for ``publish``. Raises TypeError or ValueError for what cannot be sent."""
        self._messages += messages(channel, data, message_key=message_key, type=type, ttl=ttl)
