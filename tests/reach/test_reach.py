"""Real browsers behind real proxies on bad networks: a part of the matrix that ``make reach`` runs whole."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ..machine import may_lack
from .browsers import BROWSERS
from .cells import Cell, representative
from .intermediaries import INTERMEDIARIES
from .networks import NETWORKS
from .trial import Result, run_all

CELLS = representative()


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> dict[Cell, Result]:
    """They are run at once, since they mostly wait: those that were asked for, and can be."""
    tests = [
        item for item in request.session.items if isinstance(item, pytest.Function) and item.module is request.module
    ]
    asked: list[Any] = [test.callspec.params["cell"] for test in tests if "results" in test.fixturenames]
    found: dict[Cell, Result] = {}
    asyncio.run(run_all([cell for cell in asked if not cell.missing()], found.__setitem__))
    return found


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_updates_get_through_to(cell: Cell, results: dict[Cell, Result]) -> None:
    if package := cell.missing():
        assert may_lack(package), f"{package} has to be installed"
        pytest.skip(f"needs {package}")
    assert results[cell].complaints == []


def test_every_browser_every_proxy_and_every_network_is_among_them() -> None:
    for parts, chosen in (
        (BROWSERS, [cell.browser for cell in CELLS]),
        ([between for between in INTERMEDIARIES if not between.large], [cell.between for cell in CELLS]),
        (NETWORKS, [cell.network for cell in CELLS]),
    ):
        assert all(part in chosen for part in parts)
