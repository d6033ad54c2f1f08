"""The server's metrics, and their exposition in Prometheus' format (with prometheus-client).

Counters are plain numbers, because they change with every message. ``FAMILIES`` names the metrics; labels are built
when the metrics are scraped. The figures of several workers are merged: counters are sums, gauges as each ``Family``
specifies. docs/operations.md has the same table.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import NamedTuple

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from .wire.damage import DAMAGES

_BOUNDS_S = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


class Family(NamedTuple):
    """``merge``: how a gauge is merged over several workers."""

    kind: type[Metric]
    help: str
    labels: tuple[str, ...] = ()
    merge: Callable[[Iterable[float]], float] = sum


PREFIX = "pushcompat_"
OF_THE_PROCESS = "process_"  # these metrics have the names that all exporters give them, without our prefix
_C, _G, _H = CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
FAMILIES: Mapping[str, Family] = {
    "build_info": Family(_G, "1; the version is in the labels", ("version", "build", "python"), merge=max),
    "subscriptions": Family(_G, "Subscriptions open now", ("transport",)),
    "subscribers": Family(_G, "Subscribers of all channels, in all processes that share the log", merge=max),
    "presence_processes": Family(_G, "Processes that share the log and exchange subscriber counts", merge=max),
    "connections": Family(_G, "Open connections of the hub, all states"),
    "max_connections": Family(_G, "Open connections beyond which subscribers are refused; 0: no limit"),
    "max_connections_per_address": Family(
        _G, "Connections of one address beyond which a process refuses its subscribers", merge=max
    ),
    "addresses": Family(_G, "Addresses that have connections now"),
    "channels": Family(_G, "Channels in memory", merge=max),
    "retained_messages": Family(_G, "Messages currently retained", merge=max),
    "retained_bytes": Family(_G, "Bytes counted against --history-bytes", merge=max),
    "unsent_bytes": Family(_G, "Bytes not yet accepted by the kernel"),
    "admitting": Family(_G, "Subscribers whose token is not verified yet, or about whom the application is asked"),
    "log_last_sequence": Family(_G, "Sequence number of the last message", merge=max),
    "idempotency_keys": Family(_G, "Idempotency-Keys, and ids of batches, currently remembered", merge=max),
    "idempotency_window_seconds": Family(_G, "How long a repeated publish is currently recognised", merge=min),
    "log_writable": Family(_G, "0 after a publish could not be stored (503 or 507), until one can", merge=min),
    "draining": Family(_G, "1 while the server is shutting down", merge=min),
    "workers": Family(_G, "Worker processes that serve"),
    "workers_silent": Family(_G, "Worker processes that did not answer in time; their last known figures are used"),
    "workers_replaced": Family(_C, "Worker processes that ended unexpectedly"),
    "deliveries": Family(_C, "Messages sent to subscribers", ("transport",)),
    "sent_bytes": Family(_C, "Bytes sent to subscribers", ("transport",)),
    "refused": Family(_C, "Requests refused", ("reason", "status")),
    "limited": Family(_C, "Connections and requests refused because a limit was reached", ("limit",)),
    "unsubscribes": Family(_C, "Subscriptions that ended", ("reason",)),
    "publishes": Family(_C, "Publish requests stored"),
    "publish_throttled": Family(_C, "Publish requests delayed by backpressure"),
    "messages": Family(_C, "Messages read from the log, by each worker"),
    "resumes": Family(_C, "Subscriptions resumed from a cursor"),
    "resets": Family(_C, "Reset messages sent because history was lost"),
    "damaged_handshakes": Family(_C, "WebSocket handshakes that proxies have damaged", ("damage",)),
    "tls_handshakes": Family(_C, "TLS handshakes that ended, by result", ("result",)),
    "verifications": Family(_C, "Tokens whose signature was verified"),
    "verification_seconds": Family(_C, "Time that this took"),
    "questions": Family(_C, "Questions that the application at --authorize-url has answered"),
    "question_failures": Family(_C, "Questions without a valid answer"),
    "webhooks": Family(_C, "Changes that the receiver of --presence-webhook has accepted"),
    "webhook_failures": Family(_C, "Failed attempts to send it a change"),
    "hook_requests": Family(_C, "Webhooks of others received and accepted", ("hook",)),
    "hook_refused": Family(_C, "Webhooks of others refused", ("hook", "reason")),
    "accept_pauses": Family(_C, "Times accept() was paused because file descriptors ran out"),
    "delivery_pass_duration_seconds": Family(_H, "Time from a publish to the end of its delivery pass"),
    "process_resident_memory_bytes": Family(_G, "Resident memory"),
    "process_cpu_seconds": Family(_C, "CPU time, user and system"),
    "process_open_fds": Family(_G, "Open file descriptors"),
    "process_max_fds": Family(_G, "Maximum number of open file descriptors"),
    "process_start_time_seconds": Family(_G, "Start time, in seconds since 1970", merge=min),
}


def exposed_name(name: str) -> str:
    """The name in the exposition, without suffix, of a name in ``FAMILIES``."""
    return name if name.startswith(OF_THE_PROCESS) else PREFIX + name


class Buckets(msgspec.Struct):
    """A histogram: for each bound the number of observations since the bound before it, and their sum."""

    counts: list[int]
    sum: float


Labelled = list[tuple[tuple[str, ...], float]]  # the labels' values, in the order of Family.labels
Figures = dict[str, float | Labelled | Buckets]  # by the names of FAMILIES


class Durations:
    """A histogram of durations in seconds."""

    def __init__(self) -> None:
        self.counts = [0] * (len(_BOUNDS_S) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(_BOUNDS_S, seconds)] += 1
        self.sum += seconds


class Metrics:
    """The counters, by the names of ``FAMILIES``. Gauges are read when needed: see ``figures``."""

    def __init__(self) -> None:
        self.subscriptions: Counter[str] = Counter()  # by transport
        self.deliveries: Counter[str] = Counter()  # messages × subscribers, by transport
        self.sent_bytes: Counter[str] = Counter()
        self.refused: Counter[tuple[str, str]] = Counter()  # by reason and status
        self.limited: Counter[str] = Counter()  # by limit
        self.unsubscribes: Counter[str] = Counter()  # by reason
        self.tls_handshakes: Counter[str] = Counter()  # by result
        self.messages = 0
        self.publishes = 0
        self.publish_throttled = 0
        self.resumes = 0
        self.resets = 0
        self.damaged_handshakes: Counter[str] = Counter(dict.fromkeys(DAMAGES, 0))  # by kind
        self.verifications = 0
        self.verification_seconds = 0.0
        self.questions = 0
        self.question_failures = 0
        self.webhooks = 0
        self.webhook_failures = 0
        self.hook_requests: Counter[str] = Counter()  # by hook
        self.hook_refused: Counter[tuple[str, str]] = Counter()  # by hook and reason
        self.accept_pauses = 0
        self.delivery_pass_duration_seconds = Durations()

    def expect(self, name: str, *labels: Hashable) -> None:
        """Exposes these values of the label, or tuples of values, from now on: at 0. ``name``: of a counter with
        labels.

        A series that appears with its first event has no value before, and Prometheus' increase() misses that event.
        """
        getattr(self, name).update(dict.fromkeys(labels, 0))

    def delivered(self, transport: str, messages: int, size: int) -> None:
        self.deliveries[transport] += messages
        self.sent_bytes[transport] += size


def figures(metrics: Metrics, others: Mapping[str, float | Labelled]) -> Figures:
    """The current values. ``others``: those that are not in ``metrics``, by name."""
    found: Figures = {}
    for name in FAMILIES:
        value = others[name] if name in others else getattr(metrics, name, None)
        if isinstance(value, Counter):
            found[name] = [((key,) if isinstance(key, str) else tuple(key), count) for key, count in value.items()]
        elif isinstance(value, Durations):
            found[name] = Buckets(list(value.counts), value.sum)
        elif value is not None:
            found[name] = value
    return found


def merged(workers: Iterable[Figures]) -> Figures:
    """The merged figures of several workers. A gauge is merged over the workers that have it (one that has ended has
    none).
    """
    values: dict[str, list[float | Labelled | Buckets]] = {}
    for found in workers:
        for name, value in found.items():
            values.setdefault(name, []).append(value)
    return {name: _merge(FAMILIES[name], values[name]) for name in FAMILIES if name in values}


def _merge(family: Family, values: Iterable[float | Labelled | Buckets]) -> float | Labelled | Buckets:
    numbers: list[float] = []
    labelled: dict[tuple[str, ...], list[float]] = {}
    buckets: list[Buckets] = []
    for value in values:
        if isinstance(value, Buckets):
            buckets.append(value)
        elif isinstance(value, list):
            for labels, number in value:
                labelled.setdefault(tuple(labels), []).append(number)
        else:
            numbers.append(value)
    if buckets:
        return Buckets(
            [sum(counts) for counts in zip(*(b.counts for b in buckets), strict=True)], sum(b.sum for b in buckets)
        )
    if family.labels:
        return [(labels, family.merge(values)) for labels, values in labelled.items()]
    return family.merge(numbers)


def counted(found: Figures) -> Figures:
    """The figures that remain valid after the process has ended: counters and histograms."""
    return {
        name: value
        for name, value in found.items()
        if name in FAMILIES and FAMILIES[name].kind is not GaugeMetricFamily
    }


class _Collector:
    def __init__(self, found: Figures) -> None:
        self._found = found

    def collect(self) -> Iterator[Metric]:
        for name, value in self._found.items():
            yield _samples(name, FAMILIES[name], value)


def _samples(name: str, family: Family, value: float | Labelled | Buckets) -> Metric:
    metric = family.kind(exposed_name(name), family.help, labels=family.labels)  # type: ignore[call-arg]
    if isinstance(value, Buckets):
        bounds = [*map(str, _BOUNDS_S), "+Inf"]
        metric.add_metric([], list(zip(bounds, accumulate(value.counts), strict=True)), value.sum)  # type: ignore[attr-defined]
    elif isinstance(value, list):
        for labels, number in value:
            metric.add_metric(list(labels), number)  # type: ignore[attr-defined]
    else:
        metric.add_metric([], value)  # type: ignore[attr-defined]
    return metric


def exposition(found: Figures) -> bytes:
    """The figures in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(_Collector(found))
    return generate_latest(registry)
