"""From reports to figures: medians, ratios, verdicts; as a table for people and as a document for programs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from load import Report
from scenarios import Figure, Scenario, load_share

QUIET = 0.1  # of a core: what other processes may use before the figures are no longer to be trusted


@dataclass(frozen=True, slots=True)
class Result:
    """One figure of one scenario over all runs. ``samples`` has a row per side, a value per run."""

    scenario: Scenario
    figure: Figure
    samples: tuple[tuple[float, ...], ...]

    @property
    def values(self) -> tuple[float, ...]:
        return tuple(statistics.median(row) for row in self.samples)

    @property
    def ratio(self) -> float:
        """Subject over baseline; NaN where there is no baseline."""
        values = self.values
        return values[0] / values[1] if len(values) > 1 and values[1] else float("nan")

    @property
    def met(self) -> bool:
        return self.figure.target.met(self.values[0], self.ratio)

    def as_json(self) -> dict[str, Any]:
        sides = zip(self.scenario.sides, self.values, self.samples, strict=True)
        return {
            "scenario": self.scenario.name,
            "figure": self.figure.title,
            "unit": self.figure.unit,
            "sides": [
                {"label": side.label, "median": _rounded(value), "runs": [_rounded(sample) for sample in samples]}
                for side, value, samples in sides
            ],
            "ratio": _rounded(self.ratio) if len(self.samples) > 1 else None,
            "target": str(self.figure.target),
            "met": self.met,
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
            "delivered": sum(report["delivered"] for row in self.reports for report in row),
            "exact": self.exact,
            "faults": list(self.faults()),
            "load_generator_share": round(self.load_share, 2),
            "others_share": self.others_share,
            "reports": {side.label: list(row) for side, row in zip(self.scenario.sides, self.reports, strict=True)},
        }


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


def table(results: Sequence[Result], deliveries: Sequence[Delivery]) -> str:
    rows = [("figure", "", "subject", "baseline", "ratio", "target", "")]
    for result in results:
        labels = [f"{side.label}: {human(v)}" for side, v in zip(result.scenario.sides, result.values, strict=True)]
        subject, baseline = (*labels, "–")[:2]
        verdict = "ok" if result.met else "MISSED"
        figure = result.figure
        rows.append((figure.title, figure.unit, subject, baseline, human(result.ratio), str(figure.target), verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "─" * (sum(widths) + 2 * len(widths) - 2))
    return "\n".join([*lines, "", *_delivery_lines(deliveries)])


def _delivery_lines(deliveries: Sequence[Delivery]) -> Iterable[str]:
    messages = sum(report["delivered"] for d in deliveries for row in d.reports for report in row)
    exact = all(delivery.exact for delivery in deliveries)
    yield f"Delivered: {messages:,} messages, " + ("every one, none twice." if exact else "NOT every one exactly once:")
    for delivery in deliveries:
        yield from (f"  {delivery.scenario.name}: {fault}" for fault in delivery.faults())
    busiest = max(deliveries, key=lambda delivery: delivery.load_share)
    yield f"The load generator used at most {busiest.load_share:.0%} of its core (in {busiest.scenario.name})."
    disturbed = max(deliveries, key=lambda delivery: delivery.others_share)
    yield (
        f"Everything else on this machine used at most {disturbed.others_share:.0%} of a core (in "
        f"{disturbed.scenario.name})" + (": too much, measure again." if disturbed.others_share > QUIET else ".")
    )


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")
