"""``pushcompat check`` as it is run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pushcompat.access.issuing import issue

from ..harness import PATIENCE_S

SECRET = "s" * 32


class Checker:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "push.toml"
        self.env = {name: value for name, value in os.environ.items() if not name.startswith("PUSHCOMPAT_")}
        self.env |= {"XDG_STATE_HOME": str(directory / "state"), "PUSHCOMPAT_TOKEN_KEY": SECRET}

    def __call__(self, *words: str, given: str = "") -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "pushcompat", "check", "--config", str(self.file), *words],
            input=given, capture_output=True, text=True, timeout=PATIENCE_S, env=self.env,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def checker(tmp_path: Path) -> Checker:
    (tmp_path / "push.toml").write_text('[[channel]]\npattern = "user:{sub}:*"\nhistory = 9\n')
    return Checker(tmp_path)


def test_a_fine_configuration_is_a_table_and_exit_code_0(checker: Checker) -> None:
    code, out, err = checker()
    assert (code, err) == (0, "")
    assert out.splitlines()[2:-2] == [
        "pattern       publish  subscribe                     kept",
        "user:{sub}:*  any key  token of that sub             9 messages, 1h",
        "all others    any key  token that names the channel  100 messages, 1h",
    ]


def test_a_warning_is_below_the_table_and_exit_code_1(checker: Checker) -> None:
    code, out, err = checker("--publish", "open")
    assert (code, err) == (1, "")
    assert "\n\nwarning: every program on this machine may publish to user:{sub}:* (line 1)" in out


def test_a_note_alone_is_exit_code_0(checker: Checker) -> None:
    checker.file.write_text('[[channel]]\npattern = "a"\npublish = ["shop"]\n')
    code, out, _ = checker()
    assert code == 0
    assert "\n\nnote: a (line 1) is for key shop" in out


def test_what_the_server_would_refuse_is_one_line_and_exit_code_2(checker: Checker) -> None:
    checker.file.write_text('[[channel]]\npattern = "a b"\n')
    code, out, err = checker()
    assert (code, out) == (2, "")
    assert err.startswith(f"pushcompat: {checker.file} line 2: pattern 'a b'")
    checker.file.write_text("")
    assert checker("--token-key-file", "/nowhere")[2].startswith("pushcompat: cannot read --token-key-file /nowhere")
    assert checker("--tls-cert", "/nowhere")[0] == 2
    code, out, err = checker("--host", "0.0.0.0", "--publish", "open")
    assert (code, out) == (2, "")
    assert "0.0.0.0 port 8888 is a public address, and anyone may publish to *" in err
    code, out, _ = checker("--host", "0.0.0.0", "--publish", "open", "--insecure-public")
    assert code == 1
    assert "warning: anyone who reaches 0.0.0.0 port 8888 may publish to all channels" in out


def test_one_channel_is_explained_and_the_exit_code_says_whether_the_token_suffices(checker: Checker) -> None:
    file = checker.directory / "token"
    file.write_text(issue(SECRET, expires_s=60, sub="ann") + "\n")
    code, out, _ = checker("--channel", "user:ann:inbox", "--token", str(file))
    assert code == 0
    assert "user:{sub}:* (line 1) is the first rule that matches" in out
    assert "this token: may subscribe as ann" in out
    code, out, _ = checker("--channel", "user:bob:inbox", "--token", "-", given=file.read_text())
    assert code == 1
    assert "this token: may not subscribe: the token does not allow channel user:bob:inbox" in out
    assert checker("--channel", "user:bob:inbox")[0] == 0


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["--token", "x"], "--token needs --channel, the channel to explain"),
        (["--channel", "a b"], "'a b' is not a valid channel name"),
        (["--channel", "a", "--token", "/nowhere"], "cannot read the token in /nowhere: No such file or directory"),
        (["--channel", "a", "--token", "-"], "must have one token, in one line"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(checker: Checker, words: list[str], advice: str) -> None:
    code, out, err = checker(*words)
    assert (code, out) == (2, "")
    assert advice in err
    assert err.count("\n") == 1


def test_nothing_is_created(checker: Checker) -> None:
    checker()
    assert not (checker.directory / "state").exists()


def test_the_key_of_the_state_directory_is_checked(checker: Checker) -> None:
    directory = checker.directory / "state" / "pushcompat"
    directory.mkdir(parents=True)
    (directory / "publish-key").write_text("short\n")
    code, out, _ = checker()
    assert code == 1
    assert "warning: the publish key has 5 characters" in out


def test_the_report_ends_with_the_bound_of_memory(checker: Checker) -> None:
    _, out, _ = checker("--max-connections", "100")
    last = "A process with 100 connections uses at most [0-9]{3} MiB of memory, usually a tenth of it"
    assert re.fullmatch(last, out.splitlines()[-1])
