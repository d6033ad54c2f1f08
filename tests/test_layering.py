"""Who may import whom. The arrows point down: nothing imports what stands above it (docs/architecture.md)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import pushcompat

PACKAGE = Path(pushcompat.__file__).parent

# What each part may import of ours, besides itself.
SMALL = {"errors", "limits", "logs", "message", "metrics", "assets"}
ALLOWED: dict[str, set[str]] = {
    "__main__": {"cli"},
    "cli": {"", "client", "config", "errors", "limits", "logs", "options", "platforms", "server", "state"},
    "options": {"config", "errors", "limits", "logs", "platforms", "state"},
    "config": {"errors", "limits", "logs", "platforms", "state"},
    "platforms": {"limits", "errors"},
    "server": {"", "config", "errors", "hub", "limits", "logs", "metrics", "store", "web"},
    "web": {"", "assets", "errors", "limits", "logs", "metrics", "message", "policy", "wire"},
    "hub": {"errors", "limits", "logs", "message", "metrics", "policy", "store.base", "wire"},
    "store": {"errors", "limits", "message"},
    "policy": {"errors", "wire"},
    "wire": {"errors", "message"},
    "client": {"errors", "state"},
    "state": {"errors"},
    "": {"client"},
}  # fmt: skip
ONLY_STANDARD_LIBRARY = ("__init__", "client/__init__", "client/publisher", "client/dial", "state", "errors")
NOT_IN_WIRE = {"asyncio", "socket", "selectors", "ssl", "time", "tornado"}


def module_of(path: Path) -> str:
    """``hub.fanout`` for hub/fanout.py; ``hub`` for its __init__; the empty string for the package's own."""
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


def imports(path: Path) -> set[str]:
    """All that a file imports: ours as ``.hub.fanout`` (``.`` for the package itself), others by their full name."""
    package = ["", *path.relative_to(PACKAGE).parent.parts]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
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


@pytest.mark.parametrize("path", FILES, ids=lambda path: module_of(path) or "pushcompat")
def test_every_import_follows_an_arrow(path: Path) -> None:
    part = module_of(path).split(".")[0]
    allowed = ALLOWED.get(part, SMALL if part in SMALL else None)
    assert allowed is not None, f"{part}: say in ALLOWED what it may import"
    ours = {name.lstrip(".") for name in imports(path) if name.startswith(".")}
    others = {name for name in ours if name.split(".")[0] != part}
    wrong = {name for name in others if not {name, name.split(".")[0]} & allowed}
    assert wrong == set()


def test_nobody_but_the_store_knows_which_stores_there_are() -> None:
    for path in FILES:
        if not module_of(path).startswith("store"):
            assert not {name for name in imports(path) if name.startswith(".store.") and name != ".store.base"}, path


def test_wire_knows_no_sockets_no_clock_and_no_framework() -> None:
    for path in (PACKAGE / "wire").glob("*.py"):
        assert not {name.split(".")[0] for name in imports(path)} & NOT_IN_WIRE, path


def test_an_application_can_publish_with_nothing_but_the_standard_library() -> None:
    for name in ONLY_STANDARD_LIBRARY:
        path = PACKAGE / f"{name}.py"
        foreign = {"tornado", "httptools", "websockets", "msgspec", "click", "prometheus_client"}
        assert not {found.split(".")[0] for found in imports(path)} & foreign, path


def test_configuration_is_read_in_one_place() -> None:
    """Below server nobody looks at the configuration or the environment."""
    for part in ("hub", "store", "web", "wire"):
        for path in (PACKAGE / part).rglob("*.py"):
            assert ".config" not in imports(path), path
            assert "os" not in imports(path), path
