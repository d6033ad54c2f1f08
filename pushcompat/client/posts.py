"""What a publish sends: the path, the body and its type. Standard library only."""

import json
import re
from collections.abc import Iterable
from typing import NotRequired, TypedDict
from urllib.parse import quote, urlencode

_NAME = r"[A-Za-z0-9._:~@-]{1,128}"


class JsonText(str):
    """Text that is already a JSON document."""


# Without "from __future__ import annotations", whose text ``typing`` would compile: 4 % of the time of the import
class Update(TypedDict):
    """One message of a batch, with the arguments of ``publish``: ``ttl`` in seconds. ``id``: 1 to 256 printable ASCII
    characters. A message whose id was published in the last minutes is not published again, whatever else is in the
    batch.
    """

    channel: str
    data: NotRequired[object]
    message_key: NotRequired[str | None]
    type: NotRequired[str | None]
    ttl: NotRequired[float | None]
    id: NotRequired[str | None]


class Batch:
    """The messages of a block: call it as ``publish``. ``published``: the result, after the block."""

    def __init__(self) -> None:
        self.updates: list[Update] = []
        self.published: object = None

    def __call__(
        self,
        channel: str | Iterable[str],
        data: object = None,
        *,
        message_key: str | None = None,
        type: str | None = None,
        ttl: float | None = None,
    ) -> None:
        for name in [channel] if isinstance(channel, str) else channel:
            self.updates.append({"channel": name, "data": data, "message_key": message_key, "type": type, "ttl": ttl})


class Post:
    """``path`` is below the server's prefix."""

    __slots__ = "body", "content_type", "path"

    def __init__(self, path: str, body: bytes, content_type: str) -> None:
        self.path = path
        self.body = body
        self.content_type = content_type


def to_channels(
    channel: str | Iterable[str], data: object, message_key: str | None, type: str | None, ttl: float | None
) -> Post:
    """Raises ValueError or TypeError for what cannot be sent."""
    if isinstance(channel, str):
        path = f"/channels/{checked_name(channel)}"
    else:
        names = list(channel)
        if not names:
            raise ValueError("at least one channel is required")
        path = f"/channels/{quote(','.join(map(checked_name, names)), safe=':@~,')}"
    if message_key is not None or type is not None or ttl is not None:
        given = {"key": message_key, "type": type, "ttl": ttl}
        path = f"{path}?{urlencode({name: value for name, value in given.items() if value is not None})}"
    return Post(path, *_encoded(data))


def batch(updates: Iterable[Update]) -> Post:
    """Raises ValueError or TypeError for what cannot be sent."""
    return batch_of(map(batch_item, updates))


def batch_of(items: Iterable[bytes]) -> Post:
    """``items``: from ``batch_item``."""
    return Post("/channels", b"[%b]" % b",".join(items), "application/json")


def _encoded(data: object) -> tuple[bytes, str]:
    if isinstance(data, JsonText):
        return data.encode(), "application/json"
    if data is None or isinstance(data, str):
        return (data or "").encode(), "text/plain; charset=utf-8"
    if isinstance(data, bytes | bytearray):
        data.decode()  # a UnicodeDecodeError here is clearer than the server's 400
        return bytes(data), "text/plain; charset=utf-8"
    return _json(data).encode(), "application/json"


# Made once: json.dumps makes an encoder for each call with options.
_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def _json(data: object) -> str:
    return data if isinstance(data, JsonText) else _encode(data)


_WIRE_NAMES = {"channel": "channel", "data": "data", "message_key": "key", "type": "type", "ttl": "ttl", "id": "id"}


def batch_item(update: Update) -> bytes:
    """Raises ValueError or TypeError for what cannot be sent."""
    if unknown := update.keys() - _WIRE_NAMES.keys():
        hint = "; the key of a message is message_key" if "key" in unknown else ""
        raise ValueError(f"an update has no {', '.join(sorted(unknown))}{hint}")
    fields: dict[str, object] = {_WIRE_NAMES[name]: value for name, value in update.items() if value is not None}
    checked_name(update["channel"])
    if isinstance(data := fields.get("data"), bytes | bytearray):
        fields["data"] = data.decode()
    return f"{{{','.join(f'{_json(name)}:{_json(value)}' for name, value in fields.items())}}}".encode()


def checked_name(name: str) -> str:
    if not re.fullmatch(_NAME, name):
        raise ValueError(f"{name!r} is not a valid channel name: use 1-128 of A-Z a-z 0-9 . _ : ~ @ -")
    return name
