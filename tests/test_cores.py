from __future__ import annotations

import os
from pathlib import Path

import pytest

from pushcompat.cores import usable


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of 16 cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(16)), raising=False)


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize(
    ("quotas", "cores"),
    [
        ({}, 16),
        ({"a/b": "max 100000"}, 16),
        ({"a/b": "200000 100000"}, 2),
        ({"a/b": "150000 100000"}, 2),
        ({"a/b": "10000 100000"}, 1),
        ({"a/b": "max 100000", "a": "400000 100000"}, 4),
        ({"": "300000 100000"}, 3),  # a container sees its own group as the root
        ({"a/b": "nonsense"}, 16),
    ],
)
def test_a_quota_counts_as_cores(tmp_path: Path, quotas: dict[str, str], cores: int) -> None:
    groups, own = tmp_path / "cgroup", tmp_path / "own"
    (groups / "a" / "b").mkdir(parents=True)
    for group, quota in quotas.items():
        (groups / group / "cpu.max").write_text(quota)
    own.write_text("0::/a/b\n")
    assert usable(groups, own) == cores


@pytest.mark.usefixtures("many")
def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert usable(tmp_path, tmp_path / "nothing") == 16
