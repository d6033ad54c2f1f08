"""What the server counts, and its exposition in Prometheus' format (through prometheus-client).

Counting is an addition to a plain number, because it happens for every update; names and labels are made when somebody
asks for them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

_BOUNDS_S = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


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
    def __init__(self) -> None:
        self.connections: Counter[str] = Counter()  # subscriptions open now, by transport
        self.deliveries: Counter[str] = Counter()  # messages × subscribers, by transport
        self.bytes: Counter[str] = Counter()
        self.refused: Counter[tuple[str, int]] = Counter()  # by reason and status
        self.messages = 0
        self.publishes = 0
        self.publish_waits = 0
        self.passes = Durations()
        self.resumes = 0
        self.resets = 0
        self.stripped_upgrades = 0
        self.accept_pauses = 0

    def delivered(self, transport: str, messages: int, size: int) -> None:
        self.deliveries[transport] += messages
        self.bytes[transport] += size


Gauges = Callable[[], Iterable[tuple[str, str, float]]]


class _Collector:
    def __init__(self, metrics: Metrics, gauges: Gauges) -> None:
        self._metrics = metrics
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        m = self._metrics
        yield _labelled(GaugeMetricFamily, "connections", "Subscriptions open now", "transport", m.connections)
        yield _labelled(CounterMetricFamily, "deliveries", "Messages handed to subscribers", "transport", m.deliveries)
        yield _labelled(CounterMetricFamily, "delivered_bytes", "Bytes handed to subscribers", "transport", m.bytes)
        refused = CounterMetricFamily("pushcompat_refused", "Requests refused", labels=["reason", "status"])
        for (reason, status), count in m.refused.items():
            refused.add_metric([reason, str(status)], count)
        yield refused
        for name, text, count in (
            ("publishes", "Publish requests that the log took", m.publishes),
            ("publish_waits", "Times that a publish waited for the pass of a crowded channel", m.publish_waits),
            ("messages", "Messages seen in the log", m.messages),
            ("resumes", "Subscriptions that went on from a cursor", m.resumes),
            ("resets", "Times that subscribers were told that history is gone", m.resets),
            (
                "stripped_upgrades",
                "WebSocket handshakes that lost their Upgrade on the way here",
                m.stripped_upgrades,
            ),
            ("accept_pauses", "Times that accepting paused for want of file descriptors", m.accept_pauses),
        ):
            yield CounterMetricFamily(f"pushcompat_{name}", text, count)
        passes = HistogramMetricFamily("pushcompat_pass_seconds", "From an update to the end of the pass it made")
        passes.add_metric([], list(m.passes.buckets()), m.passes.sum)
        yield passes
        for name, text, value in self._gauges():
            yield GaugeMetricFamily(f"pushcompat_{name}", text, value)


def _labelled(family: type, name: str, text: str, label: str, counts: Counter[str]) -> Metric:
    metric: Metric = family(f"pushcompat_{name}", text, labels=[label])
    for value, count in counts.items():
        metric.add_metric([value], count)  # type: ignore[attr-defined]
    return metric


def exposition(metrics: Metrics, gauges: Gauges) -> Callable[[], bytes]:
    """A function that says how things stand now, in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Collector(metrics, gauges))
    return lambda: generate_latest(registry)
