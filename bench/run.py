"""Measure this server and others in the same run, and report which targets were met.

    python bench/run.py --before PATH         everything; PATH is a checkout of the build before
    python bench/run.py --quick               quick check: one run of each, a fifth of the load
    python bench/run.py --only publish-64,publish-8,publish-1 --runs 3 --before PATH

A complete measurement writes ``docs/bench.json``, ``docs/bench.svg`` and the table in ``README.md``; each measurement
leaves its raw reports in ``bench/build/runs.json``. Exit code 0: every target met; 1: a target missed, or a message not
delivered exactly once; 2: could not measure. README.md, beside this file, explains the figures.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import deque
from pathlib import Path

import chart
import encrypted
import load
import machine
import peers
import stores
import tokens
from load import Load, Report
from results import QUIET, Delivery, Result, evaluate, markdown, stores_markdown, table
from scenarios import SCENARIOS, Scenario
from servers import (
    BEFORE,
    CENTRIFUGO,
    COMPILED,
    NCHAN,
    ROOT,
    SUBJECT,
    WS,
    BenchError,
    Starter,
    cores,
    nchan,
    open_files,
    pushcompat,
    require_checkout,
    require_nchan,
)

FILES = 11_000  # 10,000 subscribers, and what a process has open besides
DOCS, README = ROOT / "docs", ROOT / "README.md"
RAW = Path(__file__).parent / "build" / "runs.json"
PEERS = (CENTRIFUGO, WS)
NAMES = [scenario.name for scenario in SCENARIOS]


def main() -> int:
    options = parse_arguments()
    try:
        starters = find_servers(options)
        require_machine()
        load.build()
        scenarios = [scenario.among(set(starters)) for scenario in options.scenarios]
        results, deliveries = measure_all(scenarios, starters, options.runs)
    except BenchError as problem:
        print(f"bench: {problem}", file=sys.stderr)
        return 2
    print("\n" + table(results, deliveries))
    write_raw(deliveries)
    if options.output:
        write(options, results, deliveries)
    return 0 if all(result.met for result in results) and all(delivery.exact for delivery in deliveries) else 1


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=scenario_names, default=NAMES, metavar="NAME,…", help=", ".join(NAMES))
    parser.add_argument("--runs", type=int, default=3, help="of each server, alternating; the median counts (3)")
    parser.add_argument("--quick", action="store_true", help="one run of each, a fifth of the load")
    parser.add_argument("--tree", type=checkout, default=ROOT, metavar="PATH", help="checkout to measure (this one)")
    parser.add_argument("--compiled", type=checkout, metavar="PATH", help="its compiled build (make compiled)")
    parser.add_argument("--before", type=checkout, metavar="PATH", help="checkout of the build to compare with")
    parser.add_argument(
        "--peers",
        type=peer_names,
        metavar="NAME,…",
        help=f"servers besides Nchan: {', '.join(PEERS)}, none (all that can be installed here, or none with --only)",
    )
    parser.add_argument(
        "--output", type=Path, help="folder for bench.json, bench.svg (docs/ after a complete measurement)"
    )
    options = parser.parse_args()
    options.scenarios = [scenario for scenario in SCENARIOS if scenario.name in options.only]
    if options.quick:
        options.runs, options.scenarios = 1, [scenario.scaled_down() for scenario in options.scenarios]
    elif len(options.scenarios) == len(SCENARIOS):
        options.output = options.output or DOCS
    if options.peers is None:
        options.peers = PEERS if len(options.scenarios) == len(SCENARIOS) else ()
    return options


def scenario_names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(NAMES):
        raise argparse.ArgumentTypeError(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    return names


def peer_names(text: str) -> tuple[str, ...]:
    names = () if text == "none" else tuple(text.split(","))
    if unknown := set(names) - set(PEERS):
        raise argparse.ArgumentTypeError(f"no peer {', '.join(sorted(unknown))}; there are {', '.join(PEERS)}, none")
    return names


def checkout(text: str) -> Path:
    return Path(text).resolve()


def find_servers(options: argparse.Namespace) -> dict[str, Starter]:
    """How to start each server that takes part, by its name in the scenarios."""
    named = {COMPILED: options.compiled, SUBJECT: options.tree, BEFORE: options.before}
    checkouts = {name: path for name, path in named.items() if path}
    for path in checkouts.values():
        require_checkout(path)
    require_nchan()
    in_memory = {"--store": "memory:"}  # as Nchan has it
    starters = {**{name: pushcompat(path, in_memory) for name, path in checkouts.items()}, NCHAN: nchan}
    starters |= stores.starters(options.tree) | encrypted.starters(options.tree)
    starters |= tokens.starters(options.tree)
    for name in options.peers:
        if start := peers.install(name):
            starters[name] = start
        else:
            print(f"without {name}: Go or npm is missing", file=sys.stderr)
    return starters


def require_machine() -> None:
    if cores() < 2:
        raise BenchError("needs two cores: one for the server, one for the load generator")
    if open_files() < FILES:
        raise BenchError(f"may open {open_files():,} files, needs {FILES:,}: raise the hard limit (ulimit -Hn)")


def measure_all(
    scenarios: list[Scenario], starters: dict[str, Starter], runs: int
) -> tuple[list[Result], list[Delivery]]:
    results: list[Result] = []
    deliveries: list[Delivery] = []
    for scenario in scenarios:
        reports = measure(scenario, starters, min(runs, scenario.most_runs))
        results += evaluate(scenario, reports)
        deliveries.append(Delivery(scenario, reports))
    return results, deliveries


def measure(scenario: Scenario, starters: dict[str, Starter], runs: int) -> tuple[tuple[Report, ...], ...]:
    """The reports of each side, whose runs alternate, so that machine drift affects all sides equally."""
    rows: tuple[list[Report], ...] = tuple([] for _ in scenario.sides)
    sides = deque(zip(scenario.sides, rows, strict=True))
    for number in range(1, runs + 1):
        for side, row in sides:
            row.append(measure_once(starters[side.server], side.load))
            print_progress(scenario, f"{number}/{runs}  {side.label}", row[-1])
        sides.rotate(-1)  # no side always runs after the same other one's load
    return tuple(tuple(row) for row in rows)


def measure_once(start: Starter, work: Load) -> Report:
    with tempfile.TemporaryDirectory(prefix="pushcompat-bench-") as folder, start(Path(folder)) as server:
        load.run(work.warm_up(), server)
        return load.run(work, server)


def print_progress(scenario: Scenario, what: str, report: Report) -> None:
    figures = ", ".join(f"{figure.read(report):,.2f} {figure.unit}" for figure in scenario.figures)
    notes = "" if report["exact"] else "  NOT EXACT"
    if report["others_share"] > QUIET:
        notes += f"  disturbed: others used {report['others_share']:.0%} of a core"
    print(f"{time.strftime('%H:%M:%S')}  {scenario.name} {what}: {figures}{notes}", file=sys.stderr, flush=True)


def write_raw(deliveries: list[Delivery]) -> None:
    RAW.parent.mkdir(exist_ok=True)
    RAW.write_text(json.dumps([delivery.raw() for delivery in deliveries], indent=1) + "\n")


def write(options: argparse.Namespace, results: list[Result], deliveries: list[Delivery]) -> None:
    """The summary, one figure a line, and the chart."""
    about = machine.describe(options.tree, options.before, {name: peers.VERSIONS[name] for name in options.peers})
    parts = {
        "figures": [result.as_json() for result in results],
        "scenarios": [delivery.as_json() for delivery in deliveries],
    }
    lists = (f' "{name}": [\n{_lines(entries)}\n ]' for name, entries in parts.items())
    document = f'{{\n "machine": {json.dumps(about, ensure_ascii=False)},\n' + ",\n".join(lists) + "\n}\n"
    folder = options.output
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "bench.json").write_text(document)
    (folder / "bench.svg").write_text(chart.draw(results, machine.sentence(about)))
    print(f"\nWritten: {folder / 'bench.json'}, {folder / 'bench.svg'}")
    if folder == DOCS:
        write_table(README, machine.sentence(about), markdown(results))
        write_table(DOCS / "scaling.md", machine.sentence(about), stores_markdown(results))


def write_table(page: Path, about: str, figures: str) -> None:
    """Replaces the table between the page's marks."""
    text = page.read_text()
    before, start, rest = text.partition("<!-- figures of make bench -->\n")
    _, end, after = rest.partition("<!-- end of figures -->")
    if end:
        page.write_text(f"{before}{start}{figures}\n\n{about}.\n{end}{after}")


def _lines(entries: list[dict[str, object]]) -> str:
    return ",\n".join("  " + json.dumps(entry, ensure_ascii=False) for entry in entries)


if __name__ == "__main__":
    sys.exit(main())
