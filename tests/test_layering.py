"""Who may import whom. The arrows point down: nothing imports what stands above it (docs/architecture.md)."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

import pushcompat

PACKAGE = Path(pushcompat.__file__).parent

# What each part imports of ours, besides itself: no more, and no less. The parts that are not here import nothing.
USED: dict[str, set[str]] = {
    "": {"client"},
    "__main__": {"cli"},
    "access": {"errors", "message", "wire"},
    "bounds": {"limits"},
    "build": {""},
    "channel_tables": {"access", "config_file", "errors", "units"},
    "cli": {
        "access",
        "build",
        "channel_tables",
        "check",
        "client",
        "command_options",
        "config",
        "effective",
        "errors",
        "hook_files",
        "hook_tables",
        "key_tables",
        "logs",
        "options",
        "place",
        "server",
        "settings",
        "state",
        "wire",
    },
    "check": {"access", "bounds", "config", "descriptors", "errors", "exposure", "limits", "tls", "units", "wire"},
    "client": {"config_error", "state"},
    "contrib": {"access", "client", "errors", "state"},
    "config": {"access", "address", "errors", "limits", "logs", "state"},
    "config_file": {"errors"},
    "command_options": {"access", "config_file", "environment", "options", "settings", "units"},
    "effective": {"settings"},
    "errors": {"config_error"},
    "exposure": {"access", "config", "errors", "listening", "logs"},
    "hook_files": {"access", "config_file", "errors", "hook_tables"},
    "hook_tables": {"access", "config_file", "errors", "units", "wire"},
    "hub": {
        "access",
        "changes",
        "errors",
        "limits",
        "logs",
        "message",
        "metrics",
        "store.base",
        "store.presence",
        "tls",
        "wire",
    },
    "key_tables": {"access", "config_file"},
    "listening": {"build", "config", "errors", "logs"},
    "metrics": {"wire"},
    "options": {"access", "logs", "platforms", "settings", "units"},
    "platforms": {"limits"},
    "process": {"", "build", "metrics"},
    "settings": {"access", "address", "config_file", "cores", "environment", "limits", "platforms", "units"},
    "series": {"access", "errors", "hub", "metrics", "wire"},
    "server": {
        "",
        "access",
        "config",
        "descriptors",
        "errors",
        "exposure",
        "hub",
        "limits",
        "listening",
        "logs",
        "message",
        "metrics",
        "place",
        "process",
        "series",
        "store",
        "store.base",
        "supervisor",
        "systemd",
        "tls",
        "web",
        "worker",
    },
    "state": {"config_error"},
    "store": {"errors", "limits", "logs", "message"},
    "supervisor": {
        "config",
        "errors",
        "exposure",
        "listening",
        "logs",
        "metrics",
        "place",
        "systemd",
        "worker",
        "worker_process",
    },
    "tls": {"errors", "logs"},
    "web": {"", "access", "assets", "changes", "errors", "limits", "logs", "message", "tls", "wire"},
    "wire": {"errors", "message"},
    "worker": {"config", "errors", "metrics", "place"},
    "worker_process": {"metrics", "place", "worker"},
}
ONLY_STANDARD_LIBRARY = (
    "__init__",
    "client/__init__",
    "client/publisher",
    "client/dial",
    "client/administration",
    "client/keys",
    "client/responses",
    "client/later",
    "config_error",
    "errors",
    "place",
    "state",
)
INTERFACES = {"store.base", "store.presence"}  # what the hub knows of stores
NOT_IN_WIRE = {"asyncio", "socket", "selectors", "ssl", "time", "tornado"}


def module_of(path: Path) -> str:
    """``hub.fanout`` for hub/fanout.py; ``hub`` for its __init__; the empty string for the package's own."""
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


def imports(path: Path) -> set[str]:
    """All that a file imports: ours as ``.hub.fanout`` (``.`` for the package itself), others by their full name."""
    return found_in(path.read_text(), path)


def found_in(text: str, path: Path) -> set[str]:
    package = ["", *path.relative_to(PACKAGE).parent.parts]
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            stem = [*base, *([node.module] if node.module else [])]
            whole = ".".join(stem) or "."
            found.update(f"{whole}.{alias.name}" if is_module([*stem, alias.name]) else whole for alias in node.names)
    return found


def is_module(parts: list[str]) -> bool:
    if parts[0] != "":
        return False
    path = PACKAGE.joinpath(*parts[1:])
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


FILES = sorted(PACKAGE.rglob("*.py"))


def used_by(part: str) -> set[str]:
    """The parts that files of this part import."""
    paths = [path for path in FILES if module_of(path).split(".")[0] == part]
    ours = {name.lstrip(".") for path in paths for name in imports(path) if name.startswith(".")}
    return {_part(name) for name in ours if name.split(".")[0] != part}


def _part(name: str) -> str:
    return name if name in INTERFACES else name.split(".")[0]


PARTS = sorted({module_of(path).split(".")[0] for path in FILES})


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part or "pushcompat")
def test_every_import_is_an_arrow_and_every_arrow_an_import(part: str) -> None:
    assert used_by(part) == USED.get(part, set())


def circles(graph: Mapping[str, set[str]]) -> set[str]:
    """What is on a circle, or needs what is on one."""
    left = dict(graph)
    while leaves := {module for module, needs in left.items() if not needs & left.keys()}:
        left = {module: needs for module, needs in left.items() if module not in leaves}
    return set(left)


def test_no_files_import_each_other_in_a_circle() -> None:
    """Imports for the type checker alone count too: what a file has to know, it depends on."""
    graph = {
        module_of(path): {name.lstrip(".") for name in imports(path) if name.startswith(".")} - {module_of(path)}
        for path in FILES
    }
    assert graph["hub.fanout"] >= {"hub.channel", "wire.chunk"}
    assert graph["hub.connection"] >= {"access.grant"}
    assert circles(graph) == set()


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": set(), "e": {"d"}}) == {"a", "b", "c"}


def test_an_import_for_the_type_checker_alone_is_seen() -> None:
    path = PACKAGE / "hub" / "only_here.py"
    tree = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .fanout import Fanout\n"
    assert ".hub.fanout" in found_in(tree, path)


def test_only_the_store_package_knows_the_list_of_stores() -> None:
    for path in FILES:
        if not module_of(path).startswith("store"):
            assert not {name for name in imports(path) if name.startswith(".store.") and name[1:] not in INTERFACES}, (
                path
            )


def test_wire_knows_no_sockets_no_clock_and_no_framework() -> None:
    for path in (PACKAGE / "wire").glob("*.py"):
        assert not {name.split(".")[0] for name in imports(path)} & NOT_IN_WIRE, path


def test_an_application_can_publish_with_nothing_but_the_standard_library() -> None:
    for name in ONLY_STANDARD_LIBRARY:
        path = PACKAGE / f"{name}.py"
        foreign = {"tornado", "httptools", "websockets", "msgspec", "click", "prometheus_client"}
        assert not {found.split(".")[0] for found in imports(path)} & foreign, path


def test_a_framework_is_imported_by_its_own_part_alone() -> None:
    frameworks = {"django", "flask", "fastapi", "starlette", "celery"}
    for path in FILES:
        foreign = {name.split(".")[0] for name in imports(path)} & frameworks
        parts = set(module_of(path).split("."))
        assert not foreign or ("contrib" in parts and parts & frameworks), path


def test_configuration_is_read_in_one_place() -> None:
    """Below server nobody looks at the configuration or the environment."""
    for part in ("hub", "store", "web", "wire"):
        for path in (PACKAGE / part).rglob("*.py"):
            assert ".config" not in imports(path), path
            assert not re.search(r"\b(environ|environb|getenv|getenvb)\b", path.read_text()), path
