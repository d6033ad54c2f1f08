from __future__ import annotations

import os
import platform
import re
import resource
import time
from pathlib import Path
from types import SimpleNamespace

from prometheus_client.core import CounterMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from pushcompat import __version__, process, series
from pushcompat.build import COMPILED
from pushcompat.errors import StoreFull, TooManyRequests, UnsupportedMedia
from pushcompat.hub.reasons import CloseReason
from pushcompat.metrics import FAMILIES, Buckets, Figures, Metrics, counted, exposed_name, exposition, figures, merged

from .harness import Server


def samples(metrics: Metrics) -> dict[tuple[str, str], float]:
    """By name and the value of the label, if there is one."""
    gauges = [name for name in FAMILIES if not hasattr(metrics, name)]
    text = exposition(figures(metrics, dict.fromkeys(gauges, 3.0))).decode()
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_everything_that_is_counted_is_exposed() -> None:
    metrics = Metrics()
    metrics.subscriptions["websocket"] += 2
    metrics.delivered("longpoll", 5, 700)
    metrics.refused["unauthorized", "401"] += 1
    metrics.unsubscribes["left"] += 4
    metrics.damaged_handshakes["no_key"] += 7
    for name in ("messages", "publishes", "resumes", "resets", "accept_pauses"):
        setattr(metrics, name, 7)
    got = samples(metrics)
    assert got["pushcompat_subscriptions", "websocket"] == 2
    assert got["pushcompat_deliveries_total", "longpoll"] == 5
    assert got["pushcompat_sent_bytes_total", "longpoll"] == 700
    assert got["pushcompat_refused_total", "unauthorized"] == 1
    for name in ("messages", "publishes", "resumes", "resets", "accept_pauses"):
        assert got[f"pushcompat_{name}_total", ""] == 7
    assert got["pushcompat_connections", ""] == 3
    assert got["pushcompat_unsubscribes_total", "left"] == 4
    assert got["pushcompat_damaged_handshakes_total", "no_key"] == 7
    assert got["pushcompat_damaged_handshakes_total", "upgrade"] == 0, "there before it has happened"


OPERATIONS = Path(__file__).parents[1] / "docs" / "operations.md"


def test_the_documented_metrics_are_those_that_there_are() -> None:
    rows = dict(re.findall(r"^\| `((?:pushcompat|process)_\w+)` \| (.*?) \|$", OPERATIONS.read_text(), re.MULTILINE))
    there_are = {}
    for name, family in FAMILIES.items():
        suffix = "_total" if family.kind is CounterMetricFamily else ""
        labels = f" (by {' and '.join(family.labels)})" if family.labels else ""
        there_are[exposed_name(name) + suffix] = family.help + labels
    assert rows == there_are


def test_durations_fall_into_cumulative_buckets() -> None:
    metrics = Metrics()
    for seconds in (0.0001, 0.002, 0.002, 0.5, 60):
        metrics.delivery_pass_duration_seconds.observe(seconds)
    got = samples(metrics)
    assert got["pushcompat_delivery_pass_duration_seconds_sum", ""] == 60.5041
    assert {bound: n for (name, bound), n in got.items() if name.endswith("_seconds_bucket")} == {
        "0.0001": 1, "0.0003": 1, "0.001": 1, "0.003": 3, "0.01": 3,
        "0.03": 3, "0.1": 3, "0.3": 3, "1.0": 4, "3.0": 4, "+Inf": 5,
    }  # fmt: skip


def test_figures_of_several_workers_become_those_of_one_server() -> None:
    first, second = Metrics(), Metrics()
    first.subscriptions["websocket"] += 2
    second.subscriptions.update(websocket=1, longpoll=4)
    first.refused["not_found", "404"] += 1
    first.publishes, second.publishes = 3, 4
    first.delivery_pass_duration_seconds.observe(0.002)
    second.delivery_pass_duration_seconds.observe(0.5)
    gauges = {"connections": 2.0, "retained_messages": 100.0, "idempotency_window_seconds": 300.0, "draining": 1.0}
    others = {"connections": 3.0, "retained_messages": 90.0, "idempotency_window_seconds": 30.0, "draining": 0.0}
    both = merged([figures(first, gauges), figures(second, others)])
    assert dict(both["subscriptions"]) == {("websocket",): 3, ("longpoll",): 4}
    assert both["refused"] == [(("not_found", "404"), 1)]
    assert both["publishes"] == 7
    assert both["delivery_pass_duration_seconds"] == Buckets([0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0], 0.502)
    assert [both[name] for name in gauges] == [5, 100, 30, 0]


def test_the_counters_of_a_worker_that_has_ended_are_kept() -> None:
    metrics = Metrics()
    metrics.publishes = 3
    metrics.subscriptions["websocket"] = 2
    metrics.deliveries["websocket"] = 9
    gone = counted(figures(metrics, {"connections": 2.0}))
    assert gone["publishes"] == 3
    assert gone["deliveries"] == [(("websocket",), 9)]
    assert not {"subscriptions", "connections"} & gone.keys()


def test_a_server_counts_what_its_clients_do(server: Server) -> None:
    with server.connect() as stream, server.connect() as client:
        stream.request("GET", "/channels/count", Accept="text/event-stream")
        stream.head()
        stream.event()
        cursor = stream.event()["id"]
        for _ in range(3):
            server.publish("count", "x")
            stream.event()
        client.poll("count", f"cursor={cursor}")
        client.poll("count", "cursor=unknown")
        client.request("POST", "/channels/count")
        assert client.problem()[0] == 401
        # What was delivered is counted when its pass ends.
        server.wait_for_metric('pushcompat_deliveries_total{transport="eventsource"}', 3, 3)
        for name, value in {
            'subscriptions{transport="eventsource"}': 1,
            'subscriptions{transport="longpoll"}': 1,  # between two polls
            'deliveries_total{transport="longpoll"}': 3,
            'refused_total{reason="unauthorized",status="401"}': 1,
            "publishes_total": 3,
            "messages_total": 3,
            "resumes_total": 2,
            "resets_total": 1,
            "delivery_pass_duration_seconds_count": 3,
            "retained_messages": 3,
            "log_last_sequence": 3,
            "channels": 1,
            "connections": 2,
            "draining": 0,
        }.items():
            assert server.metric(f"pushcompat_{name}") == value, name
    server.wait_for_metric('pushcompat_subscriptions{transport="eventsource"}', 0, 0)
    server.wait_for_metric('pushcompat_subscriptions{transport="longpoll"}', 0, 0)


def every(server: Server) -> dict[str, list[float]]:
    """The values of all series, by the name of the metric."""
    found: dict[str, list[float]] = {}
    for family in text_string_to_metric_families(server.exposition()):
        found.setdefault(family.name, []).extend(sample.value for sample in family.samples)
    return found


def test_every_metric_has_its_series_from_the_start(server: Server) -> None:
    """But for those whose labels are known later: the hooks of a configuration, of which there is none here."""
    found = every(server)
    assert {exposed_name(name) for name in FAMILIES} - found.keys() == set()
    empty = {name for name, values in found.items() if not values}
    assert empty == {"pushcompat_hook_requests", "pushcompat_hook_refused"}
    for name in ("subscriptions", "deliveries", "refused", "limited", "unsubscribes", "tls_handshakes"):
        assert set(found[f"pushcompat_{name}"]) == {0}


def test_a_series_that_counts_an_event_was_there_before() -> None:
    """All values that the source gives to a label."""
    metrics = Metrics()
    series.begin(metrics, [])
    sources = "".join(path.read_text() for path in Path(series.__file__).parent.rglob("*.py"))
    limits = set(re.findall(r'limited\["(\w+)"\]', sources)) | set(
        re.findall(r'TooManyRequests\(\w+, "(\w+)"', sources)
    )
    assert limits == set(metrics.limited)
    assert set(re.findall(r'tls_handshakes\["(\w+)"\]', sources)) <= set(metrics.tls_handshakes)
    assert set(metrics.unsubscribes) == set(CloseReason)
    for refused in (UnsupportedMedia("x"), TooManyRequests("x", "publish_rate"), StoreFull("x")):
        assert (refused.reason, str(int(refused.status))) in metrics.refused


def test_the_documented_limits_are_those_that_are_counted() -> None:
    table = OPERATIONS.read_text().partition("## Limits\n")[2].partition("\n\n- ")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == set(series.LIMITS)


def test_a_hook_has_its_series_before_its_first_request() -> None:
    metrics = Metrics()
    series.expect_hooks(metrics, [SimpleNamespace(name="github")])  # type: ignore[list-item]
    assert metrics.hook_requests == {"github": 0}
    assert ("github", "unverified") in metrics.hook_refused
    assert samples(metrics)["pushcompat_hook_requests_total", "github"] == 0


def test_a_server_tells_what_its_process_uses_and_what_build_it_is(server: Server) -> None:
    """Within what the kernel says of it."""
    assert server.metric("process_open_fds") in range(10, 40)
    assert server.metric("process_max_fds") == resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)[0]
    assert 10e6 < server.metric("process_resident_memory_bytes") < 500e6
    assert 0 < server.metric("process_cpu_seconds_total") < 60
    assert 0 <= time.time() - server.metric("process_start_time_seconds") < 600
    build = "compiled" if COMPILED else "pure"
    labels = f'build="{build}",python="{platform.python_version()}",version="{__version__}"'
    assert server.metric(f"pushcompat_build_info{{{labels}}}") == 1


def test_the_open_descriptors_are_counted() -> None:
    before = process.usage()["process_open_fds"]
    with open(os.devnull), open(os.devnull):
        assert process.usage()["process_open_fds"] == before + 2  # type: ignore[operator]


def test_several_workers_use_together_what_each_of_them_uses() -> None:
    labels = ("0.1.0", "pure", "3.13.5")
    first: Figures = {"process_resident_memory_bytes": 2e7, "process_start_time_seconds": 100.0}
    second: Figures = {"process_resident_memory_bytes": 3e7, "process_start_time_seconds": 50.0}
    both = merged([{**first, "build_info": [(labels, 1)]}, {**second, "build_info": [(labels, 1)]}])
    assert both["build_info"] == [(labels, 1)]
    assert both["process_resident_memory_bytes"] == 5e7
    assert both["process_start_time_seconds"] == 50
