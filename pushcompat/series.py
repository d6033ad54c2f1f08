"""The series of each metric that exist from the start, at 0: all values of a label that are known then."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .access.hooks import Hook
from .access.providers import Unverified
from .errors import RequestError
from .hub.reasons import CloseReason
from .metrics import Metrics
from .wire.encoding import TRANSPORTS

LIMITS = ("connections", "connections_per_address", "handshake_rate", "publish_rate", "verification", "questions")
HANDSHAKES = ("completed", "failed", "timeout", "not_tls")


def begin(metrics: Metrics, hooks: Iterable[Hook]) -> None:
    for name in ("subscriptions", "deliveries", "sent_bytes"):
        metrics.expect(name, *TRANSPORTS)
    metrics.expect("unsubscribes", *map(str, CloseReason))
    metrics.expect("limited", *LIMITS)
    metrics.expect("tls_handshakes", *HANDSHAKES)
    metrics.expect("refused", *((kind.label(), str(int(kind.status))) for kind in _kinds(RequestError)))
    expect_hooks(metrics, hooks)


def expect_hooks(metrics: Metrics, hooks: Iterable[Hook]) -> None:
    reasons = [Unverified.label(), *(kind.label() for kind in _kinds(RequestError))]
    for hook in hooks:
        metrics.expect("hook_requests", hook.name)
        metrics.expect("hook_refused", *((hook.name, reason) for reason in reasons))


def _kinds(base: type[RequestError]) -> Iterator[type[RequestError]]:
    """The kinds of error response that ``errors`` has."""
    for kind in base.__subclasses__():
        if kind.__module__ == base.__module__:
            yield kind
            yield from _kinds(kind)
