"""pushcompat in a Django project: add ``"pushcompat.contrib.django"`` to INSTALLED_APPS. See docs/applications.md.

from pushcompat.contrib.django import notify
notify("orders")  # after the commit; it never waits for the push server, and never raises because of it
"""

from __future__ import annotations

from .changes import push_changes
from .notifying import anotify, notify
from .page import make_token, push_cursor

__all__ = ["anotify", "make_token", "notify", "push_changes", "push_cursor"]
