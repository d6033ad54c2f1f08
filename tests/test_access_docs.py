"""docs/access.md: its examples are what the programs say."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from pushcompat import cli
from pushcompat.channel_tables import _READERS

from .harness import PATIENCE_S

ACCESS = (Path(__file__).parents[1] / "docs" / "access.md").read_text()
COMMANDS = re.findall(r"^    \$ (pushcompat check .*)\n((?:(?:    .*)?\n)*)", ACCESS, re.MULTILINE)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (rules,) = re.findall(r"```toml\n(token-key-file.*?)```", ACCESS, re.DOTALL)
    (tmp_path / "token-keys").write_text("s" * 32)
    (tmp_path / "push.toml").write_text(rules.replace("/etc/pushcompat/token-keys", f"{tmp_path}/token-keys"))
    return tmp_path


def run(directory: Path, *words: str) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PUSHCOMPAT_")}
    done = subprocess.run(
        [sys.executable, "-m", *words], capture_output=True, text=True, timeout=PATIENCE_S, cwd=directory,
        env={"PYTHONPATH": str(Path(__file__).parents[1]), **env, "XDG_STATE_HOME": str(directory)},
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize(("command", "shown"), COMMANDS, ids=["table", "case"])
def test_a_documented_check_says_what_is_documented(directory: Path, command: str, shown: str) -> None:
    token = run(directory, *shlex.split("pushcompat token --token-key-file token-keys --sub ann"))
    (directory / "ann").write_text(token)
    expected = [line.removeprefix("    ") for line in shown.rstrip().splitlines()]
    assert _without_sizes(run(directory, *shlex.split(command)).splitlines()) == _without_sizes(expected)


def _without_sizes(lines: list[str]) -> list[str]:
    """How many connections there may be depends on the machine's limit of open files."""
    return [re.sub(r"[\d,]+", "N", line) if line.startswith("A process with ") else line for line in lines]


def test_every_key_of_a_rule_is_documented() -> None:
    rows = re.findall(r"^\| `([a-z-]+)` \|", ACCESS.partition("| key | value | without it |")[2], re.MULTILINE)
    assert rows[: len(_READERS) + 1] == ["pattern", *_READERS]


@pytest.mark.parametrize(
    "command", [["check"], ["token"], ["revoke"], ["keys", "add"], ["keys", "revoke"], ["hooks", "add"]], ids=" ".join
)
def test_every_option_of_these_commands_is_documented(command: list[str]) -> None:
    found: click.Command = cli.pushcompat
    for name in command:
        assert isinstance(found, click.Group)
        found = found.commands[name]
    server = {option for param in cli.pushcompat.commands["serve"].params for option in param.opts}
    own = {option for param in found.params for option in param.opts if option.startswith("--")} - server
    assert [option for option in own if not re.search(rf"{option}(?![a-z-])", ACCESS)] == []
