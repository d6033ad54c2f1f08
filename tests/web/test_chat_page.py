"""The chat in a real browser: what one page posts, the others show; and what the page shows of its connection."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

import pytest

from ..chromium import Page, Profile, needed
from ..harness import PATIENCE_S, Server, running

pytestmark = [pytest.mark.options("--demo"), needed]

LAST = "(document.querySelector('#comments li:last-child p') || {}).textContent"
STATUS = "document.querySelector('#status').textContent"


def bottom(selector: str) -> str:
    return f"document.querySelector({json.dumps(selector)}).getBoundingClientRect().bottom"


def chat(chromium: Profile, server: Server) -> Page:
    page = chromium.open(f"{server.url}/demo/chat")
    page.wait_for(f"{STATUS} == 'Live by WebSocket'")
    page.evaluate("window.sameDocument = true")
    return page


def say(server: Server, text: str, name: str = "Ann") -> None:
    body = urlencode({"name": name, "text": text}).encode()
    urllib.request.urlopen(f"{server.url}/demo/chat/comments", body, PATIENCE_S).close()


def shows(page: Page, text: str) -> None:
    page.wait_for(f"{LAST} == {json.dumps(text)}")
    assert page.evaluate("window.sameDocument")


def test_a_comment_shows_up_in_other_pages_while_they_are_typing(server: Server, chromium: Profile) -> None:
    one, two = chat(chromium, server), chat(chromium, server)
    two.type("#text", "half a sent")
    one.type("#name", "Ann")
    one.type("#text", "hello\n")
    shows(two, "hello")
    shows(one, "hello")
    assert two.evaluate("[document.activeElement.id, document.activeElement.value]") == ["text", "half a sent"]
    assert one.evaluate("[document.activeElement.id, document.activeElement.value]") == ["text", ""]
    assert one.evaluate("document.querySelector('#comments li b').textContent") == "Ann"
    assert one.evaluate("document.querySelector('#name').value") == "Ann"


def test_only_what_is_new_is_drawn(server: Server, chromium: Profile) -> None:
    for number in range(20):
        say(server, str(number))
    page = chat(chromium, server)
    page.evaluate("var before = [].slice.call(document.querySelectorAll('#comments li'))")
    say(server, "new")
    shows(page, "new")
    page.evaluate("var after = [].slice.call(document.querySelectorAll('#comments li'))")
    assert page.evaluate("after.length") == 20
    assert page.evaluate("before.slice(1).every(function (item, i) { return item === after[i] })")


def test_the_newest_is_in_sight_and_who_scrolled_up_is_left_there(server: Server, chromium: Profile) -> None:
    for number in range(20):
        say(server, f"{number}\n\n\n")
    page = chat(chromium, server)
    page.wait_for(f"{bottom('#comments li:last-child')} <= {bottom('#scroll')}")
    page.evaluate("document.querySelector('#scroll').scrollTop = -300")
    page.evaluate(f"document.querySelectorAll('#comments li')[14].className = 'read', place = {bottom('.read')}")
    say(server, "new")
    shows(page, "new")
    page.wait_for(f"Math.abs({bottom('.read')} - place) < 2")


def test_a_disabled_transport_is_left_and_an_enabled_one_is_used(server: Server, chromium: Profile) -> None:
    page = chat(chromium, server)
    for box, then in [
        ("websocket", "Live by Server-Sent Events"),
        ("eventsource", "Live by Long-poll"),
        ("longpoll", "Not connected"),
        ("eventsource", "Live by Server-Sent Events"),
        ("longpoll", "Live by Server-Sent Events"),
        ("websocket", "Live by WebSocket"),
    ]:
        page.click(f"[value={box}]")
        page.wait_for(f"{STATUS} == '{then}'")
        say(server, f"after {box}")
        if then != "Not connected":
            shows(page, f"after {box}")
            in_use = page.evaluate("document.querySelector('.current').textContent.trim()")
            assert then == f"Live by {in_use}"
    changes = page.evaluate("document.querySelector('#changes').textContent")
    assert "You enabled WebSocket" in changes


def test_messages_missed_while_all_transports_were_disabled_arrive_later(server: Server, chromium: Profile) -> None:
    page = chat(chromium, server)
    for box in ("websocket", "eventsource", "longpoll"):
        page.click(f"[value={box}]")
    page.wait_for(f"{STATUS} == 'Not connected'")
    say(server, "missed")
    page.click("[value=longpoll]")
    shows(page, "missed")


def test_a_page_whose_network_swallows_websockets_says_so(server: Server, chromium: Profile) -> None:
    silent = "window.WebSocket = function () { this.close = function () {} }"
    page = chromium.open(f"{server.url}/demo/chat", before=silent)
    page.wait_for(f"{STATUS} == 'Live by Server-Sent Events'")
    assert "because websocket" in page.evaluate("document.querySelector('#changes').textContent")


def test_a_page_that_is_cut_off_says_why_and_comes_back(tmp_path: Path, chromium: Profile) -> None:
    server = Server(tmp_path, "--demo")
    page = chat(chromium, server)
    server.stop()
    page.wait_for(f"{STATUS} == 'Disconnected, retrying'")
    page.type("#text", "typed meanwhile\n")
    page.wait_for("document.querySelector('#error').textContent == 'Not sent: the server cannot be reached.'")
    assert page.evaluate("document.querySelector('#text').value") == "typed meanwhile"
    assert page.evaluate("/because .+/.test(document.querySelector('#changes').textContent)")
    for _ in running(tmp_path, "--demo", "--port", str(server.port)):
        page.wait_for(f"/^Live/.test({STATUS})")
        page.click("#send")
        shows(page, "typed meanwhile")
        assert page.evaluate("document.querySelector('#error').textContent") == ""


def test_however_many_signals_come_one_request_is_on_its_way(server: Server, chromium: Profile) -> None:
    page = chat(chromium, server)
    page.evaluate(
        "var held = [], send = XMLHttpRequest.prototype.send;"
        "XMLHttpRequest.prototype.send = function (body) { held.push(this); }"
    )
    for number in range(5):
        server.publish("chat", str(number))
    server.wait_for_metric('pushcompat_deliveries_total{transport="websocket"}', 5)
    page.wait_for("held.length")
    assert page.evaluate("held.length") == 1
    page.evaluate("send.call(held[0])")
    page.wait_for("held.length == 2")
    page.evaluate("send.call(held[1])")
    page.wait_for("held[1].readyState == 4")
    assert page.evaluate("held.length") == 2


HOSTILE = "<img src=x onerror='hacked = 1'><script>hacked = 1</script>"


@pytest.mark.parametrize("scripts", [True, False])
def test_markup_in_comments_is_shown_as_text(server: Server, chromium: Profile, scripts: bool) -> None:
    page = chromium.open(f"{server.url}/demo/chat", scripts)
    say(server, HOSTILE, name=HOSTILE[:32])
    if not scripts:
        page = chromium.open(f"{server.url}/demo/chat", scripts)
    page.wait_for(f"{LAST} == {json.dumps(HOSTILE)}")
    assert page.evaluate("typeof hacked") == "undefined"
    assert page.evaluate("document.querySelectorAll('#comments img, #comments script').length") == 0


def test_without_scripts_the_form_is_enough(server: Server, chromium: Profile) -> None:
    page = chromium.open(f"{server.url}/demo/chat", scripts=False)
    assert page.evaluate("document.querySelector('#connection').getClientRects().length") == 0
    page.type("#name", "Bob")
    page.type("#text", "by form")
    page.click("#send")
    page.wait_for(f"{LAST} == 'by form'")
    assert page.evaluate("[location.pathname, document.querySelector('#name').value]") == ["/demo/chat", "Bob"]


def test_the_keyboard_reaches_everything_and_everything_has_a_name(server: Server, chromium: Profile) -> None:
    say(server, "hello")
    page = chat(chromium, server)
    reached = []
    for _ in range(9):
        for kind in ("keyDown", "keyUp"):
            page.call("Input.dispatchKeyEvent", type=kind, key="Tab", windowsVirtualKeyCode=9)
        reached.append(
            page.evaluate("(function (at) { return at.id || at.value || at.tagName }(document.activeElement))")
        )
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none", reached
    assert reached == ["A", "SUMMARY", "websocket", "eventsource", "longpoll", "scroll", "name", "text", "send"]
    tree = page.call("Accessibility.getFullAXTree")["nodes"]
    named = [(node["role"]["value"], node["name"]["value"]) for node in tree if node.get("name", {}).get("value")]
    for node in [
        ("link", "pushcompat"),
        ("group", "Transports that this page may use"),
        ("checkbox", "WebSocket in use"),
        ("checkbox", "Server-Sent Events"),
        ("checkbox", "Long-poll"),
        ("log", "Comments"),
        ("textbox", "Name"),
        ("textbox", "Comment"),
        ("button", "Send"),
    ]:
        assert node in named
    assert {node["role"]["value"] for node in tree} >= {"status", "alert"}


@pytest.mark.parametrize("width", [320, 390, 700, 900, 1280])
def test_nothing_is_wider_than_the_window(server: Server, chromium: Profile, width: int) -> None:
    say(server, "x" * 1000, name="W" * 40)
    page = chat(chromium, server)
    page.resize(width)
    page.wait_for(f"innerWidth == {width}")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(f"{bottom('#form')} <= innerHeight")


def test_light_dark_and_reduced_motion_are_as_the_reader_wants_them(server: Server, chromium: Profile) -> None:
    page = chat(chromium, server)
    seen = []
    for scheme, motion in (("light", "no-preference"), ("dark", "reduce")):
        media = [{"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": motion}]
        page.call("Emulation.setEmulatedMedia", features=media)
        say(server, scheme)
        shows(page, scheme)
        seen.append(
            page.evaluate(
                "[getComputedStyle(document.body).backgroundColor,"
                " getComputedStyle(document.querySelector('#comments li:last-child')).animationName]"
            )
        )
    assert seen == [["rgb(255, 255, 255)", "arrive"], ["rgb(15, 20, 25)", "none"]]
