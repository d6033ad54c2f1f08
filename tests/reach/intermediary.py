"""What stands between a browser and the server, and the documented snippet that configures it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .processes import PATH

ROOT = Path(__file__).parents[2]
DOCUMENTED = ("README.md", "docs/proxies.md")


@dataclass(frozen=True)
class Ports:
    own: int
    push: int  # the server, with everything under /push
    app: int  # the page
    seen: int  # in URLs: of the relay, which is in front of it


@dataclass(frozen=True)
class Intermediary:
    name: str
    how: str  # it is set up
    package: str | None  # of Debian, PyPI or npm
    program: str | None  # or a file of the package
    passes: tuple[str, ...]  # transports, the best first
    command: Callable[[Path, Ports], list[str]] = lambda folder, ports: []
    routes: bool = False  # the page comes through it too
    forward: bool = False  # the browser knows of it, as its proxy
    large: bool = False  # to install: CI does without

    def missing(self) -> str | None:
        if self.program is None or (Path(self.program).is_absolute() and Path(self.program).exists()):
            return None
        return self.package if shutil.which(self.program, path=PATH) is None else None


def snippet(language: str, ports: Ports) -> str:
    """The documented configuration in this language, of which there is one, with the server's port."""
    text = "".join((ROOT / name).read_text() for name in DOCUMENTED)
    found = re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert len(found) == 1, f"there are {len(found)} snippets in {language}"
    return _at(found[0], ports)


def snippet_of(section: str, ports: Ports) -> str:
    """The documented configuration in this section of docs/proxies.md."""
    _, _, rest = (ROOT / "docs" / "proxies.md").read_text().partition(f"\n## {section}\n")
    found = re.search(r"```\w+\n(.*?)```", rest.partition("\n## ")[0], re.DOTALL)
    assert found, f"there is no snippet under {section}"
    return _at(found[1], ports)


def _at(text: str, ports: Ports) -> str:
    assert "8888" in text or "option http-no-delay" in text or "vcl_recv" in text or "CONFIG" in text
    return text.replace("8888", str(ports.push))


def change(text: str, *changes: tuple[str, str]) -> str:
    """What the test needs otherwise; each of these texts is in the snippet."""
    for old, new in changes:
        assert old in text, f"the snippet does not contain {old!r}"
        text = text.replace(old, new)
    return text


def write(folder: Path, text: str, name: str = "configuration") -> str:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return str(path)
