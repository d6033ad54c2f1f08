"""A project that has installed the package as `make npm` builds it, beside what package.json names."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ..machine import may_lack

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PACKAGE = ROOT / "build" / "npm"


def run(*command: str, cwd: Path = HERE) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def package() -> Path:
    if not shutil.which("npm"):
        assert may_lack("npm"), "npm has to be installed"
        pytest.skip("needs Debian's npm")
    run("make", "npm", cwd=ROOT)
    return PACKAGE


@pytest.fixture(scope="session")
def project(package: Path) -> Path:
    modules = HERE / "node_modules"
    installed, wanted = modules / "package.json", (HERE / "package.json").read_text()
    if not installed.is_file() or installed.read_text() != wanted:
        run("npm", "install", "--silent", "--no-audit", "--no-fund", "--no-package-lock")
        installed.write_text(wanted)
    shutil.rmtree(modules / "pushcompat", ignore_errors=True)
    shutil.copytree(package, modules / "pushcompat")
    return HERE
