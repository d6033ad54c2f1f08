"""Parses names of channels, keys and types, and durations, in requests."""

from __future__ import annotations

import re

from ..errors import BadRequest

NAME = re.compile(r"[A-Za-z0-9._:~@-]{1,128}")
_ALPHABET = "1-128 characters of A-Z a-z 0-9 . _ : ~ @ -"
_SHOWN_CHARACTERS = 40


def channel_names(text: str, maximum: int) -> tuple[str, ...]:
    """The channels of a comma-separated list, without duplicates, in their order. Raises BadRequest."""
    if NAME.fullmatch(text):
        return (text,)
    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if not NAME.fullmatch(name):
            raise BadRequest(f"invalid channel name {shown(name)}: use {_ALPHABET}")
    if len(names) > maximum:
        raise BadRequest(f"too many channels: {len(names)}, maximum {maximum}")
    return names


def label(name: str, text: str) -> str:
    """A ``key`` or a ``type``, which have the alphabet of channel names. Raises BadRequest."""
    if not NAME.fullmatch(text):
        raise BadRequest(f"{name}={shown(text)}: use {_ALPHABET}")
    if name == "type" and text.startswith("control"):
        raise BadRequest('type must not start with "control" (reserved for control messages)')
    return text


def seconds(name: str, text: str, *, minimum: float = 0.0) -> float:
    """A finite number of seconds. Raises BadRequest."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not minimum <= value < float("inf"):
        raise BadRequest(f"{name}={shown(text)}: use a number of seconds, {minimum:g} or more")
    return value


def shown(text: str) -> str:
    """Client input for an error message: printable, and shortened."""
    return ascii(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…")
