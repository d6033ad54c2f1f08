"""From reports to figures: medians, ratios, which targets were met; as a table for people and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import stores
from load import Report
from scenarios import Figure, Scenario, Target, load_share
from servers import BEFORE, NCHAN, ORDER

QUIET = 0.1  # of a core: what other processes may use before the figures are no longer to be trusted


@dataclass(frozen=True, slots=True)
class Comparison:
    """The subject against one other side, or against a fixed bound (``than`` is None)."""

    than: str | None
    measured: float
    target: Target | None
    unit: str = "×"

    @property
    def met(self) -> bool:
        return self.target is None or self.target.met(self.measured)

    def __str__(self) -> str:
        measured = f"{human(self.measured)} {self.unit} {self.than}" if self.than else ""
        if not self.target:
            return measured
        verdict = f"{self.target} {'ok' if self.met else 'MISSED'}"
        return f"{measured} ({verdict})" if measured else verdict


@dataclass(frozen=True, slots=True)
class Result:
    """One figure of one scenario over all runs. ``samples`` has a row per side, a value per run."""

    scenario: Scenario
    figure: Figure
    samples: tuple[tuple[float, ...], ...]

    @property
    def values(self) -> dict[str, float]:
        """The median of each side."""
        labels = (side.label for side in self.scenario.sides)
        return {label: statistics.median(row) for label, row in zip(labels, self.samples, strict=True)}

    @property
    def subject(self) -> float:
        return next(iter(self.values.values()))

    def comparisons(self) -> Iterable[Comparison]:
        (_, subject), *others = self.values.items()
        targets = {target.than: target for target in self.figure.targets}
        for label, value in others:
            if self.figure.as_difference:
                yield Comparison(label, subject - value, targets.get(label), f"{self.figure.unit} more than")
                continue
            over, under = (value, subject) if self.figure.as_rate else (subject, value)
            yield Comparison(label, over / under if under else float("nan"), targets.get(label))
        if None in targets:
            yield Comparison(None, subject, targets[None])

    def against(self, than: str) -> Comparison | None:
        return next((comparison for comparison in self.comparisons() if comparison.than == than), None)

    @property
    def met(self) -> bool:
        return all(comparison.met for comparison in self.comparisons())

    def as_json(self) -> dict[str, Any]:
        return {
            "scenario": self.scenario.name,
            "figure": self.figure.title,
            "unit": self.figure.unit,
            "runs": len(self.samples[0]),
            "values": {
                label: {"median": rounded(value), "min": rounded(min(row)), "max": rounded(max(row))}
                for (label, value), row in zip(self.values.items(), self.samples, strict=True)
            },
            "ratios": {c.than: rounded(c.measured) for c in self.comparisons() if c.than},
            "targets": [
                {"than": c.than, "target": str(c.target), "met": c.met} for c in self.comparisons() if c.target
            ],
        }


@dataclass(frozen=True, slots=True)
class Delivery:
    """Whether a scenario's subscribers got every message exactly once, in all runs of all sides."""

    scenario: Scenario
    reports: tuple[tuple[Report, ...], ...]  # a row per side

    @property
    def exact(self) -> bool:
        return all(report["exact"] for row in self.reports for report in row)

    @property
    def delivered(self) -> int:
        return sum(report["delivered"] for row in self.reports for report in row)

    @property
    def load_share(self) -> float:
        return max(load_share(report) for row in self.reports for report in row)

    @property
    def others_share(self) -> float:
        return float(max(report["others_share"] for row in self.reports for report in row))

    def faults(self) -> Iterable[str]:
        names = ("failed", "lost", "refused", "missing", "repeated", "wrong_subscribers", "corrupt", "resets")
        for side, row in zip(self.scenario.sides, self.reports, strict=True):
            for number, report in enumerate(row, 1):
                if not report["exact"]:
                    found = ", ".join(f"{report[name]:,} {name}" for name in names if report[name])
                    yield f"{side.label}, run {number}: {found or 'not all delivered in time'}"

    def as_json(self) -> dict[str, Any]:
        return {
            "scenario": self.scenario.name,
            "delivered": self.delivered,
            "exact": self.exact,
            "faults": list(self.faults()),
            "load_generator_share": round(self.load_share, 2),
            "others_share": self.others_share,
        }

    def raw(self) -> dict[str, Any]:
        sides = zip(self.scenario.sides, self.reports, strict=True)
        return {"scenario": self.scenario.name, "reports": {side.label: list(row) for side, row in sides}}


def evaluate(scenario: Scenario, reports: tuple[tuple[Report, ...], ...]) -> list[Result]:
    return [
        Result(scenario, figure, tuple(tuple(figure.read(report) for report in row) for row in reports))
        for figure in scenario.figures
    ]


def human(value: float) -> str:
    """Three significant digits, thousands separated."""
    if value != value:  # NaN
        return "–"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}"


def rounded(value: float) -> float:
    return float(f"{value:.5g}")


# --- the table --------------------------------------------------------------------------------------------------


def table(results: Sequence[Result], deliveries: Sequence[Delivery]) -> str:
    """The servers side by side; below them, what compares the subject with itself; then what was delivered."""
    servers = [result for result in results if result.scenario.of_servers]
    labels = [label for label in ORDER if any(label in result.values for result in servers)]
    rows = [("figure", "unit", *labels, "ratio to each (target)")]
    for result in servers:
        values = (human(result.values[label]) if label in result.values else "" for label in labels)
        rows.append((result.figure.title, result.figure.unit, *values, ", ".join(map(str, result.comparisons()))))
    lines = _aligned(rows) if servers else []
    for result in results:
        if not result.scenario.of_servers:
            each = ", ".join(f"{label}: {human(value)}" for label, value in result.values.items())
            ratios = ", ".join(map(str, result.comparisons()))
            lines.append(f"{result.figure.title}, {result.figure.unit}: {each}; {ratios}")
    return "\n".join([*lines, "", *_delivery_lines(deliveries)])


def markdown(results: Sequence[Result]) -> str:
    """The table of README.md: released servers only, nothing about targets."""
    shown = [result for result in results if result.scenario.of_servers and result.against(NCHAN)]
    labels = [label for label in ORDER if label != BEFORE and any(label in result.values for result in shown)]
    lines = [f"| | {' | '.join(labels)} | |", f"| --- |{' ---: |' * len(labels)} --- |"]
    for result in shown:
        values = (human(result.values[label]) if label in result.values else "" for label in labels)
        lines.append(f"| {result.figure.title} | {' | '.join(values)} | {result.figure.unit} |")
    return "\n".join(lines)


def stores_markdown(results: Sequence[Result]) -> str:
    """The table of docs/scaling.md: what is compared by store."""
    shown = [result for result in results if result.scenario.sides[0].server in stores.ORDER]
    labels = [label for label in (*stores.ORDER, NCHAN) if any(label in result.values for result in shown)]
    lines = [f"| | {' | '.join(labels)} | |", f"| --- |{' ---: |' * len(labels)} --- |"]
    for result in shown:
        values = (human(result.values[label]) if label in result.values else "" for label in labels)
        lines.append(f"| {result.figure.title} | {' | '.join(values)} | {result.figure.unit} |")
    return "\n".join(lines)


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    last = len(widths) - 1
    lines = [
        "  ".join(
            cell.ljust(width) if column in (0, 1, last) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "─" * max(map(len, lines)))
    return lines


def _delivery_lines(deliveries: Sequence[Delivery]) -> Iterable[str]:
    messages = sum(delivery.delivered for delivery in deliveries)
    exact = all(delivery.exact for delivery in deliveries)
    yield f"Delivered: {messages:,} messages, " + ("each exactly once." if exact else "NOT each exactly once:")
    for delivery in deliveries:
        yield from (f"  {delivery.scenario.name}: {fault}" for fault in delivery.faults())
    busiest = max(deliveries, key=lambda delivery: delivery.load_share)
    yield f"The load generator used at most {busiest.load_share:.0%} of its core (in {busiest.scenario.name})."
    disturbed = max(deliveries, key=lambda delivery: delivery.others_share)
    yield (
        f"All other processes used at most {disturbed.others_share:.0%} of a core (in "
        f"{disturbed.scenario.name})" + (": too much, measure again." if disturbed.others_share > QUIET else ".")
    )
