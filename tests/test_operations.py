"""docs/operations.md against the code: what an operator reads there is what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pushcompat.hub import hub, reasons, sharing
from pushcompat.hub.reasons import CloseReason
from pushcompat.logs import Event
from pushcompat.options import SERVER
from pushcompat.store.sqlite import store

ROOT = Path(__file__).parents[1]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()
SCALING = (ROOT / "docs" / "scaling.md").read_text()


def section(heading: str) -> str:
    return OPERATIONS.partition(f"## {heading}\n")[2].partition("\n## ")[0].partition("\n### ")[0]


def test_the_documented_log_events_are_those_that_there_are() -> None:
    assert re.findall(r"^\| `(\w+)` \|", section("Log events"), re.MULTILINE) == [str(event) for event in Event]


def test_the_documented_reasons_are_those_that_there_are() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", OPERATIONS.partition("### Reasons")[2], re.MULTILINE)
    source = re.findall(r'^    \w+ = "(\w+)"  # (.*)$', Path(reasons.__file__).read_text(), re.MULTILINE)
    assert rows == source
    assert [name for name, _ in rows] == [str(reason) for reason in CloseReason]


def test_every_option_that_bounds_something_exists() -> None:
    flags = {f"--{setting.flag}" for group in SERVER.values() for setting in group}
    named = set(re.findall(r"`(--[a-z-]+)", OPERATIONS))
    assert named - {"--log-format"} <= flags | {"--log-format"}


@pytest.mark.parametrize("path", re.findall(r"in `([a-z_]+/?[a-z_]*\.py)`", section("What bounds memory and time")))
def test_every_file_that_has_a_bound_exists(path: str) -> None:
    assert (ROOT / "pushcompat" / path).exists()


def test_a_stop_takes_no_longer_than_documented() -> None:
    """Three waits of a drain, the presence, and the log, of which none is answered."""
    (allowed,) = re.findall(r"`--drain-timeout` and (\d+) s more to stop", OPERATIONS)
    assert int(allowed) >= 3 * hub._CLOSING_S + sharing._CLOSE_S + store._CLOSE_S


def test_a_log_that_does_not_answer_is_reported_as_soon_as_documented() -> None:
    said = f"has not been answered for {store._STANDSTILL_S:.0f} s"
    assert all(said in " ".join(text.split()) for text in (OPERATIONS, SCALING))
