"""What tests need of the machine besides Python packages."""

from __future__ import annotations

import os

import pytest

from pushcompat.build import COMPILED

interpreted_only = pytest.mark.skipif(
    COMPILED, reason="replaces parts of the hub, which the compiled build does not allow"
)


def may_lack(package: str) -> bool:
    """Whether a test may be skipped because Debian's ``package`` is not installed.

    It may on a developer's machine. CI installs everything (.ci/run), so there a missing package is a failure, except
    for those that the release of Debian does not have: .ci/run lists them in ``CI_WITHOUT``, separated by blanks.
    """
    return not os.environ.get("CI") or package in os.environ.get("CI_WITHOUT", "").split()
