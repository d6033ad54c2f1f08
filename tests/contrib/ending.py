from __future__ import annotations

import atexit

from pushcompat import Publisher


def forget(publisher: Publisher) -> None:
    """The process of the tests does not wait, at its end, for a push server that is away."""
    atexit.unregister(publisher._later()._end)
