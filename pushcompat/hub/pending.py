"""What a publish is while it is under way, and what is remembered of one.

They are in a file of their own because the compiled build cannot make the structs of msgspec (setup.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ..access import Grant
from ..store.base import Publish, Receipt
from .connection import Connection


class Pending(Publish, eq=False, kw_only=True):
    """A publish that is not answered yet, and the connection that waits for the answer."""

    connection: Connection
    names: Sequence[str]
    grant: Grant
    keep_alive: bool
    receipt: Receipt | None = None  # the log has it
    given_up: bool = False  # it was answered before the log had answered


class Template(msgspec.Struct, frozen=True):
    """What its header fields decide of a publish."""

    length: int
    media_type: str
    grant: Grant
