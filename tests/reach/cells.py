"""The cells of the matrix: browsers × proxies × networks, without redundant combinations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from .browsers import BROWSERS, Browser
from .intermediaries import INTERMEDIARIES
from .intermediary import Intermediary
from .networks import NETWORKS, Network


@dataclass(frozen=True)
class Cell:
    browser: Browser
    between: Intermediary
    network: Network

    def __str__(self) -> str:
        return f"{self.browser.name} | {self.between.name} | {self.network.name}"

    @property
    def transport(self) -> str:
        """The best that gets through, in the end."""
        return next(transport for transport in self.between.passes if transport in self.network.lets)

    def applies(self) -> bool:
        return set(self.network.about) <= set(self.between.passes) and self.browser.returns >= self.network.returns

    def missing(self) -> str | None:
        """A package of Debian that it needs and that is not installed."""
        return self.browser.missing() or self.between.missing()


CELLS = tuple(
    cell
    for browser in BROWSERS
    for between in INTERMEDIARIES
    for network in NETWORKS
    if (cell := Cell(browser, between, network)).applies()
)


def representative() -> tuple[Cell, ...]:
    """Each network once, with the browser and the proxy that had the fewest so far, then the proxies that had none.

    Without those that are large to install.
    """
    chosen: list[Cell] = []
    had: Counter[Browser | Intermediary] = Counter()

    def take(cells: Iterable[Cell]) -> None:
        cell = min(cells, key=lambda cell: had[cell.browser] + had[cell.between])
        had.update((cell.browser, cell.between))
        chosen.append(cell)

    for network in NETWORKS:
        take(cell for cell in CELLS if cell.network is network and not cell.between.large)
    for between in INTERMEDIARIES:
        if not had[between] and not between.large:
            take(cell for cell in CELLS if cell.between is between and cell.network is NETWORKS[0])
    return tuple(chosen)
