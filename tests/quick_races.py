"""A server that takes races of transports to be over after two seconds: ``python -m tests.quick_races``."""

from __future__ import annotations

from pushcompat import cli
from pushcompat.hub import ghosts

if __name__ == "__main__":
    ghosts.RACE_S = 2
    cli.main()
