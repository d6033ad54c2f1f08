"""Messages that an application has decided to publish, and will once its transaction or request has ended.

They are checked and encoded at once, where the mistake is: not in a callback whose errors go to a log.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..client.posts import JsonText, Update, batch, batch_item

BATCH_MESSAGES = 1000
BATCH_BYTES = 1_000_000


class Message(NamedTuple):
    """``data``: None or an empty text is the bare signal; JsonText is encoded JSON, other strings are text."""

    channel: str
    data: object = None
    message_key: str | None = None
    type: str | None = None
    ttl: float | None = None

    def update(self) -> Update:
        """The item of a batch."""
        channel, data, message_key, type, ttl = self
        return {"channel": channel, "data": data, "message_key": message_key, "type": type, "ttl": ttl}

    def decoded(self) -> Message:
        """With JSON as Python's values, as subscribers get it."""
        return self._replace(data=json.loads(self.data)) if isinstance(self.data, JsonText) else self


def messages(
    channel: str | Iterable[str],
    data: object = None,
    *,
    message_key: str | None = None,
    type: str | None = None,
    ttl: float | None = None,
    encoder: json.JSONEncoder | None = None,
) -> list[Message]:
    """A message for each channel. Raises ValueError or TypeError for what cannot be sent."""
    for value in (channel, data):
        if inspect.isawaitable(value):
            if inspect.iscoroutine(value):
                value.close()  # it would be warned of in a place that has nothing to do with it
            raise TypeError("this takes a channel and data, not a coroutine; to notify, call notify('chat')")
    names = [channel] if isinstance(channel, str) else list(channel)
    if not names:
        raise ValueError("at least one channel is required")
    encoded = _encoded(data, encoder)
    made = [Message(name, encoded, message_key, type, ttl) for name in names]
    batch(message.update() for message in made)
    return made


def _encoded(data: object, encoder: json.JSONEncoder | None) -> object:
    """What later changes of ``data`` do not change."""
    if data is None or isinstance(data, str):
        return data
    if isinstance(data, bytes | bytearray):
        return data.decode()
    return JsonText((encoder or ENCODER).encode(data))


ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def fold(given: Iterable[Message]) -> list[Message]:
    """Without signals, and messages with a key, that a later one of the same channel replaces."""
    folded: dict[object, Message] = {}
    for number, message in enumerate(given):
        key = message.message_key
        if key is None and message.data in (None, ""):
            key = ""
        place: object = number if key is None else (message.channel, key)
        folded.pop(place, None)
        folded[place] = message
    return list(folded.values())


def batches(given: Iterable[Message]) -> Iterator[list[Message]]:
    """In the same order, as many at once as a server takes by default: 1,000, and 1 MiB."""
    collected: list[Message] = []
    size = 0
    for message in given:
        item = len(batch_item(message.update())) + 1
        if collected and (len(collected) >= BATCH_MESSAGES or size + item > BATCH_BYTES):
            yield collected
            collected, size = [], 0
        collected.append(message)
        size += item
    if collected:
        yield collected


def updates(given: Iterable[Message]) -> list[Update]:
    return [message.update() for message in given]
