"""Runs all programs of docs/clients.md, prints each cell as it is done, and writes the table there.

    python -m tests.languages.matrix                  all, in about five minutes after the first installation
    python -m tests.languages.matrix --only 'PHP|Go'  what matches in "program | situation"; the rest stays as it was

Exit code 0: every cell passes; 1: one fails. Programs whose language is not installed are shown as "not run".
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
import sys
import time
from datetime import UTC, datetime

from .document import DOCUMENT, with_table
from .programs import FOLDER, PROGRAMS
from .situations import SITUATIONS
from .trial import Cell, cells_of, run_all

RESULTS = FOLDER / "results.json"  # of all cells, so that a part can be run again


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="PATTERN", help="regular expression")
    pattern: str = parser.parse_args().only
    here = [program for program in PROGRAMS if program.missing() is None]
    cells = [cell for cell in cells_of(here) if re.search(pattern, str(cell))]
    for program in dict.fromkeys(cell.program for cell in cells):
        print(f"prepares {program}", flush=True)
        program.prepare()
    results: dict[str, list[str]] = json.loads(RESULTS.read_text()) if pattern and RESULTS.exists() else {}
    started = time.monotonic()

    def tell(cell: Cell, found: list[str]) -> None:
        results[str(cell)] = found
        print(f"{_entry(found)}  {cell}", *found, sep="\n      ", flush=True)

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up, too
    asyncio.run(run_all(cells, tell))
    failed = sum(bool(results[str(cell)]) for cell in cells)
    RESULTS.write_text(json.dumps(results, indent=1))
    DOCUMENT.write_text(with_table(_table(results)))
    print(f"{len(cells)} cells in {time.monotonic() - started:.0f} s, {failed or 'none'} failed; see {DOCUMENT}")
    return 1 if failed else 0


def _entry(found: list[str] | None) -> str:
    return "" if found is None else "✗" if found else "✓"


def _table(results: dict[str, list[str]]) -> str:
    lines = [f"| | {' | '.join(map(str, SITUATIONS))} | with |", "| --- |" + " --- |" * (len(SITUATIONS) + 1)]
    for program in PROGRAMS:
        ran = program.missing() is None
        cells = [Cell(program, situation) for situation in SITUATIONS]
        entries = [_entry(results.get(str(cell))) if ran else "not run" for cell in cells]
        lines.append(f"| {program} | {' | '.join(entries)} | {program.shown_version() if ran else ''} |")
    lines.append("")
    lines.append(f"{datetime.now(UTC).date()}, by `make clients`.")
    return "\n" + "\n".join(lines) + "\n\n"


if __name__ == "__main__":
    sys.exit(main())
