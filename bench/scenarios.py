"""What is measured, and the targets: the project's performance goals as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from encrypted import TLS
from load import Load, Report
from servers import BEFORE, CENTRIFUGO, COMPILED, NCHAN, SUBJECT, WS
from stores import MEMORY, REDIS, SQLITE, SQLITE_FULL, TWO_ON_REDIS, TWO_ON_SQLITE, WORKERS
from tokens import CLIENTS, TOKENS


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on the ratio to another server's value, or on the subject's own value if ``than`` is None."""

    bound: float
    than: str | None
    at_least: bool = False
    unit: str = "×"

    def met(self, measured: float) -> bool:
        return measured >= self.bound if self.at_least else measured <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g} {self.unit}"


def at_least(ratio: float, than: str) -> Target:
    return Target(ratio, than, at_least=True)


def at_most(ratio: float, than: str) -> Target:
    return Target(ratio, than)


@dataclass(frozen=True, slots=True)
class Figure:
    """One number from a report.

    ``as_rate``: a cost that is compared as its reciprocal. If one server needs 10 µs for a publish and the other 20 µs,
    the first does 2 × as many per CPU-second. ``as_difference``: by how much one is more than the other.
    """

    title: str
    unit: str
    read: Callable[[Report], float]
    targets: tuple[Target, ...]
    as_rate: bool = False
    as_difference: bool = False

    @property
    def more_is_better(self) -> bool:
        """Of its ratios."""
        return any(target.at_least for target in self.targets)


@dataclass(frozen=True, slots=True)
class Side:
    """A server under a load. ``server`` is a key of servers.STARTERS or of the checkouts; ``label`` is for people."""

    label: str
    server: str
    load: Load


@dataclass(frozen=True, slots=True)
class Scenario:
    """The subject, which is first, and what it is compared with. The compiled build is it if it takes part."""

    name: str
    sides: tuple[Side, ...]
    figures: tuple[Figure, ...]
    most_runs: int = 5

    @property
    def of_servers(self) -> bool:
        """It compares servers, not the subject with itself under two loads or with two stores."""
        return self.sides[0].server in (COMPILED, SUBJECT) and all(side.label == side.server for side in self.sides)

    def among(self, servers: set[str]) -> Scenario:
        """The same with only these servers, and without the targets that need another one."""
        sides = tuple(side for side in self.sides if side.server in servers)
        labels = {None, *(side.label for side in sides)}
        figures = (
            replace(figure, targets=tuple(target for target in figure.targets if target.than in labels))
            for figure in self.figures
        )
        return replace(self, sides=sides, figures=tuple(figures))

    def scaled_down(self) -> Scenario:
        return replace(self, sides=tuple(replace(side, load=side.load.scaled_down()) for side in self.sides))


# --- what is read from a report ---------------------------------------------------------------------------------


def deliveries_per_cpu_s(report: Report) -> float:
    """Per CPU-second: what a server does with a core of its own, less sensitive to other load than wall-clock rates."""
    return float(report["delivered"] / report["run"]["server_cpu_s"])


def delivery_cpu_us(report: Report) -> float:
    return float(report["run"]["server_cpu_s"] / report["delivered"] * 1e6)


def publish_cpu_us(report: Report) -> float:
    return float(report["run"]["server_cpu_s"] / report["acked"] * 1e6)


def handshake_cpu_us(report: Report) -> float:
    return float(report["open"]["server_cpu_s"] / report["opened"] * 1e6)


def first_second_cpu_us(report: Report) -> float:
    """The handshake and what a server sends within a second after it, without having been published to."""
    return handshake_cpu_us(report) + float(report["hold"]["server_cpu_s"] / report["opened"] * 1e6)


def memory_kib(report: Report) -> float:
    return float((report["memory_open_kib"] - report["memory_before_kib"]) / report["opened"])


def p50_ms(report: Report) -> float:
    return float(report["latency_ms"]["p50"])


def p99_ms(report: Report) -> float:
    return float(report["latency_ms"]["p99"])


def answer_p50_ms(report: Report) -> float:
    """From a publish until its answer."""
    return float(report["answer_ms"]["p50"])


def publishes_per_s(report: Report) -> float:
    """By the clock, with whatever else runs on the server's core."""
    return float(report["acked"] / report["run"]["wall_s"])


def idle_core_percent(report: Report) -> float:
    return float(report["hold"]["server_cpu_s"] / report["hold"]["wall_s"] * 100)


def load_share(report: Report) -> float:
    """Share of its core that the load generator used while it published. Near 1, it limits what is measured."""
    run = report["run"]
    return float(run["load_cpu_s"] / run["wall_s"]) if run["wall_s"] else 0.0


# --- the scenarios ----------------------------------------------------------------------------------------------

# "No worse than before", with what two medians of the same build may differ by on a machine that does nothing else.
RATE_AS_BEFORE = at_least(0.95, BEFORE)
LATENCY_AS_BEFORE = at_most(1.1, BEFORE)
MEMORY_AS_BEFORE = at_most(1.05, BEFORE)

TITLES = {"websocket": "WebSocket", "eventsource": "EventSource", "longpoll": "long-poll"}
PEERS = {"websocket": (CENTRIFUGO, WS), "eventsource": (CENTRIFUGO,), "longpoll": ()}


def compared(load: Load, *peers: str) -> tuple[Side, ...]:
    return tuple(Side(server, server, load) for server in (COMPILED, SUBJECT, BEFORE, NCHAN, *peers))


def publish(publishers: int, than_before: float, than_nchan: float) -> Scenario:
    title = f"{publishers} publisher{'s' if publishers > 1 else ''}, no subscribers"
    return Scenario(
        f"publish-{publishers}",
        compared(Load(publishers=publishers, seconds=1.5), CENTRIFUGO, WS),
        (publish_figure(title, at_least(than_before, BEFORE), at_least(than_nchan, NCHAN)),),
    )


def publish_with_keys() -> Scenario:
    """Nchan does not know idempotent publishes; its plain ones are the measure."""
    plain = Load(publishers=64, seconds=1.5)
    keyed = replace(plain, fresh_keys=1)
    return Scenario(
        "publish-keys",
        (*(Side(server, server, keyed) for server in (COMPILED, SUBJECT, BEFORE)), Side(NCHAN, NCHAN, plain)),
        (publish_figure("64 publishers, an Idempotency-Key each time", RATE_AS_BEFORE, at_least(0.6, NCHAN)),),
    )


def publish_figure(title: str, *targets: Target) -> Figure:
    return Figure(title, "CPU-µs per publish", publish_cpu_us, targets, as_rate=True)


def notify(transport: str) -> Scenario:
    """10,000 users with a channel each; messages to random ones."""
    work = Load(transport=transport, subscribers=10_000, channels=10_000, publishers=16, random=1, seconds=3)
    figure = Figure(
        f"{TITLES[transport]}, 10,000 users with a channel each",
        "CPU-µs per publish + delivery",
        delivery_cpu_us,
        (RATE_AS_BEFORE, at_least(1.1, NCHAN)),
        as_rate=True,
    )
    return Scenario(f"notify-{transport}", compared(work, *PEERS[transport]), (figure,))


def handshake(name: str, title: str, load: Load, ratio: float, *more: Figure) -> Scenario:
    """10,000 connect as fast as they can; two messages then show that all of them are subscribed."""
    work = replace(load, subscribers=10_000, hold=1.2, rate=10, seconds=0.2)
    figure = Figure(f"{title} handshake", "CPU-µs each", handshake_cpu_us, (at_most(ratio, NCHAN),))
    return Scenario(f"handshake-{name}", compared(work, *PEERS[load.transport]), (figure, *more))


def paced(transport: str, rate: int, ratio: float) -> Scenario:
    """5,000 connect at once, are idle for a moment, and then follow one channel at a rate that leaves time to rest."""
    title = TITLES[transport]
    work = Load(transport=transport, subscribers=5000, hold=1, publishers=4, rate=rate, seconds=5)
    return Scenario(
        transport,
        compared(work, *PEERS[transport]),
        (
            Figure(
                f"{title}, {rate} publishes/s to 5,000",
                "deliveries per CPU-s",
                deliveries_per_cpu_s,
                (RATE_AS_BEFORE, at_least(ratio, NCHAN)),
            ),
            Figure(f"{title}, p99 latency", "ms", p99_ms, (LATENCY_AS_BEFORE, at_most(1.0, NCHAN))),
            Figure(
                f"{title}, idle connection",
                "KiB resident",
                memory_kib,
                (MEMORY_AS_BEFORE, Target(1.5, None, unit="KiB")),
            ),
        ),
    )


def scaling(name: str, title: str, many: tuple[str, Load], few: tuple[str, Load]) -> Scenario:
    """The cost of a publish must not grow with what the server holds elsewhere."""
    sides = tuple(Side(label, SUBJECT, load) for label, load in (many, few))
    figure = Figure(f"a publish, {title}", "CPU-µs each", publish_cpu_us, (at_most(1.25, few[0]),))
    return Scenario(name, sides, (figure,), most_runs=3)


# --- tokens -------------------------------------------------------------------------------------------------------


def with_tokens(transport: str, rate: int, at_least_ratio: float) -> Scenario:
    """A poll on a connection with a verdict pays no signature; deliveries on streams have nothing to do with tokens."""
    title = TITLES[transport]
    load = Load(transport=transport, subscribers=5000, hold=1, publishers=4, rate=rate, seconds=4)
    what = "deliveries" if transport != "longpoll" else "poll cycles"
    figures = (
        Figure(
            f"{title} with tokens, {rate} publishes/s to 5,000",
            f"{what} per CPU-s",
            deliveries_per_cpu_s,
            (at_least(at_least_ratio, CLIENTS),),
        ),
        Figure(
            f"{title} handshake with a token",
            "CPU-µs each",
            handshake_cpu_us,
            (Target(80, CLIENTS, unit="µs more"),),
            as_difference=True,
        ),
    )
    return Scenario(f"tokens-{transport}", sides(load, TOKENS, CLIENTS), figures)


# --- TLS ----------------------------------------------------------------------------------------------------------


def tls_stream() -> Scenario:
    """Latency is not compared: it would be that of the proxy that encrypts the load."""
    load = Load(subscribers=4000, hold=1, publishers=1, rate=10, seconds=3)
    rate = Figure(
        "TLS WebSocket, 10 publishes/s to 4,000",
        "deliveries per CPU-s",
        deliveries_per_cpu_s,
        (at_least(0.5, SUBJECT),),
    )
    memory = Figure(
        "TLS WebSocket, idle connection",
        "KiB resident",
        memory_kib,
        (Target(17, SUBJECT, unit="KiB more"),),
        as_difference=True,
    )
    cost = Figure("TLS and WebSocket handshake", "CPU-µs each", handshake_cpu_us, ())
    return Scenario("tls", sides(load, TLS, SUBJECT), (rate, memory, cost))


# --- stores -------------------------------------------------------------------------------------------------------


def at_most_more(milliseconds: float, than: str) -> Target:
    return Target(milliseconds, than, unit="ms more")


def sides(load: Load, *servers: str) -> tuple[Side, ...]:
    return tuple(Side(server, server, load) for server in servers)


def store_publish(publishers: int) -> Scenario:
    """Acknowledged publishes. The first of the sides is the default store."""
    many = publishers == 64
    title = f"{publishers} publisher{'s' if publishers > 1 else ''}"
    rate = Figure(
        f"{title}, acknowledged publishes", "per second", publishes_per_s, (at_least(0.6, MEMORY),) if many else ()
    )
    cost = publish_figure(title, *((at_least(0.6, MEMORY),) if many else ()))
    wait = Figure(f"{title}, until the answer", "ms, median", answer_p50_ms, (), as_difference=True)
    if publishers == 1:
        wait = replace(wait, targets=(at_most_more(1.0, MEMORY),))
    return Scenario(
        f"store-{publishers}",
        sides(Load(publishers=publishers, seconds=2), SQLITE, MEMORY, SQLITE_FULL, REDIS, NCHAN),
        (rate, cost, wait),
    )


def store_latency() -> Scenario:
    """From the publish at one process to the subscriber of another, or of the same."""
    work = Load(subscribers=100, publishers=2, rate=200, seconds=3)
    figure = Figure(
        "200 publishes/s to 100, until they are delivered",
        "ms, median",
        p50_ms,
        (at_most_more(2.0, SQLITE),),
        as_difference=True,
    )
    return Scenario("store-latency", sides(work, TWO_ON_SQLITE, SQLITE, MEMORY, TWO_ON_REDIS, REDIS, NCHAN), (figure,))


def stream(name: str, what: str, servers: tuple[str, ...], *targets: Target) -> Scenario:
    """``websocket`` again, compared by store or by workers."""
    work = Load(subscribers=5000, hold=1, publishers=4, rate=10, seconds=5)
    title = f"10 publishes/s to 5,000 WebSockets, {what}"
    return Scenario(
        name, sides(work, *servers), (Figure(title, "deliveries per CPU-s", deliveries_per_cpu_s, targets),)
    )


PUBLISH = Load(subscribers=1, publishers=8, seconds=3)

SCENARIOS = (
    publish(64, than_before=2.5, than_nchan=0.85),
    publish(8, than_before=2.5, than_nchan=0.6),
    publish(1, than_before=1.8, than_nchan=0.7),
    publish_with_keys(),
    *map(notify, TITLES),
    handshake("websocket", "WebSocket", Load("websocket"), 1.0),
    handshake(
        "eventsource",
        "EventSource",
        Load("eventsource"),
        1.2,
        Figure("EventSource handshake and first ping", "CPU-µs each", first_second_cpu_us, ()),
    ),
    handshake("poll", "long-poll (one poll, held)", Load("longpoll", held=1), 1.0),
    handshake("longpoll", "long-poll (two polls)", Load("longpoll"), 1.5),
    paced("websocket", rate=10, ratio=1.1),
    paced("eventsource", rate=10, ratio=1.2),
    paced("longpoll", rate=4, ratio=1.2),
    Scenario(
        "flood",
        compared(Load(subscribers=5000, publishers=1, seconds=5), CENTRIFUGO, WS),
        (
            Figure(
                "publisher as fast as it can",
                "deliveries per CPU-s",
                deliveries_per_cpu_s,
                (RATE_AS_BEFORE, at_least(3.0, NCHAN)),
            ),
        ),
    ),
    Scenario(
        "channels",
        compared(Load(subscribers=10_000, channels=10_000, publishers=64, seconds=4)),
        (
            Figure(
                "10,000 channels of one subscriber",
                "deliveries per CPU-s",
                deliveries_per_cpu_s,
                (RATE_AS_BEFORE, at_least(0.6, NCHAN)),
            ),
        ),
    ),
    scaling(
        "scaling-channels",
        "with more channels elsewhere",
        ("100,000 channels", replace(PUBLISH, others=100_000)),
        ("10 channels", replace(PUBLISH, others=10)),
    ),
    scaling(
        "scaling-connections",
        "with more connections elsewhere",
        ("5,000 idle", replace(PUBLISH, bystanders=5000)),
        ("10 idle", replace(PUBLISH, bystanders=10)),
    ),
    *map(store_publish, (64, 8, 1)),
    store_latency(),
    stream(
        "store-deliveries", "the default store", (SQLITE, MEMORY, NCHAN), at_least(0.97, MEMORY), at_least(1.1, NCHAN)
    ),
    stream("workers", "two workers", (WORKERS, SQLITE), at_least(0.92, SQLITE)),
    tls_stream(),
    with_tokens("longpoll", rate=4, at_least_ratio=0.95),
    with_tokens("websocket", rate=10, at_least_ratio=0.97),
    with_tokens("eventsource", rate=10, at_least_ratio=0.97),
    Scenario(
        "idle",
        (Side(SUBJECT, SUBJECT, Load(subscribers=5000, hold=20)),),  # longer than a heartbeat's 15 s
        (Figure("5,000 idle WebSockets", "% of a core", idle_core_percent, (Target(1.0, None, unit="%"),)),),
        most_runs=1,
    ),
)
