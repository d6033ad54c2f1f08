"""Settings of an application: ``PUSHCOMPAT = {"URL": …}`` in Django, ``PUSHCOMPAT_URL`` and so on in Flask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

from ..client.credentials import find_endpoint, find_key
from ..client.publisher import TIMEOUT_S, Publisher
from ..errors import ConfigError
from ..state import read_key
from .endings import has_threads
from .page import Cursors

MODES = ("later", "request", "now", "outbox")


@dataclass(frozen=True)
class Options:
    """``url`` and ``key``: as for ``Publisher``. ``public_url``: the server's address for pages, by default ``url``.

    ``mode``: ``later`` publishes by a thread; ``request`` does so too, and waits for it at the end of a request, which
    is the default where threads do not run between requests; ``now`` publishes at once, for at most ``timeout``
    seconds; ``outbox`` stores messages in the database. ``token_key``: a secret of 32 bytes or more, for tokens of
    ``token_ttl`` seconds. ``test_outbox``: whether messages are only recorded; by default in tests.
    """

    url: str | None = None
    key: str | None = None
    key_file: str | None = None
    public_url: str | None = None
    mode: str = ""
    timeout: float = TIMEOUT_S
    token_key: str | None = None
    token_key_file: str | None = None
    token_ttl: float = 3600.0
    test_outbox: bool | None = None

    def __post_init__(self) -> None:
        if not self.mode:
            object.__setattr__(self, "mode", "later" if has_threads() else "request")
        if self.mode not in MODES:
            raise ConfigError(f"MODE {self.mode!r} must be one of {', '.join(MODES)}")

    @cached_property
    def publisher(self) -> Publisher:
        """Raises ConfigError for an unreadable key file, ValueError for an invalid URL or key."""
        return Publisher(self.url, self.given_key, timeout=self.timeout)

    @property
    def given_key(self) -> str | None:
        """None: publishers look for one. Raises ConfigError."""
        if self.key is None and self.key_file is not None:
            return read_key(Path(self.key_file))
        return self.key

    @property
    def publish_key(self) -> str | None:
        """None: there is none. Raises ConfigError, ValueError."""
        key = self.given_key
        return find_key(find_endpoint(self.url)) if key is None else key

    @cached_property
    def cursors(self) -> Cursors:
        return Cursors(self.publisher.cursor)

    @property
    def page_url(self) -> str:
        return self.public_url or find_endpoint(self.url).url


NAMES = {field.name.upper(): field.name for field in fields(Options)}


def options(given: Mapping[str, object]) -> Options:
    """Raises ConfigError for an unknown name or mode."""
    for name in given:
        if name not in NAMES:
            raise ConfigError(f"{name} is not a setting of pushcompat; they are {', '.join(NAMES)}")
    return Options(**{NAMES[name]: value for name, value in given.items()})  # type: ignore[arg-type]
