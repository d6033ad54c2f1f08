"""The client in Node, in a world without real time. One file alone: node tests/static/race.test.js"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ..machine import may_lack

HERE = Path(__file__).parent
NODE, NPM = shutil.which("node"), shutil.which("npm")
WITH_TOOLS = ["source", "types"]  # of package.json
ALONE = sorted({path.name.removesuffix(".test.js") for path in HERE.glob("*.test.js")} - {*WITH_TOOLS})


def not_here(package: str) -> None:
    assert may_lack(package), f"{package} has to be installed"
    pytest.skip(f"needs Debian's {package}")


def run(*command: str) -> None:
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def run_file(name: str) -> None:
    if NODE is None:
        not_here("nodejs")
    else:
        run(NODE, "--test-reporter=spec", f"{name}.test.js")


@pytest.fixture(scope="module")
def tools() -> None:
    """What package.json names, in node_modules, installed when it is not there or was for another package.json."""
    installed = HERE / "node_modules" / "package.json"
    wanted = (HERE / "package.json").read_text()
    if installed.is_file() and installed.read_text() == wanted:
        return
    if NPM is None:
        not_here("npm")
    else:
        run(NPM, "install", "--no-audit", "--no-fund")
        installed.write_text(wanted)


@pytest.mark.parametrize("name", ALONE)
def test_the_client_behaves_in_node(name: str) -> None:
    run_file(name)


@pytest.mark.parametrize("name", WITH_TOOLS)
@pytest.mark.usefixtures("tools")
def test_the_client_is_what_it_says(name: str) -> None:
    run_file(name)
