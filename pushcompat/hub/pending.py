"""A publish in progress, and the template of a publish.

They are in a separate file because mypyc cannot compile msgspec's structs (setup.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from ..access.grant import Grant
from ..store.base import Outcome, Publish, Receipt
from .connection import Connection


class Pending(Publish, eq=False, kw_only=True):
    """A publish without a response yet, and the connection that waits for it; None: the server itself publishes, and
    ``answer`` is called with the outcome.
    """

    connection: Connection | None
    names: Sequence[str]
    grant: Grant
    keep_alive: bool
    answer: Callable[[Outcome], None] | None = None
    receipt: Receipt | None = None  # it is in the log
    given_up: bool = False  # its response was sent before the log confirmed it


class Template(msgspec.Struct, frozen=True):
    """The properties of a publish that its header fields determine."""

    length: int
    media_type: str
    grant: Grant
