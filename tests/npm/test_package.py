"""The npm package: what npm, Node.js, TypeScript and those who judge packages find in it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import pushcompat
from pushcompat.web.module import module

from .conftest import run


def test_the_server_serves_the_same_module(package: Path) -> None:
    assert module() == (package / "pushcompat.mjs").read_text()


def evaluate(project: Path, script: str) -> object:
    """What an ES module logs in JSON, run by Node.js."""
    return json.loads(run("node", "--input-type=module", "--eval", script, cwd=project))


def test_the_package_has_the_version_of_the_server_and_may_be_published(package: Path) -> None:
    manifest = json.loads((package / "package.json").read_text())
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


@pytest.mark.parametrize("load", [IMPORT, REQUIRE])
@pytest.mark.parametrize(("name", "export"), [("react", "useChannel"), ("vue", "useChannel"), ("svelte", "channel")])
def test_an_entry_point_can_be_imported_and_required(project: Path, load: str, name: str, export: str) -> None:
    script = load.format(f"pushcompat/{name}") + "console.log(JSON.stringify(Object.keys(api)));"
    assert evaluate(project, script) == [export]


def test_publint_finds_nothing(project: Path, package: Path) -> None:
    run("npx", "publint", "--strict", str(package), cwd=project)


def test_the_types_are_right_in_every_way_of_resolving_them(project: Path, package: Path) -> None:
    run("npx", "attw", "--pack", str(package), cwd=project)


@pytest.mark.parametrize("resolution", ["Bundler", "NodeNext"])
def test_a_component_in_typescript_is_told_what_is_right_and_what_is_wrong(project: Path, resolution: str) -> None:
    module = "ESNext" if resolution == "Bundler" else resolution
    options = ["--noEmit", "--strict", "--exactOptionalPropertyTypes", "--target", "ES2020", "--skipLibCheck", "false"]
    run("npx", "tsc", *options, "--module", module, "--moduleResolution", resolution, "types.ts", cwd=project)


def test_a_server_renders_components_without_a_connection(project: Path) -> None:
    waiting, none = (
        [f"<p>{state}</p>", f"<p>{state}</p>", state, state] for state in ("connecting", "closed")
    )  # React, Vue, Svelte 5 and 4
    assert json.loads(run("node", "render.mjs", cwd=project)) == waiting + none
