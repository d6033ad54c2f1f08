"""Which build this is: pure Python, or one whose hot modules are compiled (setup.py)."""

from __future__ import annotations

from pathlib import Path

from . import __version__

COMPILED = any((Path(__file__).parent / "hub").glob("loop.*.so"))  # not imported: --version starts at once
VERSION = f"{__version__} (compiled)" if COMPILED else __version__
