"""What is installed: every package of the source, with dependencies that have a tested lower bound."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

import pytest

from .machine import may_lack

ROOT = Path(__file__).parent.parent
SETUP = ConfigParser()
SETUP.read(ROOT / "setup.cfg")


def lines(section: str, option: str) -> list[str]:
    return [line for line in SETUP[section][option].splitlines() if line and not line.startswith("#")]


def test_every_folder_of_the_source_is_installed() -> None:
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "pushcompat").rglob("*.py")}
    sources = {".".join(folder.parts) for folder in folders}
    elsewhere = {line.split(" = ")[0] for line in lines("options", "package_dir")}
    assert set(lines("options", "packages")) == sources | elsewhere


@pytest.mark.parametrize("requirement", lines("options", "install_requires"))
def test_a_dependency_has_a_lower_bound_that_make_can_install(requirement: str) -> None:
    # The form that the rule of "make test-lower-bounds" turns into a constraint.
    assert re.fullmatch(r"[a-z-]+>=[0-9.]+", requirement)


def test_a_developers_machine_may_lack_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    assert may_lack("chromium")


def test_ci_may_lack_only_what_the_release_of_debian_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    monkeypatch.delenv("CI_WITHOUT", raising=False)
    assert not may_lack("chromium")
    monkeypatch.setenv("CI_WITHOUT", "wkhtmltopdf")
    assert may_lack("wkhtmltopdf")
    assert not may_lack("chromium")
