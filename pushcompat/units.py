"""Quantities with units, in options and in the configuration file: 90s, 64KiB."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)")


@dataclass(frozen=True, slots=True)
class Unit:
    """The unit of an option. ``factors`` maps suffixes, in lower case, to multipliers; ``shown`` has the suffixes that
    defaults are printed with, the largest first.
    """

    metavar: str
    factors: Mapping[str, float]
    shown: Mapping[str, float]
    example: str
    whole: bool = False

    def parse(self, value: object, minimum: float) -> float | int:
        """Raises ValueError, with a sentence."""
        match = _QUANTITY.fullmatch(str(value).strip().lower())
        if match is None or match[2] not in self.factors:
            raise ValueError(f"{str(value)!r} is not a valid {self.metavar.lower()}; examples: {self.example}")
        quantity = float(match[1]) * self.factors[match[2]]
        if quantity == inf:
            raise ValueError(f"the {self.metavar.lower()} is too large")
        if quantity < minimum:
            raise ValueError(f"{value} is too small; the minimum is {self.format(minimum)}")
        return int(quantity) if self.whole else quantity

    def format(self, quantity: float) -> str:
        for suffix, factor in self.shown.items():
            if quantity >= factor and quantity % factor == 0:
                return f"{quantity / factor:g}{suffix}"
        return f"{quantity:g}"


SECONDS = Unit(
    "DURATION",
    {"ms": 0.001, "": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400},
    {"h": 3600, "m": 60, "s": 1},
    "90s, 5m, 1h or 90 (seconds)",
)
BYTES = Unit(
    "SIZE",
    {"": 1, "b": 1, "kb": 1000, "mb": 1000**2, "gb": 1000**3}
    # A bare k is 1024, as to nginx, dd and Docker
    | {"k": 1024, "kib": 1024, "m": 1024**2, "mib": 1024**2, "g": 1024**3, "gib": 1024**3},
    {"GiB": 1024**3, "MiB": 1024**2, "KiB": 1024},
    "64KiB, 1MiB or 65536 (bytes)",
    whole=True,
)
COUNT = Unit("COUNT", {"": 1}, {}, "100", whole=True)
RATE = Unit("RATE", {"": 1}, {}, "30 or 0.5 (a second)")
