"""``manage.py push_outbox``: publishes the outbox, until it is ended."""

from __future__ import annotations

import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import DEFAULT_DB_ALIAS, close_old_connections

from pushcompat.client.failures import PublishError

from ...models import OutboxMessage
from ...outbox import deliver


class Command(BaseCommand):
    help = "Publishes the messages of the outbox. Run one, or several: each message is published once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="end when the outbox is empty")
        parser.add_argument("--retry-refused", action="store_true", help="try again what the push server has refused")
        parser.add_argument("--interval", type=float, default=1.0, help="seconds between looks at an empty outbox")
        parser.add_argument("--database", default=DEFAULT_DB_ALIAS)

    def handle(self, *, once: bool, retry_refused: bool, interval: float, database: str, **_: Any) -> None:
        if retry_refused:
            OutboxMessage.objects.using(database).exclude(refused="").update(refused="")
        ended = threading.Event()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, lambda *_: ended.set())
        away = False
        while not ended.is_set():
            try:
                published = deliver(database)
                away = False
            except PublishError as error:
                if once:
                    raise CommandError(str(error)) from None
                if not away:
                    self.stderr.write(f"{error}; the outbox waits")
                published, away = None, True
            if published is not None:
                continue
            if once:
                return
            close_old_connections()
            ended.wait(interval)
