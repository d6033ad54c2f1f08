"""What the server counts, and its exposition in Prometheus' format (through prometheus-client).

Counting is an addition to a plain number, because it happens for every update; ``FAMILIES`` names the metrics, and
labels are made when somebody asks for them. All of them are of this process. docs/operations.md has the same table.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

_BOUNDS_S = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


class Family(NamedTuple):
    kind: type[Metric]
    help: str
    labels: tuple[str, ...] = ()


PREFIX = "pushcompat_"
_C, _G, _H = CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
FAMILIES: Mapping[str, Family] = {
    "subscriptions": Family(_G, "Subscriptions open now", ("transport",)),
    "connections": Family(_G, "Open connections of the hub, all states"),
    "max_connections": Family(_G, "Open connections beyond which subscribers are refused; 0: no limit"),
    "channels": Family(_G, "Channels in memory"),
    "retained_messages": Family(_G, "Messages currently retained"),
    "retained_bytes": Family(_G, "Bytes counted against --history-bytes"),
    "unsent_bytes": Family(_G, "Bytes that are to be sent and that the kernel did not take yet"),
    "log_last_sequence": Family(_G, "Sequence number of the last message"),
    "idempotency_keys": Family(_G, "Idempotency-Keys that are remembered"),
    "idempotency_window_seconds": Family(_G, "How long a repeated publish is recognised now"),
    "draining": Family(_G, "1 while the server is shutting down"),
    "deliveries": Family(_C, "Messages sent to subscribers", ("transport",)),
    "sent_bytes": Family(_C, "Bytes sent to subscribers", ("transport",)),
    "refused": Family(_C, "Requests refused", ("reason", "status")),
    "unsubscribes": Family(_C, "Subscriptions that ended", ("reason",)),
    "publishes": Family(_C, "Publish requests stored"),
    "publish_throttled": Family(_C, "Publish requests delayed by backpressure"),
    "messages": Family(_C, "Messages read from the log"),
    "resumes": Family(_C, "Subscriptions resumed from a cursor"),
    "resets": Family(_C, "Reset messages sent because history was lost"),
    "stripped_upgrades": Family(_C, "WebSocket handshakes received without an Upgrade header"),
    "accept_pauses": Family(_C, "Times accept() was paused because file descriptors ran out"),
    "delivery_pass_duration_seconds": Family(_H, "Time from an update to the end of its delivery pass"),
}


class Durations:
    """A histogram of durations in seconds."""

    def __init__(self) -> None:
        self.counts = [0] * (len(_BOUNDS_S) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(_BOUNDS_S, seconds)] += 1
        self.sum += seconds

    def buckets(self) -> Iterator[tuple[str, float]]:
        total = 0
        for bound, count in zip([*map(str, _BOUNDS_S), "+Inf"], self.counts, strict=True):
            total += count
            yield bound, total


class Metrics:
    """The counters, by the names of ``FAMILIES``. The gauges are asked for: see ``exposition``."""

    def __init__(self) -> None:
        self.subscriptions: Counter[str] = Counter()  # by transport
        self.deliveries: Counter[str] = Counter()  # messages × subscribers, by transport
        self.sent_bytes: Counter[str] = Counter()
        self.refused: Counter[tuple[str, str]] = Counter()  # by reason and status
        self.unsubscribes: Counter[str] = Counter()  # by reason
        self.messages = 0
        self.publishes = 0
        self.publish_throttled = 0
        self.resumes = 0
        self.resets = 0
        self.stripped_upgrades = 0
        self.accept_pauses = 0
        self.delivery_pass_duration_seconds = Durations()

    def delivered(self, transport: str, messages: int, size: int) -> None:
        self.deliveries[transport] += messages
        self.sent_bytes[transport] += size


Value = float | Counter[str] | Counter[tuple[str, str]] | Durations
Gauges = Callable[[], Mapping[str, float]]


class _Collector:
    def __init__(self, metrics: Metrics, gauges: Gauges) -> None:
        self._metrics = metrics
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        gauges = self._gauges()
        for name, family in FAMILIES.items():
            value: Value = gauges[name] if name in gauges else getattr(self._metrics, name)
            yield _samples(name, family, value)


def _samples(name: str, family: Family, value: Value) -> Metric:
    metric = family.kind(PREFIX + name, family.help, labels=family.labels)  # type: ignore[call-arg]
    if isinstance(value, Durations):
        metric.add_metric([], list(value.buckets()), value.sum)  # type: ignore[attr-defined]
    elif isinstance(value, Counter):
        for labels, count in value.items():
            metric.add_metric([labels] if isinstance(labels, str) else list(labels), count)  # type: ignore[attr-defined]
    else:
        metric.add_metric([], value)  # type: ignore[attr-defined]
    return metric


def exposition(metrics: Metrics, gauges: Gauges) -> Callable[[], bytes]:
    """A function that returns the current values. ``gauges``: those that are not in ``metrics``, by name."""
    registry = CollectorRegistry()
    registry.register(_Collector(metrics, gauges))
    return lambda: generate_latest(registry)
