"""examples/frontend in a browser: a comment that is posted appears on the open pages of each framework."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from .chromium import Profile, needed
from .harness import running
from .machine import may_lack
from .test_examples import EXAMPLES, free_port, post, serving

pytestmark = needed
FOLDER = EXAMPLES / "frontend"
PAGES = [
    "datastar",
    "htmx2",
    "htmx2-sse",
    "htmx4",
    "htmx4-sse",
    "query",
    "react",
    "svelte",
    "turbo",
    "turbo-source",
    "vue",
]
SHOWN = "document.getElementById('comments').innerText"
INSTALL_S = 300


@pytest.fixture(scope="module")
def _built() -> None:
    if not shutil.which("npm"):
        assert may_lack("npm"), "npm has to be installed"
        pytest.skip("needs Debian's npm")
    for command in ("make -C ../.. npm", "npm install --silent", "npm run --silent build"):
        subprocess.run(command.split(), cwd=FOLDER, check=True, timeout=INSTALL_S)


@pytest.fixture(scope="module")
def url(_built: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of the application."""
    port, folder = free_port(), tmp_path_factory.mktemp("frontend")
    command = [sys.executable, "-m", "flask", "--app", str(FOLDER / "server.py"), "run", "--port", str(port)]
    for server in running(folder / "state", "--cors-origin", f"http://127.0.0.1:{port}"):
        with serving(command, port, server.url, folder) as url:
            yield url


def test_all_pages_are_tried() -> None:
    assert sorted(page.stem for page in FOLDER.glob("*.html")) == PAGES


@pytest.mark.parametrize("name", PAGES)
def test_a_comment_appears_on_an_open_page(name: str, url: str, chromium: Profile) -> None:
    post(url, f"before {name}")
    page = chromium.open(url + name)
    page.wait_for(f"{SHOWN}.includes('before {name}')")
    post(url, f"<after> {name}")
    page.wait_for(f"{SHOWN}.includes('<after> {name}')")
