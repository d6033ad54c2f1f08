"""The command line of the soak."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ..store.engines import installed
from .__main__ import main
from .scenarios import SCENARIOS


@pytest.mark.parametrize("options", [["--only", "memory"], ["--minutes", "4.9"]], ids=" ".join)
def test_a_partial_run_cannot_replace_the_table_of_the_report(
    tmp_path: Path, options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "soak.md"
    report.write_text("# Soak\n\n| the table |\n")
    monkeypatch.setattr("tests.soak.__main__.World", None)  # nothing may be started
    monkeypatch.setattr(sys, "argv", ["soak", *options, "--report", str(report)])
    with pytest.raises(SystemExit) as refused:
        main()
    assert refused.value.code == 2
    assert "omit --only, and use --minutes 5 or more" in capsys.readouterr().err
    assert report.read_text().endswith("| the table |\n")


def test_valkey_is_among_what_is_run_if_it_is_installed() -> None:
    assert any(scenario.name.startswith("Valkey") for scenario in SCENARIOS) == (installed("valkey") is not None)
