"""Measure this server and Nchan in the same run; say what was reached and what was not.

    python bench/run.py                       everything, five alternating runs of each: about ten minutes
    python bench/run.py --quick               a look: one run of each, a fifth of the load
    python bench/run.py --only websocket publish --runs 3

A whole measurement writes ``docs/bench.json`` and ``docs/bench.svg``. Exit code 0: every target met; 1: one missed, or
a message not delivered exactly once; 2: could not measure. README.md, beside this file, says how to read the figures.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import chart
import load
import machine
from load import Report
from results import QUIET, Delivery, Result, evaluate, table
from scenarios import SCENARIOS, Scenario, Side
from servers import ROOT, BenchError, cores, nchan, open_files, require_nchan

FILES = 11_000  # 10,000 subscribers, and what a process has open besides


def main() -> int:
    options = parse_arguments()
    try:
        require_machine(options.scenarios)
        load.build()
        results, deliveries = measure_all(options.scenarios, options.runs)
    except BenchError as problem:
        print(f"bench: {problem}", file=sys.stderr)
        return 2
    print("\n" + table(results, deliveries))
    if options.output:
        write(options.output, results, deliveries)
    return 0 if all(result.met for result in results) and all(delivery.exact for delivery in deliveries) else 1


def parse_arguments() -> argparse.Namespace:
    names = [scenario.name for scenario in SCENARIOS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--runs", type=int, default=5, help="of each side, alternating; the median counts (5)")
    parser.add_argument("--quick", action="store_true", help="one run of each, a fifth of the load")
    parser.add_argument(
        "--output", type=Path, help="folder for bench.json, bench.svg (docs/ after a whole measurement)"
    )
    options = parser.parse_args()
    options.scenarios = [scenario for scenario in SCENARIOS if scenario.name in options.only]
    if options.quick:
        options.runs, options.scenarios = 1, [scenario.scaled_down() for scenario in options.scenarios]
    elif len(options.scenarios) == len(SCENARIOS):
        options.output = options.output or ROOT / "docs"
    return options


def require_machine(scenarios: list[Scenario]) -> None:
    if cores() < 2:
        raise BenchError("needs two cores: one for the server, one for the load generator")
    if open_files() < FILES:
        raise BenchError(f"may open {open_files():,} files, needs {FILES:,}: raise the hard limit (ulimit -Hn)")
    if any(side.start is nchan for scenario in scenarios for side in scenario.sides):
        require_nchan()


def measure_all(scenarios: list[Scenario], runs: int) -> tuple[list[Result], list[Delivery]]:
    results: list[Result] = []
    deliveries: list[Delivery] = []
    for scenario in scenarios:
        reports = measure(scenario, min(runs, scenario.most_runs))
        results += evaluate(scenario, reports)
        deliveries.append(Delivery(scenario, reports))
    return results, deliveries


def measure(scenario: Scenario, runs: int) -> tuple[tuple[Report, ...], ...]:
    """The reports of each side, whose runs alternate, so that a drift of the machine meets both."""
    rows: tuple[list[Report], ...] = tuple([] for _ in scenario.sides)
    for number in range(1, runs + 1):
        for side, row in zip(scenario.sides, rows, strict=True):
            row.append(measure_once(side))
            tell(scenario, number, runs, side, row[-1])
    return tuple(tuple(row) for row in rows)


def measure_once(side: Side) -> Report:
    with tempfile.TemporaryDirectory(prefix="pushcompat-bench-") as folder, side.start(Path(folder)) as server:
        load.run(side.load.warm_up(), server)
        return load.run(side.load, server)


def tell(scenario: Scenario, number: int, runs: int, side: Side, report: Report) -> None:
    figures = ", ".join(f"{figure.read(report):,.2f} {figure.unit}" for figure in scenario.figures)
    notes = "" if report["exact"] else "  NOT EXACT"
    if report["others_share"] > QUIET:
        notes += f"  disturbed: others used {report['others_share']:.0%} of a core"
    clock = time.strftime("%H:%M:%S")
    print(f"{clock}  {scenario.name} {number}/{runs}  {side.label}: {figures}{notes}", file=sys.stderr, flush=True)


def write(folder: Path, results: list[Result], deliveries: list[Delivery]) -> None:
    about = machine.describe()
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": about,
        "figures": [result.as_json() for result in results],
        "scenarios": [delivery.as_json() for delivery in deliveries],
    }
    (folder / "bench.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / "bench.svg").write_text(chart.draw(results, machine.sentence(about)))
    print(f"\nWritten: {folder / 'bench.json'}, {folder / 'bench.svg'}")


if __name__ == "__main__":
    sys.exit(main())
