"""The entry points for frameworks, in Chromium, on a real server: a page of two components for each of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..chromium import Page, Profile, needed
from ..harness import Server, running
from .conftest import run

pytestmark = needed

CONNECTIONS = 'pushcompat_subscriptions{transport="websocket"}'
FRAMEWORKS = ["react", "vue", "svelte"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from running(tmp_path_factory.mktemp("state"), "--heartbeat", "1")


@pytest.fixture(scope="module")
def script(project: object) -> str:
    return run("node", "bundle.mjs")


@pytest.fixture(params=FRAMEWORKS)
def framework(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def shows(page: Page, text: str) -> None:
    page.wait_for(
        f"[].every.call(document.querySelectorAll('p'), function (p) {{ return p.textContent == '{text}'; }})"
    )


def mounted(server: Server, chromium: Profile, framework: str, script: str) -> Page:
    page = chromium.open(f"{server.url}/healthz", policy=False)
    page.evaluate(f"{script}; document.body.innerHTML = '<main></main>'; 0")
    page.evaluate(f"var page = pages.{framework}; page.mount(document.querySelector('main')); 0")
    page.wait_for("document.querySelectorAll('p').length == 2")
    shows(page, "0: open nothing")
    return page


def test_components_follow_a_channel_on_one_connection_until_they_are_gone(
    server: Server, chromium: Profile, framework: str, script: str
) -> None:
    before = server.metric(CONNECTIONS)
    page = mounted(server, chromium, framework, script)
    assert server.metric(CONNECTIONS) == before + 1
    server.publish(f"{framework}-one", "hello")
    shows(page, "0: open hello")
    assert page.evaluate("seen") == ["hello at step 0"] * 2
    page.evaluate("page.unmount(); 0")
    server.wait_for_metric(CONNECTIONS, before, before)
    assert page.evaluate("problems") == []


def test_a_component_goes_to_another_channel_and_to_none_with_the_callbacks_of_the_moment(
    server: Server, chromium: Profile, framework: str, script: str
) -> None:
    page = mounted(server, chromium, framework, script)
    one, two = f"{framework}-one", f"{framework}-two"
    page.evaluate("page.go(1); 0")  # the same channel, another callback
    shows(page, "1: open nothing")
    server.publish(one, "first")
    shows(page, "1: open first")
    page.evaluate("page.go(2); 0")
    shows(page, "2: open nothing")
    server.publish(one, "unheard")
    server.publish(two, "second")
    shows(page, "2: open second")
    page.evaluate("page.go(3); 0")
    shows(page, "3: closed nothing")
    assert page.evaluate("seen") == [*["first at step 1"] * 2, *["second at step 2"] * 2]
    page.evaluate("page.unmount(); 0")
    assert "closed" not in page.evaluate("states")  # a component does not hear of its own end
    assert page.evaluate("problems") == []
