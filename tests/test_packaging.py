"""What is installed: every package, dependencies that have a tested lower bound, and the compiled build."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from configparser import ConfigParser
from contextlib import contextmanager
from email import message_from_string
from pathlib import Path

import pytest

from .harness import Server, running
from .machine import may_lack

ROOT = Path(__file__).parent.parent
SETUP = ConfigParser()
SETUP.read(ROOT / "setup.cfg")


NO_COMPILER = not shutil.which("cc") and may_lack("gcc")
NO_HEADERS = not Path(sysconfig.get_path("include"), "Python.h").exists() and may_lack("python3-dev")


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


@pytest.mark.skipif(NO_COMPILER or NO_HEADERS, reason="there is no C compiler here, or no header files of Python")
def test_a_compiled_build_says_so_and_serves(tmp_path: Path) -> None:
    source, built = tmp_path / "source", tmp_path / "built"
    for name in ("pushcompat", "static", "templates"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for name in ("setup.py", "setup.cfg", "README.md"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "setup.py", "--quiet", "build", "--build-lib", str(built)]
    environment = {**os.environ, "PUSHCOMPAT_COMPILE": "1"}
    done = subprocess.run(build, cwd=source, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    version = [sys.executable, "-m", "pushcompat", "--version"]
    assert subprocess.check_output(version, cwd=built, text=True) == "pushcompat 0.1.0 (compiled)\n"

    class Built(Server):
        wrapper = ("env", "-C", str(built))

    with contextmanager(running)(tmp_path / "state", kind=Built) as server, server.connect() as client:
        assert client.upgrade("/channels/chat") == 101
        server.publish("chat", "hello")
        assert client.frame() == (0x81, b"hello")


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


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked source distribution."""
    work = tmp_path_factory.mktemp("sdist")
    ignored = shutil.ignore_patterns(
        ".*_cache", "node_modules", ".git", ".venv*", ".hypothesis", "*.so", "build", "*.egg-info", "*.log"
    )
    shutil.copytree(ROOT, work / "source", ignore=ignored)
    build = [sys.executable, "setup.py", "--quiet", "sdist", "--dist-dir", str(work)]
    done = subprocess.run(build, cwd=work / "source", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (archive,) = work.glob("*.tar.gz")
    subprocess.run(["tar", "-xf", str(archive), "-C", str(work)], check=True)
    return work / archive.name.removesuffix(".tar.gz")


def test_the_tests_run_in_the_source_distribution(sdist: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(sdist)}
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    listed = subprocess.run([*run, "--collect-only"], cwd=sdist, env=environment, capture_output=True, text=True)
    assert listed.returncode == 0, listed.stdout
    done = subprocess.run([*run, "tests/test_units.py", "tests/test_operations.py", "tests/test_deploy.py"], cwd=sdist,
                          env=environment, capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_the_source_distribution_has_every_file_of_the_repository(sdist: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("this is no clone")
    assert [name for name in listed.stdout.splitlines() if not (sdist / name).exists()] == []


def test_the_description_has_no_link_that_leads_nowhere_where_it_is_shown_alone(sdist: Path) -> None:
    metadata = message_from_string((sdist / "PKG-INFO").read_text())
    description = str(metadata.get_payload())
    assert description.startswith("# pushcompat")
    assert [link for link in re.findall(r"\]\(([^)]*)\)", description) if "://" not in link] == []
    assert {"Requires-Python", "Author", "Summary"} <= set(metadata)
    assert "Programming Language :: Python :: 3.11" in metadata.get_all("Classifier", [])
