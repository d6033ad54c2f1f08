"""The folders of served files: ``static`` and ``templates``.

They are at the top of the source tree, and inside an installed package (setup.cfg, ``package_dir``).
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def folder(name: str) -> Path:
    installed = _PACKAGE / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


STATIC = folder("static")
TEMPLATES = folder("templates")
