"""Where the server is, and which key to use, if the caller does not say. Standard library only."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from ..config_error import ConfigError
from ..state import KEY_FILE, checked_key, default_state_dir, read_key
from .dial import Endpoint

DEFAULT_URL = "http://127.0.0.1:8888"


def find_endpoint(url: str | None, ssl_context: ssl.SSLContext | None = None) -> Endpoint:
    """Raises ValueError for an invalid URL."""
    return Endpoint.parse(url or os.environ.get("PUSHCOMPAT_URL") or DEFAULT_URL, ssl_context)


def find_key(endpoint: Endpoint) -> str | None:
    """The publish key if none was given. The one on this machine is used only for a server on this machine."""
    if key := os.environ.get("PUSHCOMPAT_PUBLISH_KEY"):
        return sendable(key)
    try:
        if file := os.environ.get("PUSHCOMPAT_PUBLISH_KEY_FILE"):
            return read_key(Path(file))
        return read_key(default_state_dir() / KEY_FILE) if endpoint.is_local else None
    except ConfigError:
        return None  # a proxy may add the key; otherwise the server answers 401


def no_key() -> str:
    """Why there is none, and what to do: the server's own file is readable by its user only."""
    try:
        file = os.environ.get("PUSHCOMPAT_PUBLISH_KEY_FILE") or default_state_dir() / KEY_FILE
        read_key(Path(file))
        why = f"that in {file} is for a server of this machine only"
    except ConfigError as error:
        why = str(error)
    return f" (no publish key given, and {why}; set PUSHCOMPAT_PUBLISH_KEY or PUSHCOMPAT_PUBLISH_KEY_FILE)"


def sendable(key: str) -> str:
    try:
        return checked_key(key.strip(), "key")
    except ConfigError as error:
        raise ValueError(str(error)) from None  # http.client's own error would show the key
