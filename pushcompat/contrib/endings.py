"""Where no thread runs between requests, what was queued is published at the end of a request.

That is so under uWSGI without ``enable-threads``, and where a function is frozen after its answer.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from ..client.breaker import Breaker
from ..client.publisher import BREAKER_S


def has_threads() -> bool:
    """Whether a thread of this process runs between requests."""
    if os.environ.get("AWS_LAMBDA_FUNCTION_NAME"):
        return False
    uwsgi = sys.modules.get("uwsgi")  # made by the server, before the application
    return uwsgi is None or bool(uwsgi.opt.get("enable-threads") or uwsgi.opt.get("threads"))


class EndOfRequest:
    """``flush`` waits for the queue. If that takes too long, it is not waited for again for some seconds; the
    thread goes on while a later request runs.
    """

    def __init__(self, flush: Callable[[float], bool], timeout_s: float) -> None:
        self._flush = flush
        self._timeout_s = timeout_s
        self._breaker = Breaker(BREAKER_S)

    def __call__(self) -> None:
        if not self._breaker.allows():
            return
        if self._flush(self._timeout_s):
            self._breaker.succeeded()
        else:
            self._breaker.failed()
