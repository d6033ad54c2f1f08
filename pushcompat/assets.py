"""Where the files are that are served rather than run: ``static`` and ``templates``.

They stand at the top of the source tree; an installed package has them inside it (setup.cfg, ``package_dir``).
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def folder(name: str) -> Path:
    installed = _PACKAGE / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


STATIC = folder("static")
TEMPLATES = folder("templates")
