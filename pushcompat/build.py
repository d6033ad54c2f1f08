"""Whether this build is pure Python, or has compiled hot modules (setup.py)."""

from __future__ import annotations

from pathlib import Path

from . import __version__

COMPILED = any((Path(__file__).parent / "hub").glob("loop.*.so"))  # not imported: --version starts at once
VERSION = f"{__version__} (compiled)" if COMPILED else __version__
