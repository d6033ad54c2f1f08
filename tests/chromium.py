"""A headless Chromium and its pages, driven by its own DevTools protocol: for what only a browser can show."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from .harness import MS, PATIENCE_S
from .machine import may_lack

PROGRAM = shutil.which("chromium") or shutil.which("google-chrome")
# For tests that need it: skipped on a machine without, but for CI's.
needed = pytest.mark.skipif(PROGRAM is None and may_lack("chromium"), reason="there is no Chromium here")
_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
    "--host-resolver-rules=MAP *.test 127.0.0.1",  # so that pages can be of different sites
    "--remote-debugging-port=0",
]


class Browser:
    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """One command, and what it answers. Events that come meanwhile are left aside."""
        number = next(self._ids)
        command = {"id": number, "method": method, "params": params}
        self._socket.send(json.dumps(command | ({"sessionId": session} if session else {})))
        while True:
            answer = json.loads(self._socket.recv(PATIENCE_S))
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer)
                result: dict[str, Any] = answer["result"]
                return result

    @contextmanager
    def profile(self) -> Iterator[Profile]:
        """Pages that share cookies and storage with each other only."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        yield Profile(self, context)
        self.call("Target.disposeBrowserContext", browserContextId=context)


class Profile:
    def __init__(self, browser: Browser, context: str) -> None:
        self._browser = browser
        self._context = context

    def open(self, url: str, scripts: bool = True, before: str = "", policy: bool = True) -> Page:
        """A new page, loaded. ``before``: what runs in it before its own scripts. ``policy``: its own
        Content-Security-Policy holds.
        """
        new = {"url": "about:blank", "browserContextId": self._context}
        target = self._browser.call("Target.createTarget", **new)["targetId"]
        session = self._browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self._browser, session)
        if not scripts:
            page.call("Emulation.setScriptExecutionDisabled", value=True)
        page.call("Page.enable")
        page.call("Page.setBypassCSP", enabled=not policy)
        page.call("Page.addScriptToEvaluateOnNewDocument", source=before)
        page.call("Page.navigate", url=url)
        page.wait_for(f"document.readyState == 'complete' && location.href == {json.dumps(url)}")
        page.call("Page.setBypassCSP", enabled=False)
        return page

    def service_worker(self, url: str) -> Page:
        """The one that a page has registered from ``url``, to evaluate scripts in."""
        targets = self._browser.call("Target.getTargets")["targetInfos"]
        wanted = ("service_worker", url, self._context)
        (target,) = [t["targetId"] for t in targets if (t["type"], t["url"], t["browserContextId"]) == wanted]
        return Page(
            self._browser, self._browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        )


class Page:
    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._browser.call(method, self._session, **params)

    def evaluate(self, script: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, (script, answer)
        return answer["result"].get("value")

    def wait_for(self, script: str) -> Any:
        """The value of a script, once it is true."""
        deadline = time.monotonic() + PATIENCE_S
        while not (value := self.evaluate(script)):
            assert time.monotonic() < deadline, f"never came true: {script}\n{self.evaluate('document.body.innerText')}"
            time.sleep(20 * MS)  # between two looks at a condition, for which there is no event
        return value

    def resize(self, width: int, height: int = 800) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )

    def click(self, selector: str) -> None:
        self.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def type(self, selector: str, text: str) -> None:
        """What a keyboard would do; a line end is the Enter key."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).focus()")
        for line in re.split("(\n)", text):
            if line == "\n":
                for kind in ("keyDown", "keyUp"):
                    self.call("Input.dispatchKeyEvent", type=kind, key="Enter", windowsVirtualKeyCode=13, text="\r")
            elif line:
                self.call("Input.insertText", text=line)


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    assert PROGRAM is not None, "Chromium has to be installed"
    command = [PROGRAM, *_FLAGS, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        address = next(found[1] for line in process.stderr if (found := re.search(r"listening on (ws://\S+)", line)))
        # Without pings: a thread of the library draws them from ``random``, which makes tests of hypothesis fail.
        with connect(address, max_size=None, ping_interval=None) as socket:
            driver = Browser(socket)
            yield driver
            driver.call("Browser.close")
            process.wait(PATIENCE_S)
    finally:
        process.kill()
        process.wait(PATIENCE_S)
        process.stderr.close()
