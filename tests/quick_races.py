"""A server that takes races of transports to be over after two seconds: ``python -m tests.quick_races``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pushcompat import cli
from pushcompat.limits import Limits
from pushcompat.options import limits_from


def _quick(values: dict[str, Any]) -> Limits:
    return replace(limits_from(values), race_s=2.0)


if __name__ == "__main__":
    cli.limits_from = _quick
    cli.main()
