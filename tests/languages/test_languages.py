"""The programs of docs/clients.md: a part of what ``make clients`` runs whole."""

from __future__ import annotations

import asyncio
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ..machine import may_lack
from .document import DOCUMENT, blocks, with_table
from .programs import FOLDER, PROGRAMS, Program
from .situations import SITUATIONS
from .stage import REFETCH
from .trial import Cell, complaints, run_all

IN_CI = [program for program in PROGRAMS if program.in_ci]
SITUATION = {situation.name: situation for situation in SITUATIONS}


def part() -> list[Cell]:
    """Three situations for each program, each situation with three programs."""
    return [
        Cell(program, SITUATIONS[(number + step) % len(SITUATIONS)])
        for number, program in enumerate(IN_CI)
        for step in (0, 3, 6)
    ]


@dataclass(frozen=True)
class Broken(Program):
    """A program in which something is missing."""

    base: Program = PROGRAMS[0]
    change: tuple[str, str] = ("", "")

    def prepare(self) -> None:
        self.base.prepare()
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.base.folder, self.folder)
        path = self.folder / self.file
        text = path.read_text()
        assert self.change[0] in text
        path.write_text(text.replace(*self.change))

    @property
    def folder(self) -> Path:
        return FOLDER / f"broken-{abs(hash(self.change))}"


def broken(name: str, situation: str, old: str, new: str) -> Cell:
    base = next(program for program in PROGRAMS if program.name == name)
    fields = {**vars(base), "name": f"{name} with {new!r}"}
    return Cell(Broken(**fields, base=base, change=(old, new)), SITUATION[situation])


BROKEN = [
    broken("Python: requests", "rotation", "cursor = event.id or cursor", "pass"),
    broken("Python: requests", "idle", "timeout=(10, 40)", "timeout=(10, 5)"),
    broken("PHP", "token", ". token()", ". ($once ??= token())"),
    broken("Perl", "502", "next if $failed;", "last if $failed;"),
    broken("curl", "rotation", "received=1 cursor=$id", "received=1"),
]


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> dict[Cell, list[str]]:
    """They are run at once, since they mostly wait: those that were asked for, and can be."""
    tests = [
        item for item in request.session.items if isinstance(item, pytest.Function) and item.module is request.module
    ]
    asked: list[Any] = [test.callspec.params["cell"] for test in tests if "results" in test.fixturenames]
    cells: list[Cell] = [cell for cell in asked if not cell.program.missing()]
    for program in dict.fromkeys(cell.program for cell in cells):
        program.prepare()
    found: dict[Cell, list[str]] = {}
    asyncio.run(run_all(cells, found.__setitem__))
    return found


def result(cell: Cell, results: dict[Cell, list[str]]) -> list[str]:
    if package := cell.program.missing():
        assert may_lack(package), f"{package} has to be installed"
        pytest.skip(f"needs Debian's {package}")
    return results[cell]


@pytest.mark.parametrize("cell", part(), ids=str)
def test_every_message_gets_through_to(cell: Cell, results: dict[Cell, list[str]]) -> None:
    assert result(cell, results) == []


@pytest.mark.parametrize("cell", BROKEN, ids=str)
def test_it_is_noticed_what_is_missing_in(cell: Cell, results: dict[Cell, list[str]]) -> None:
    assert result(cell, results) != []


def test_every_situation_is_among_them() -> None:
    assert {cell.situation for cell in part()} == set(SITUATIONS)


@pytest.mark.parametrize(
    ("received", "history_lost", "said"),
    [
        ([3, "text", 4, 5], False, []),
        ([3, REFETCH, 5], True, []),
        ([3, REFETCH, REFETCH, 5], True, []),
        ([3, 5], False, ["5 came after 3"]),
        ([3, 4, 4, 5], False, ["4 came after 4"]),
        ([3, 4], False, ["the last was [4], not 5"]),
        ([], False, ["the last was [], not 5"]),
        ([3, REFETCH, 5], False, ["it was told to refetch for nothing"]),
        ([3, 4, 5], True, ["it was not told to refetch"]),
    ],
)
def test_what_is_lost_or_repeated_is_a_complaint(received: list[object], history_lost: bool, said: list[str]) -> None:
    assert complaints(received, 5, history_lost=history_lost) == said


# The document


def test_the_document_has_one_program_for_each_language_and_runs_them_all() -> None:
    text = DOCUMENT.read_text()
    assert [len(blocks(program.name, program.language)) for program in PROGRAMS] == [1] * len(PROGRAMS)
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert [name for name in headings if name in {program.name for program in PROGRAMS}] == [
        program.name for program in PROGRAMS
    ]
    languages = [
        language for language in re.findall(r"^```(\w+)$", text, re.MULTILINE) if language not in ("sh", "xml")
    ]
    assert languages == [program.language for program in PROGRAMS]


def test_the_table_has_all_programs_and_no_cell_that_fails() -> None:
    table = DOCUMENT.read_text().partition("<!-- table -->\n")[2].partition("<!-- end of table -->")[0]
    rows = re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)
    assert rows[1:] == [program.name for program in PROGRAMS]
    assert "✗" not in table


def test_a_new_table_replaces_the_old_one_and_nothing_else() -> None:
    once = with_table("\n| new |\n\n")
    assert once.count("| new |") == 1
    assert len(once.splitlines()) < len(DOCUMENT.read_text().splitlines()) + 5
    assert once.partition("<!-- end of table -->")[2] == DOCUMENT.read_text().partition("<!-- end of table -->")[2]


def test_what_each_situation_means_is_said() -> None:
    text = DOCUMENT.read_text()
    assert [situation.name for situation in SITUATIONS if f"\n| {situation.name} | " not in text] == []
