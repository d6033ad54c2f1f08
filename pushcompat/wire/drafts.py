"""The body of a publish, as messages that are not in the log yet. (Stand-in until the real one is merged.)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from ..errors import BadRequest, PayloadTooLarge, Refused, UnsupportedMedia
from ..message import SIGNAL, SIGNAL_KEY, Message
from .names import channel_names, label, seconds

_TEXT_TYPES = ("", "application/x-www-form-urlencoded")
_check_json = msgspec.json.Decoder(msgspec.Raw).decode


class Item(msgspec.Struct, forbid_unknown_fields=True):
    channel: str
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    key: str | None = None
    type: str | None = None
    ttl: float | None = None


@lru_cache(64)
def media_type(content_type: bytes, content_encoding: bytes) -> str:
    name, _, parameters = content_type.decode("latin-1").lower().partition(";")
    name = name.strip()
    if name != "application/json" and name not in _TEXT_TYPES and not name.startswith("text/"):
        raise UnsupportedMedia(f"publish application/json or text/plain, not {name[:60]}")
    if "charset=" in parameters and "utf-8" not in parameters and "utf8" not in parameters:
        raise UnsupportedMedia("the charset must be utf-8")
    if content_encoding.lower() not in (b"", b"identity"):
        raise UnsupportedMedia("send the body without Content-Encoding")
    return name


def payload(body: bytes, is_json: bool) -> bytes:
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8 at byte {error.start}") from None
    if not is_json:
        return body
    try:
        _check_json(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRequest(f"invalid JSON: {error}; to publish text use Content-Type: text/plain") from None
    return body if body[0] > 32 and body[-1] > 32 else body.strip()


def single(body: bytes, is_json: bool, names: Sequence[str], params: Mapping[str, str]) -> list[Message]:
    is_json = bool(body) and is_json
    data = payload(body, is_json)
    ttl = seconds("ttl", params["ttl"]) if params.get("ttl") else None
    key, kind = params.get("key") or None, params.get("type") or None
    return [_draft(name, data, is_json, key, kind, ttl) for name in names]


def batch(
    body: bytes, media_type: str, params: Mapping[str, str], *, max_messages: int, message_bytes: int
) -> list[Message]:
    if media_type != "application/json":
        raise UnsupportedMedia("a batch is a JSON array; send it as application/json")
    if {"key", "type", "ttl"} & params.keys():
        raise BadRequest("in a batch, key, type and ttl belong to each message")
    try:
        body.decode()
        items = msgspec.json.decode(body, type=list[Item])
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8 at byte {error.start}") from None
    except msgspec.ValidationError as error:
        raise BadRequest(f"the batch is not as it should be: {error}") from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from None
    if not 0 < len(items) <= max_messages:
        raise BadRequest(f"a batch has 1 to {max_messages} messages, not {len(items)}")
    return [_item(index, item, message_bytes) for index, item in enumerate(items)]


def _item(index: int, item: Any, message_bytes: int) -> Message:
    try:
        (name,) = channel_names(item.channel, 1)
        data, is_json = b"" if item.data is msgspec.UNSET else bytes(item.data), True
        if data[:1] in (b'"', b""):
            data, is_json = (msgspec.json.decode(data, type=str).encode() if data else b""), False
        if len(data) > message_bytes:
            raise PayloadTooLarge(f"a message may have at most {message_bytes} bytes")
        return _draft(name, data, is_json, item.key, item.type, item.ttl)
    except Refused as refused:
        refused.detail = f"message {index} of the batch: {refused.detail}"
        raise


def _draft(name: str, data: bytes, is_json: bool, key: str | None, kind: str | None, ttl: float | None) -> Message:
    if key is not None:
        label("key", key)
    if kind is not None:
        label("type", kind)
    if ttl is not None and not ttl > 0:
        raise BadRequest("ttl is a number of seconds above 0")
    if not data:
        return Message(name, SIGNAL, False, SIGNAL_KEY if key is None else key, kind, ttl)
    return Message(name, data, is_json, key, kind, ttl)
