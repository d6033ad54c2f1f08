"""The state directory: files that the server keeps over restarts, and that ``pushcompat publish`` reads.

Here: the publish key. Two servers that start at once agree on one key: each writes its own to a new file and then links
it to the common name; the kernel lets one link succeed. Readers see a complete key or none.
"""

from __future__ import annotations

import logging
import os
from codecs import BOM_UTF8
from collections.abc import Mapping
from pathlib import Path

from .config_error import ConfigError

KEY_FILE = "publish-key"
_KEY_BYTES = 32

log = logging.getLogger("pushcompat")


def default_state_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """``$PUSHCOMPAT_STATE_DIR``, else ``pushcompat`` under ``$XDG_STATE_HOME``, else under ``~/.local/state``."""
    if named := environ.get("PUSHCOMPAT_STATE_DIR"):
        return Path(named)
    if (state_home := environ.get("XDG_STATE_HOME", "")).startswith("/"):  # the XDG rule: relative ones are ignored
        return Path(state_home, "pushcompat")
    try:
        return Path("~/.local/state/pushcompat").expanduser()
    except RuntimeError as error:  # an account without a home, as in some containers
        raise ConfigError("no home directory found; set --state-dir") from error


def read_key(path: Path) -> str:
    """The key in that file. Raises ConfigError if there is none, or if it cannot be sent in a header."""
    try:
        key = _text(path).strip()
    except OSError as error:
        raise ConfigError(f"cannot read the publish key in {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the publish key in {path} is not ASCII; replace it") from error
    return checked_key(key, str(path))


def _text(path: Path) -> str:
    """Without the byte order mark that editors of Windows write. Raises OSError, UnicodeDecodeError."""
    return path.read_bytes().removeprefix(BOM_UTF8).decode("ascii")


def read_token(path: Path) -> str:
    """The subscriber token in that file. Raises ConfigError if there is none, or if it cannot be sent in a header."""
    try:
        token = _text(path).strip()
    except OSError as error:
        raise ConfigError(f"cannot read the token in {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the token in {path} is not ASCII; replace it") from error
    if not (token and token.isprintable() and " " not in token):
        raise ConfigError(f"{path} must have one token, in one line")
    return token


def checked_key(key: str, where: str) -> str:
    if not key:
        raise ConfigError(f"the publish key in {where} is empty; write a key into it, or delete the file")
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigError(f"the publish key in {where} has spaces or control characters; use letters, digits, -, _")
    return key


def load_or_create_key(state_dir: Path) -> tuple[str, Path]:
    """The directory's publish key and its path; created if it does not exist."""
    path = state_dir / KEY_FILE
    try:
        if not path.exists():
            _make_key(path)
        if path.stat().st_mode & 0o077:
            log.warning("the publish key file is readable by other users; run: chmod 600 %s", path)
    except OSError as error:
        raise ConfigError(
            f"cannot write the publish key to {state_dir}: {error.strerror}; "
            "set another --state-dir, or use --publish-key-file"
        ) from error
    return read_key(path), path


def stored_key(state_dir: Path) -> tuple[str, Path | None]:
    """The directory's publish key and its path. If it does not exist, one like the first start would create."""
    path = state_dir / KEY_FILE
    try:
        exists = path.exists()
    except OSError as error:
        raise ConfigError(f"cannot read the publish key in {path}: {error.strerror}") from error
    return (read_key(path), path) if exists else (_new_key(), None)


def _new_key() -> str:
    import secrets

    return secrets.token_urlsafe(_KEY_BYTES)


def _make_key(path: Path) -> None:
    import tempfile  # here: publishers import this file, and do not need it

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)  # mode 600 from the start
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(_new_key() + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    except FileExistsError:
        pass  # another server was faster: use its key
    finally:
        os.unlink(draft)
