from __future__ import annotations

from .cells import CELLS
from .matrix import document
from .trial import Result


def test_the_document_says_how_many_cells_were_not_run() -> None:
    good, bad = Result([], ["websocket"], 0.1), Result(["1 is missing"], ["websocket"], 0.1)
    part = document({str(CELLS[0]): good, str(CELLS[1]): bad, "a cell of before": good})
    assert f"1 of 2 cells pass. {len(CELLS) - 2} others were not run." in part
    assert f"{len(CELLS)} of {len(CELLS)} cells pass.\n" in document({str(cell): good for cell in CELLS})
