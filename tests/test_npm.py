"""The npm package, as `make npm` builds it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import pushcompat

from .machine import may_lack

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "build" / "npm"


def run(*command: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has installed the package."""
    if not shutil.which("npm"):
        assert may_lack("npm"), "npm has to be installed"
        pytest.skip("needs Debian's npm")
    run("make", "npm")
    project = tmp_path_factory.mktemp("project")
    shutil.copytree(PACKAGE, project / "node_modules" / "pushcompat")
    return project


def evaluate(project: Path, script: str) -> object:
    """What an ES module logs in JSON, run by Node.js."""
    return json.loads(run("node", "--input-type=module", "--eval", script, cwd=project))


def test_the_package_has_the_version_of_the_server(project: Path) -> None:
    manifest = json.loads((PACKAGE / "package.json").read_text())
    assert (manifest["version"], manifest.get("private")) == (pushcompat.__version__, None)


IMPORT = "const api = await import('{0}');"
REQUIRE = "import {{createRequire}} from 'node:module'; const api = createRequire(process.cwd() + '/')('{0}');"
FILES = {
    IMPORT: ["pushcompat", "./node_modules/pushcompat/pushcompat.min.mjs"],
    REQUIRE: ["pushcompat", "./node_modules/pushcompat/pushcompat.min.js"],
}


@pytest.mark.parametrize(("load", "name"), [(load, name) for load, names in FILES.items() for name in names])
def test_a_module_has_the_api_and_sets_no_global(project: Path, load: str, name: str) -> None:
    look = "console.log(JSON.stringify([typeof api.subscribe, typeof api.UpdateCheckSocket, now.filter(isNew)]));"
    script = f"""const before = Object.getOwnPropertyNames(globalThis), isNew = (name) => !before.includes(name);
    {load.format(name)} const now = Object.getOwnPropertyNames(globalThis); {look}"""
    assert evaluate(project, script) == ["function", "function", []]
