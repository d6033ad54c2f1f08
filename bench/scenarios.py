"""What is measured, and what it must reach. The table of the project's performance goals, as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from load import Load, Report
from servers import Starter, nchan, pushcompat


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on the ratio subject / baseline, or on the subject's value itself where the bound is absolute."""

    bound: float
    at_least: bool = False
    absolute: bool = False
    unit: str = "×"

    def met(self, value: float, ratio: float) -> bool:
        measured = value if self.absolute else ratio
        return measured >= self.bound if self.at_least else measured <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g} {self.unit}"


@dataclass(frozen=True, slots=True)
class Figure:
    """One number out of a report."""

    title: str
    unit: str
    read: Callable[[Report], float]
    target: Target


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two that a scenario compares: a server, under a load."""

    label: str
    start: Starter
    load: Load


@dataclass(frozen=True, slots=True)
class Scenario:
    """The subject and, unless it stands alone, what it is compared with."""

    name: str
    sides: tuple[Side, ...]
    figures: tuple[Figure, ...]
    most_runs: int = 5

    def scaled_down(self) -> Scenario:
        return replace(self, sides=tuple(replace(side, load=side.load.scaled_down()) for side in self.sides))


def deliveries_per_cpu_s(report: Report) -> float:
    return float(report["delivered"] / report["run"]["server_cpu_s"])


def publishes_per_cpu_s(report: Report) -> float:
    """What a server acknowledges in a second that it has a core to itself; unlike the wall's, it bears disturbance."""
    return float(report["acked"] / report["run"]["server_cpu_s"])


def publish_cpu_us(report: Report) -> float:
    return float(report["run"]["server_cpu_s"] / report["acked"] * 1e6)


def handshake_cpu_us(report: Report) -> float:
    return float(report["open"]["server_cpu_s"] / report["opened"] * 1e6)


def memory_kib(report: Report) -> float:
    return float((report["memory_open_kib"] - report["memory_before_kib"]) / report["opened"])


def p99_ms(report: Report) -> float:
    return float(report["latency_ms"]["p99"])


def idle_core_percent(report: Report) -> float:
    return float(report["hold"]["server_cpu_s"] / report["hold"]["wall_s"] * 100)


def load_share(report: Report) -> float:
    """How much of its core the load generator used while it published: near 1, it is what was measured."""
    run = report["run"]
    return float(run["load_cpu_s"] / run["wall_s"]) if run["wall_s"] else 0.0


def at_least(ratio: float) -> Target:
    return Target(ratio, at_least=True)


def at_most(ratio: float) -> Target:
    return Target(ratio)


def against_nchan(name: str, load: Load, *figures: Figure) -> Scenario:
    return Scenario(name, (Side("pushcompat", pushcompat, load), Side("Nchan", nchan, load)), figures)


def against_itself(name: str, many: tuple[str, Load], few: tuple[str, Load], *figures: Figure) -> Scenario:
    sides = tuple(Side(label, pushcompat, load) for label, load in (many, few))
    return Scenario(name, sides, figures, most_runs=3)


def paced(transport: str, title: str, rate: int, ratio: float) -> Scenario:
    """5,000 connect at once, are idle for a moment, and then follow one channel at a rate that leaves time to rest."""
    return against_nchan(
        transport,
        Load(transport=transport, subscribers=5000, hold=1, publishers=4, rate=rate, seconds=5),
        Figure(f"{title}, {rate} publishes/s", "deliveries per CPU-s", deliveries_per_cpu_s, at_least(ratio)),
        Figure(f"{title}, p99 latency", "ms", p99_ms, at_most(1.0)),
        Figure(f"{title}, storm of handshakes", "CPU-µs each", handshake_cpu_us, at_most(1.5)),
        Figure(f"{title}, idle connection", "KiB resident", memory_kib, Target(1.5, absolute=True, unit="KiB")),
    )


def flat(name: str, title: str, many: tuple[str, Load], few: tuple[str, Load]) -> Scenario:
    return against_itself(name, many, few, Figure(f"a publish, {title}", "CPU-µs each", publish_cpu_us, at_most(1.25)))


PUBLISH = Load(subscribers=1, publishers=8, seconds=3)

SCENARIOS = (
    paced("websocket", "WebSocket", rate=10, ratio=1.1),
    paced("eventsource", "EventSource", rate=10, ratio=1.2),
    paced("longpoll", "long-poll", rate=4, ratio=1.2),
    against_nchan(
        "flood",
        Load(subscribers=5000, publishers=1, seconds=5),
        Figure("publisher as fast as it can", "deliveries per CPU-s", deliveries_per_cpu_s, at_least(3.0)),
    ),
    against_nchan(
        "publish",
        Load(publishers=64, seconds=4),
        Figure("64 publishers, nobody listening", "acknowledged per CPU-s", publishes_per_cpu_s, at_least(0.4)),
    ),
    against_nchan(
        "channels",
        Load(subscribers=10_000, channels=10_000, publishers=64, seconds=4),
        Figure("10,000 channels of one subscriber", "deliveries per CPU-s", deliveries_per_cpu_s, at_least(0.6)),
    ),
    flat(
        "flat-channels",
        "with more channels elsewhere",
        ("100,000 channels", replace(PUBLISH, others=100_000)),
        ("10 channels", replace(PUBLISH, others=10)),
    ),
    flat(
        "flat-connections",
        "with more connections elsewhere",
        ("5,000 idle", replace(PUBLISH, bystanders=5000)),
        ("10 idle", replace(PUBLISH, bystanders=10)),
    ),
    Scenario(
        "idle",
        (Side("pushcompat", pushcompat, Load(subscribers=5000, hold=20)),),  # longer than a heartbeat's 15 s
        (Figure("5,000 idle WebSockets", "% of a core", idle_core_percent, Target(1.0, absolute=True, unit="%")),),
        most_runs=1,
    ),
)
