"""Debian's browsers as plain processes, each with a profile of its own; no driver, since the page reports by itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from glob import glob
from pathlib import Path

_XVFB = ["xvfb-run", "--auto-servernum"]
_MINIBROWSER = next(iter(glob("/usr/lib/*/webkit2gtk-4.1/MiniBrowser")), "MiniBrowser")

# What Firefox would otherwise do beside loading the page, most of it over a network that is not there.
_QUIET: dict[str, bool | int | str] = {
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "browser.aboutwelcome.enabled": False,
    "browser.safebrowsing.malware.enabled": False,
    "browser.safebrowsing.phishing.enabled": False,
    "browser.search.update": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "dom.push.connection.enabled": False,
    "extensions.systemAddon.update.enabled": False,
    "extensions.update.enabled": False,
    "media.gmp-manager.updateEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "services.settings.server": "data:,",
    "toolkit.telemetry.enabled": False,
}


@dataclass(frozen=True)
class Browser:
    name: str
    package: str  # of Debian
    programs: tuple[str, ...]  # that it needs; the last one knows its version
    command: Callable[[Path, str, int | None], list[str]]  # of an empty folder, a URL, a forward proxy's port
    returns: bool = True  # has a back button
    keeps: bool = True  # a page that was left with a connection open, which pagehide then closes

    def missing(self) -> str | None:
        return None if all(map(shutil.which, self.programs)) else self.package


def _chromium(folder: Path, url: str, proxy: int | None) -> list[str]:
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={folder}/profile"]
    if proxy:
        command += [f"--proxy-server=127.0.0.1:{proxy}", "--proxy-bypass-list=<-loopback>;localhost"]
    return [*command, url]


def _firefox(folder: Path, url: str, proxy: int | None) -> list[str]:
    preferences = {**_QUIET}
    if proxy:
        preferences |= {"network.proxy.type": 1, "network.proxy.no_proxies_on": "localhost"}
        preferences |= {"network.proxy.http": "127.0.0.1", "network.proxy.http_port": proxy}
        preferences |= {"network.proxy.ssl": "127.0.0.1", "network.proxy.ssl_port": proxy}
        preferences |= {"network.proxy.allow_hijacking_localhost": True}
    lines = (f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in preferences.items())
    (folder / "user.js").write_text("".join(lines))
    return ["firefox-esr", "--headless", "--no-remote", "--profile", str(folder), url]


def _webkit(folder: Path, url: str, proxy: int | None) -> list[str]:
    options = [f"--proxy=http://127.0.0.1:{proxy}", "--ignore-host=localhost"] if proxy else []
    return [*_XVFB, _MINIBROWSER, *options, url]


def _qtwebkit(folder: Path, url: str, proxy: int | None) -> list[str]:
    """Makes a PDF of the page, but not before the page had its time."""
    options = ["--javascript-delay", "600000"]
    if proxy:
        options += [
            "--proxy",
            f"http://127.0.0.1:{proxy}",
            "--proxy-hostname-lookup",
            "--bypass-proxy-for",
            "localhost",
        ]
    return [*_XVFB, "wkhtmltopdf", *options, url, str(folder / "page.pdf")]


BROWSERS = (
    Browser("Chromium", "chromium", ("chromium",), _chromium),
    Browser("Firefox", "firefox-esr", ("firefox-esr",), _firefox, keeps=False),
    Browser("WebKitGTK", "libwebkit2gtk-4.1-0", ("xvfb-run", _MINIBROWSER), _webkit),
    Browser("QtWebKit (2016)", "wkhtmltopdf", ("xvfb-run", "wkhtmltopdf"), _qtwebkit, returns=False),
)
