"""Public: ``Hub``, ``Settings``, and ``LoopSelector`` for creating the event loop."""

from .hub import Hub, Settings
from .selector import LoopSelector

__all__ = ["Hub", "LoopSelector", "Settings"]
