"""docs/python.md: its examples run, and it names all that is public."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pushcompat

from .harness import KEY, PATIENCE_S, Server, running

DOCUMENT = (Path(__file__).parent.parent / "docs" / "python.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from running(tmp_path_factory.mktemp("state"))


@pytest.mark.parametrize("example", EXAMPLES)
def test_its_examples_run(server: Server, example: str) -> None:
    ends = example.replace('listen("chat")', 'listen("chat", timeout=0.2)')
    environment = {**os.environ, "PUSHCOMPAT_URL": server.url, "PUSHCOMPAT_PUBLISH_KEY": KEY}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ends],
        env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", pushcompat.__all__)
def test_it_names_everything_public_with_its_arguments(name: str) -> None:
    assert f"`{name}" in DOCUMENT
    public = getattr(pushcompat, name)
    if inspect.isclass(public):
        members = [
            member for member in vars(public) if not member.startswith("_") and member not in ("send", "timeout")
        ]
        names = [*getattr(public, "__dataclass_fields__", ()), *members]
    else:
        names = [*inspect.signature(public).parameters]
    assert [part for part in names if not re.search(rf"\b{part}\b", DOCUMENT)] == []
