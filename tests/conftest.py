from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from .chromium import Browser, Profile, browser
from .harness import Client, Server, running

# A shell without job control starts background commands with SIGINT ignored, which their children inherit.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server for one test. ``@pytest.mark.options("--heartbeat", "1")`` sets its options."""
    marker = request.node.get_closest_marker("options")
    yield from running(tmp_path / "state", *(marker.args if marker else ()))


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests of a file; each test must use its own channels."""
    yield from running(tmp_path_factory.mktemp("state"))


@pytest.fixture
def shared_client(shared_server: Server) -> Iterator[Client]:
    with shared_server.connect() as client:
        yield client


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with server.connect() as client:
        yield client


@pytest.fixture(scope="session")
def browser_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as chromium:
        yield chromium


@pytest.fixture
def chromium(browser_process: Browser) -> Iterator[Profile]:
    """A browser with a new profile, for tests that are marked as ``needed`` by ``chromium``."""
    with browser_process.profile() as profile:
        yield profile
