"""``python -m tests.soak [--minutes 10] [--only NAME] [--report docs/soak.md]``: exit code 1 if anything was wrong."""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
from pathlib import Path

from .report import table
from .scenarios import SCENARIOS
from .world import Outcome, World

_REPORT_MIN = 5  # minutes: a shorter run shows nothing


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="for all scenarios together (10)")
    parser.add_argument("--only", action="append", choices=[scenario.name for scenario in SCENARIOS])
    parser.add_argument("--subscribers", type=int, default=60)
    parser.add_argument("--publishers", type=int, default=6)
    parser.add_argument("--rate", type=float, default=60, help="publishes a second, of all together (60)")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--report", type=Path, help="a Markdown file whose table is replaced")
    options = parser.parse_args()
    if options.report is not None and (options.only or options.minutes < _REPORT_MIN):
        parser.error(
            f"--report replaces the table of {options.report}: omit --only, and use --minutes {_REPORT_MIN} or more"
        )
    random.seed(options.seed)
    chosen = [scenario for scenario in SCENARIOS if not options.only or scenario.name in options.only]
    seconds = options.minutes * 60 / len(chosen)
    outcomes: dict[str, Outcome] = {}
    for scenario in chosen:
        folder = Path(tempfile.mkdtemp(prefix="pushcompat-soak-"))
        world = World(scenario, folder, options.subscribers, options.publishers, options.rate)
        outcome = outcomes[scenario.name] = asyncio.run(world.run(seconds))
        print(f"{scenario.name}: {'passed' if outcome.passed else f'FAILED, see {folder}'}", flush=True)
        for line in (*outcome.verdict.examples[:20], *outcome.problems[:20]):
            print(f"    {line}")
        if outcome.passed:
            shutil.rmtree(folder)
    text = table(outcomes, seconds)
    print(text)
    if options.report is not None:
        before, _, _ = options.report.read_text().partition("\n| ")
        options.report.write_text(f"{before}\n{text}")
    return 0 if all(outcome.passed for outcome in outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
