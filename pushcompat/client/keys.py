"""Publish keys of a server, managed with its root key. Standard library only."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from .administration import Administration

_DATE = "%Y-%m-%dT%H:%M:%SZ"


class Keys(Administration):
    def add(self, name: str, channels: Sequence[str]) -> dict[str, Any]:
        """The new key, as the server describes it: ``key`` is its text. Raises AdministrationError."""
        return self.ask("POST", "/keys", "key", {"name": name, "channels": list(channels)})

    def list(self) -> Sequence[dict[str, Any]]:
        """Raises AdministrationError."""
        keys: Sequence[dict[str, Any]] = self.ask("GET", "/keys", "keys")["keys"]
        return keys

    def remove(self, name: str) -> None:
        """Raises AdministrationError."""
        self.ask("DELETE", f"/keys/{quote(name, safe='')}")

    def table(self) -> Sequence[str]:
        """The keys as lines of text. Raises AdministrationError."""
        rows = [("NAME", "PREFIX", "CHANNELS", "CREATED")]
        for key in self.list():
            prefix, created = key.get("prefix") or "-", key.get("created")
            since = "in the configuration" if created is None else time.strftime(_DATE, time.gmtime(int(created)))
            rows.append((str(key["name"]), str(prefix), ",".join(map(str, key["channels"])), since))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]

    def how_to_use(self, key: Mapping[str, Any]) -> Sequence[str]:
        """What to tell about a new key."""
        url = self.endpoint.url
        return [
            f"Key {key.get('name')} may publish to {', '.join(map(str, key.get('channels', ())))}."
            " It is not shown again: write it to a file that only the publisher can read. For example:",
            f"    PUSHCOMPAT_PUBLISH_KEY_FILE=FILE pushcompat publish --url {url} CHANNEL hello",
            f'    curl -H "Authorization: Bearer $(cat FILE)" -d hello {url}/channels/CHANNEL',
            *([f"Note: {key['note']}"] if "note" in key else []),
        ]
