"""Names of channels, keys and types, and numbers of seconds, as requests give them."""

from __future__ import annotations

import re

from ..errors import BadRequest

NAME = re.compile(r"[A-Za-z0-9._:~@-]{1,128}")
_ALPHABET = "1-128 characters of A-Z a-z 0-9 . _ : ~ @ -"


def channel_names(text: str, maximum: int) -> tuple[str, ...]:
    """The channels of a comma-separated list, without duplicates, in their order. Raises BadRequest."""
    if NAME.fullmatch(text):
        return (text,)
    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if not NAME.fullmatch(name):
            raise BadRequest(f"{shown(name)} is not a channel's name: use {_ALPHABET}")
    if len(names) > maximum:
        raise BadRequest(f"{len(names)} channels in one request; ask for at most {maximum}")
    return names


def label(name: str, text: str) -> str:
    """A ``key`` or a ``type``: the alphabet of channel names."""
    if not NAME.fullmatch(text):
        raise BadRequest(f"{name}={shown(text)}: use {_ALPHABET}")
    if name == "type" and text.startswith("control"):
        raise BadRequest("a type must not begin with “control”: that is what the server's own events are called")
    return text


def shown(text: str) -> str:
    return ascii(text if len(text) <= 40 else text[:40] + "…")


def seconds(name: str, text: str, *, least: float = 0.0) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not least <= value < float("inf"):
        raise BadRequest(f"{name}={shown(text)}: give a number of seconds, {least:g} or more")
    return value
