"""Messages, and cursors: positions in the log.

A cursor is the text ``<epoch>-<sequence>``, both of fixed width, so that cursors of one epoch sort as strings. The
epoch identifies the contents of a log: a new epoch is another log. Sequence numbers are global to the log, not per
channel, so one cursor resumes any set of channels.
"""

from __future__ import annotations

import secrets

import msgspec

EPOCH_WIDTH = 8
SEQUENCE_WIDTH = 15  # 10^15 messages; still exact as a JavaScript number
CURSOR_WIDTH = EPOCH_WIDTH + 1 + SEQUENCE_WIDTH
EARLIEST = "earliest"  # instead of a cursor: from the oldest retained message
_EPOCH_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no letters that look alike

SIGNAL = b"UPDATED"  # the payload of an empty publish: "something changed, refetch"
SIGNAL_KEY = ""  # the reserved key of signals; publishers cannot set it

# The channel of the access log. No client can name it: "!" is not a character of channel names.
ACCESS_LOG = "!access"


def new_epoch() -> str:
    return "".join(secrets.choice(_EPOCH_ALPHABET) for _ in range(EPOCH_WIDTH))


def format_cursor(epoch: str, sequence: int) -> str:
    return f"{epoch}-{sequence:015d}"


def parse_cursor(text: str) -> tuple[str, int] | None:
    """Returns (epoch, sequence), or None if the text is not a cursor."""
    epoch, dash, digits = text[:EPOCH_WIDTH], text[EPOCH_WIDTH : EPOCH_WIDTH + 1], text[EPOCH_WIDTH + 1 :]
    if len(text) != CURSOR_WIDTH or dash != "-" or not (digits.isascii() and digits.isdigit()):
        return None
    return epoch, int(digits)


class Message(msgspec.Struct, eq=False, gc=False):
    """One message in one channel.

    ``data`` is the payload's own bytes, valid UTF-8; ``json``: it is a JSON document, not plain text.
    ``time_ms`` is milliseconds since 1970 by the clock of the server that accepted the message. ``ttl_s`` is the number
    of seconds after which the message is dropped. ``spread_ms`` is the window in which subscribers should spread their
    refetches. A message that is not in the log yet is a draft: its ``sequence`` is 0. Once it is in the log it never
    changes, since all followers of a store share it.
    """

    channel: str
    data: bytes
    json: bool = False
    key: str | None = None
    type: str | None = None
    ttl_s: float | None = None
    spread_ms: int | None = None
    time_ms: int = 0
    sequence: int = 0
