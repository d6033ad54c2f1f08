"""Runs the whole matrix, prints each cell as it is done, and writes docs/reach.md.

    python -m tests.reach.matrix                   all, in about 50 minutes
    python -m tests.reach.matrix --only Firefox    what matches in "browser | proxy | network"; the rest stays as it was

Exit code 0: every cell passes; 1: one fails; 2: something is not installed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from .browsers import BROWSERS, Browser
from .cells import CELLS, Cell
from .dev_servers import MODULES
from .intermediaries import INTERMEDIARIES
from .networks import NETWORKS
from .trial import Result, run_all

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "reach.md"
RESULTS = ROOT / "build" / "reach.json"  # of all cells, so that a part can be run again
SHORT = {"websocket": "WS", "eventsource": "ES", "longpoll": "LP"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="PATTERN", help="regular expression")
    pattern: str = parser.parse_args().only
    cells = [cell for cell in CELLS if re.search(pattern, str(cell))]
    cells.sort(key=lambda cell: (NETWORKS.index(cell.network), INTERMEDIARIES.index(cell.between)))  # browsers by turns
    if missing := {cell.missing() for cell in cells} - {None}:
        print(f"reach: needs {', '.join(sorted(map(str, missing)))}", file=sys.stderr)
        return 2
    results = _load() if pattern else {}
    started = time.monotonic()

    def tell(cell: Cell, result: Result) -> None:
        results[str(cell)] = result
        print(f"{_entry(result)}  {cell}", *result.complaints, sep="\n      ", flush=True)

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up, too
    asyncio.run(run_all(cells, tell))
    _save(results)
    DOCUMENT.write_text(document(results))
    failed = sum(bool(results[str(cell)].complaints) for cell in cells)
    print(f"{len(cells)} cells in {time.monotonic() - started:.0f} s, {failed or 'none'} failed; see {DOCUMENT}")
    return 1 if failed else 0


def _load() -> dict[str, Result]:
    if not RESULTS.exists():
        return {}
    return {name: Result(**result) for name, result in json.loads(RESULTS.read_text()).items()}


def _save(results: dict[str, Result]) -> None:
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({name: asdict(result) for name, result in results.items()}, indent=1))


# The document


def _entry(result: Result) -> str:
    path = [SHORT[transport] for transport in result.transports]
    changes = [name for name, before in zip(path, [None, *path], strict=False) if name != before]
    time_s = "-" if result.first_s is None else f"{result.first_s:.1f} s"
    return f"{'✗' if result.complaints else '✓'} {'→'.join(changes)} {time_s}"


def document(results: dict[str, Result]) -> str:
    ran = [results[str(cell)] for cell in CELLS if str(cell) in results]
    not_run = len(CELLS) - len(ran)
    introduction = _INTRODUCTION.format(
        held=sum(not result.complaints for result in ran),
        cells=len(ran),
        rest=f" {not_run} others were not run." if not_run else "",
        between="\n".join(f"| {between.name} | {between.how} |" for between in INTERMEDIARIES),
        networks="\n".join(f"| {network.name} | {network.must} |" for network in NETWORKS),
    )
    parts = [introduction]
    for browser in BROWSERS:
        parts += ["", f"## {browser.name}", "", *_table(browser, results)]
    parts += ["", "## Where it ran", "", _machine(), ""]
    return "\n".join(parts)


def _table(browser: Browser, results: dict[str, Result]) -> list[str]:
    names = [between.name for between in INTERMEDIARIES]
    lines = [f"| | {' | '.join(names)} |", "| --- |" + " --- |" * len(names)]
    for network in NETWORKS:
        row = [Cell(browser, between, network) for between in INTERMEDIARIES]
        if any(cell.applies() for cell in row):
            entries = [_entry(results[str(cell)]) if str(cell) in results else "" for cell in row]
            lines.append(f"| {network.name} | {' | '.join(entries)} |")
    return lines


def _machine() -> str:
    packages = dict.fromkeys(part.package for part in (*BROWSERS, *INTERMEDIARIES) if part.package)
    versions = ", ".join(f"{package} {_version(package)}" for package in packages)
    return (
        f"{datetime.now(UTC).date()} · {os.cpu_count()} cores · {platform.freedesktop_os_release()['PRETTY_NAME']}, "
        f"Linux {platform.release()} · Python {platform.python_version()} · {versions}"
    )


def _version(package: str) -> str:
    """Of npm, of PyPI, or of Debian."""
    npm = MODULES / package / "package.json"
    if npm.exists():
        return str(json.loads(npm.read_text())["version"])
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    command = ["dpkg-query", "-W", "-f", "${Version}", package]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


_INTRODUCTION = """\
# Reach

Written by `make reach`: {held} of {cells} cells pass.{rest}

Each cell is a real browser with its own profile, behind a real proxy; a relay between the two simulates the network
(`tests/reach`). The browser opens a page that subscribes with the client's defaults, and reports everything that it
receives directly to the test. A publisher sends four numbered updates a second, from before the page opens until the
end. A cell passes if

- the page received each number exactly once and in order, or, if history was lost on purpose, `reset` in place of what
  is missing, and nowhere else;
- the first update arrived within 6 s of subscribing;
- after the network scenario ends, the page catches up without a reload, and returns to the best transport that works
  there;
- from then on no update is more than 2 s late. If the network interrupts nothing, this applies from the start.

| proxy | |

| --- | --- |
{between}

| network | expected |
| --- | --- |
{networks}

A cell shows the transports that the page used, one after the other (WS: WebSocket, ES: EventSource, LP: long-poll), and
the time from subscribing to the first update. It is empty if the combination would repeat another one: for example, a
network that blocks WebSocket is not tested behind a proxy that blocks it anyway."""


if __name__ == "__main__":
    sys.exit(main())
