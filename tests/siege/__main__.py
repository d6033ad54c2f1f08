"""``python -m tests.siege [--hostile 15000] [--good 1000] [--seconds 60] [--pause 5] [--tls]``

Exit code 1 if a good subscriber was lost, or the server used more memory than its bound.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

from .report import report
from .world import World


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.siege", description=__doc__)
    parser.add_argument("--hostile", type=int, default=15_000)
    parser.add_argument("--good", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--pause", type=float, default=5, help="seconds between two actions of a hostile client (5)")
    parser.add_argument("--tls", action="store_true", help="with TLS, and the kinds that do not finish a handshake")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="pushcompat-siege-"))
    world = World(folder, options.good, options.hostile, options.seconds, options.pause, tls=options.tls)
    outcome = asyncio.run(world.run())
    print(report(outcome))
    if not outcome.passed:
        print(f"see {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
