"""The hub owns the sockets under /channels: it subscribes, publishes and delivers. ``Hub`` is all that others need."""

from .hub import Hub, Settings

__all__ = ["Hub", "Settings"]
