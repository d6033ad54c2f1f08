"""docs/security.md against the tests that it names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "security.md").read_text()
PROMISED = TEXT.partition("\n## What is promised\n")[2].partition("\n## ")[0]
ROWS = re.findall(r"^\| (?!promise |---)(.+?) \| (.*) \|$", PROMISED, re.MULTILINE)


@pytest.mark.parametrize(("promise", "tests"), ROWS)
def test_every_promise_names_tests_that_there_are(promise: str, tests: str) -> None:
    file = ""
    found = re.findall(r"`([\w/]*(?:\.py|\.js)?)::(\w+)`", tests)
    assert found
    assert tests.count("`") == 2 * len(found), "something that is no test"
    for path, name in found:
        file = path or file
        assert re.search(rf"^(?:async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file}::{name}"


def test_there_are_promises() -> None:
    assert len(ROWS) > 20
