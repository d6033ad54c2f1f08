"""``notify``: says that something has changed, once that is committed.

Messages of one transaction are published together, and folded: a hook is registered for each, and the first that runs
takes the messages of all after it. So a hook of somebody else that fails between them takes none with it. Django drops
the hooks of a savepoint that is rolled back, and nothing else refers to them, so their messages are gone too.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterable
from functools import partial
from weakref import ReferenceType, ref

from asgiref.sync import sync_to_async
from django.core.serializers.json import DjangoJSONEncoder
from django.db import DEFAULT_DB_ALIAS, connections, transaction

from ..messages import Message, messages
from ..options import MODES
from .conf import push_options
from .sending import send, store

_ENCODER: json.JSONEncoder = DjangoJSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def notify(
    channel: str | Iterable[str],
    data: object = None,
    *,
    message_key: str | None = None,
    type: str | None = None,
    ttl: float | None = None,
    using: str | None = None,
    mode: str | None = None,
) -> None:
    """Publishes to a channel, or to each of several, after the commit; at once if there is no transaction.

    ``data``, ``message_key``, ``type``, ``ttl``: as for ``publish``; JSON also of dates, decimals and UUIDs. ``using``:
    the database whose transaction it is. ``mode``: ``"outbox"``, ``"now"``, …, instead of the setting.

    Raises TypeError or ValueError for what cannot be sent, and nothing because of the push server. In mode ``outbox``
    it raises what the database does.
    """
    given = messages(channel, data, message_key=message_key, type=type, ttl=ttl, encoder=_ENCODER)
    how = mode or push_options().mode
    if how not in MODES:
        raise ValueError(f"mode {how!r} must be one of {', '.join(MODES)}")
    if _in_event_loop():
        if how == "outbox":
            raise RuntimeError("notify() cannot use the database in a coroutine; write: await anotify(…)")
        send(given, "later" if how == "now" else how)  # a coroutine has no transaction, and must not wait
    elif how == "outbox":
        store(given, using)
    else:
        _after_commit(given, using or DEFAULT_DB_ALIAS, how)


async def anotify(channel: str | Iterable[str], data: object = None, **options: str | float | None) -> None:
    """``notify`` for coroutines; needed only for mode ``outbox``, which uses the database."""
    await sync_to_async(partial(notify, channel, data, **options))()  # type: ignore[arg-type]


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return not os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE")


class _Hook:
    """What Django calls after the commit. ``hooks``: those of the connection, in order."""

    def __init__(self, given: list[Message], mode: str, hooks: list[ReferenceType[_Hook]]) -> None:
        self.__qualname__ = "notify"  # in Django's log
        self.messages = given
        self.mode = mode
        self._hooks = hooks
        hooks.append(ref(self))

    def __call__(self) -> None:
        if not self.messages:
            return  # an earlier one has taken them
        start = next(index for index, hook in enumerate(self._hooks) if hook() is self)
        later = [hook for reference in self._hooks[start:] if (hook := reference()) is not None]
        del self._hooks[start:]
        by_mode: dict[str, list[Message]] = {}
        for hook in later:
            by_mode.setdefault(hook.mode, []).extend(hook.messages)
            hook.messages = []
        for mode, given in by_mode.items():
            send(given, mode)


def _after_commit(given: list[Message], using: str, mode: str) -> None:
    connection = connections[using]
    if connection.connection is None and not connection.in_atomic_block:
        send(given, mode)  # on_commit would connect to a database that this request does not use
        return
    hooks: list[ReferenceType[_Hook]] = vars(connection).setdefault("_pushcompat_hooks", [])
    while hooks and hooks[-1]() is None:
        hooks.pop()
    transaction.on_commit(_Hook(given, mode, hooks), using=using, robust=True)
