"""``pushcompat hooks add`` and ``pushcompat hooks list``, in this process; and what the server makes of the table."""

from __future__ import annotations

import re
import stat
import tomllib
from pathlib import Path

import pytest

from pushcompat.access.hooks import Hook

from .test_cli import Command, _bare_environment  # noqa: F401

URL = ("--url", "https://push.example/push/")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "push.toml"


def secret_file(tmp_path: Path, secret: str) -> str:
    path = tmp_path / "a.secret"
    path.write_text(f"{secret}\n")
    return str(path)


def served(command: Command, path: Path) -> dict[str, Hook]:
    """The hooks of a server with this configuration."""
    return {hook.name: hook for hook in command.config("--config", str(path)).hooks}


def test_a_hook_is_appended_to_the_configuration_and_served(command: Command, path: Path) -> None:
    path.write_text('port = 0\n[[channel]]\npattern = "a.*"')
    code, out, err = command(
        "hooks", "add", "gh", "--channel", "orders", "--channel", "all", "--verify", "github", "--template",
        'order "{order.id}" é\x7f', "--message-key", "k", "--message-type", "t", "--body-limit", "2MiB",
        "--config", str(path), *URL,
    )  # fmt: skip
    assert code == 0
    secret = re.search(r"^Secret: (\w{64})$", out, re.MULTILINE)
    assert secret is not None
    assert out.startswith("URL: https://push.example/push/hooks/gh\n")
    assert "Payload URL" in out
    assert "applied when the server is restarted, or gets SIGHUP" in out
    assert f"{path} contains a secret, and other users can read it: chmod 600" in err  # it was there, with mode 644
    hook = served(command, path)["gh"]
    assert (hook.channels, hook.provider.name, hook.secrets) == (("orders", "all"), "github", (secret[1].encode(),))
    assert (hook.key, hook.type, hook.body_bytes) == ("k", "t", 2 << 20)
    assert hook.template is not None
    assert hook.template.text == 'order "{order.id}" é\x7f'
    assert command.config("--config", str(path)).port == 0


def test_a_new_file_is_readable_by_its_owner_alone(command: Command, path: Path) -> None:
    code, _, err = command("hooks", "add", "gh", "--channel", "a", "--verify", "github", "--config", str(path))
    assert (code, err, stat.S_IMODE(path.stat().st_mode)) == (0, "", 0o600)
    assert list(served(command, path)) == ["gh"]


def test_of_a_token_only_its_hash_is_kept(command: Command, path: Path) -> None:
    words = ("hooks", "add", "cron", "--channel", "a", "--verify", "token", "--allow-get", "--config", str(path), *URL)
    code, out, err = command(*words)
    found = re.match(r"URL: https://push\.example/push/hooks/cron/([\w-]{43})\n", out)
    assert (code, err) == (0, "")
    assert found is not None
    assert found[1] not in path.read_text()
    hook = served(command, path)["cron"]
    assert hook.allows_get
    claim = hook.provider.claim({":token": found[1]}, 0)
    assert hook.provider.check(claim, b"", hook.secrets)


def test_without_a_configuration_the_table_is_printed(command: Command, path: Path) -> None:
    code, out, err = command("hooks", "add", "st", "--channel", "a", "--verify", "standard")
    assert (code, err) == (0, "")
    (table,) = tomllib.loads(out)["hook"]
    assert (table["name"], table["channels"], table["verify"]) == ("st", ["a"], "standard")
    assert f"# Secret: {table['secrets'][0]}" in out
    assert "# URL: https://YOUR-SERVER/hooks/st" in out
    path.write_text(out)
    assert list(served(command, path)) == ["st"]


@pytest.mark.parametrize("provider", ["stripe", "slack", "shopify"])
def test_a_secret_that_the_sender_makes_is_taken_from_a_file(command: Command, tmp_path: Path, provider: str) -> None:
    path = tmp_path / "push.toml"
    words = ("hooks", "add", "x", "--channel", "a", "--verify", provider, "--config", str(path))
    code, _, err = command(*words)
    assert (code, path.exists()) == (2, False)
    assert f"the secret is made by {provider.capitalize()}: " in err
    assert "--secrets-file PATH" in err
    code, out, err = command(*words, "--secrets-file", secret_file(tmp_path, "s" * 32))
    assert (code, err, "Secret:" in out) == (0, "", False)
    assert "s" * 32 not in path.read_text()
    assert served(command, path)["x"].secrets == (b"s" * 32,)


def test_meta_gets_a_new_verify_token_and_has_a_secret_of_its_own(command: Command, tmp_path: Path) -> None:
    path = tmp_path / "push.toml"
    words = ("hooks", "add", "wa", "--channel", "a", "--verify", "github", "--challenge", "meta", "--config", str(path))
    assert "App Secret" in command(*words)[2]
    code, out, err = command(*words, "--secrets-file", secret_file(tmp_path, "s" * 32))
    found = re.search(r"^Verify token: (.+)$", out, re.MULTILINE)
    assert (code, err) == (0, "")
    assert found is not None
    assert served(command, path)["wa"].verify_token == found[1].encode()


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (("a/b", "--channel", "a", "--verify", "github"), "it becomes part of the URL"),
        (("gh", "--channel", "a", "--verify", "github"), "a hook 'gh' is in line 3 already"),
        (("x", "--channel", "a.*", "--verify", "github"), "patterns cannot be used"),
        (("x", "--channel", "a", "--verify", "gihub"), "verify must be one of github, stripe"),
        (("x", "--channel", "a", "--verify", "github", "--allow-get"), 'allow-get needs verify = "token"'),
        (("x", "--channel", "a", "--verify", "github", "--template", "{"), "does not belong to a field"),
        (("x", "--channel", "a", "--verify", "github", "--template", "\udcff"), "not valid UTF-8"),
        (("x", "--channel", "a", "--verify", "github", "--secrets-file", "/gone"), "cannot read secrets-file /gone"),
        (("x", "--verify", "github"), "Missing option --channel"),
    ],
)
def test_a_table_that_the_server_would_refuse_is_not_added(
    command: Command, path: Path, words: tuple[str, ...], advice: str
) -> None:
    before = 'port = 0\n\n[[hook]]\nname = "gh"\nchannels = "a"\nverify = "github"\nsecrets = "0123456789abcdef"\n'
    path.write_text(before)
    code, out, err = command("hooks", "add", *words, "--config", str(path))
    assert (code, out) == (2, "")
    assert advice in err
    assert err.count("\n") == 1
    assert path.read_text() == before


def test_a_file_to_which_no_table_can_be_added_stays_as_it_is(command: Command, path: Path) -> None:
    before = 'hook = [{name = "gh", channels = "a", verify = "github", secrets = "0123456789abcdef"}]\n'
    path.write_text(before)
    code, _, err = command("hooks", "add", "x", "--channel", "a", "--verify", "github", "--config", str(path))
    assert (code, path.read_text()) == (2, before)
    assert "cannot add a [[hook]]" in err


def test_the_list_shows_hooks_without_their_secrets(command: Command, path: Path) -> None:
    command("hooks", "add", "gh", "--channel", "a", "--channel", "b", "--verify", "github", "--config", str(path))
    command("hooks", "add", "x", "--channel", "a", "--verify", "token", "--allow-get", "--template", "{a}",
            "--config", str(path))  # fmt: skip
    assert command("hooks", "list", "--config", str(path)) == (
        0,
        "/hooks/gh: verified as github, publishes UPDATED to a, b\n"
        "/hooks/x/TOKEN: verified as token, also with GET, publishes '{a}' to a\n",
        "",
    )


def test_the_list_needs_a_configuration(command: Command) -> None:
    assert "give --config, or set PUSHCOMPAT_CONFIG" in command("hooks", "list")[2]


def test_a_server_does_not_start_with_a_table_that_is_wrong(command: Command, path: Path) -> None:
    path.write_text('port = 0\n\n[[hook]]\nname = "gh"\nchannels = "a"\nverify = "github"\nsecrets = "short"\n')
    code, _, err = command("--config", str(path))
    assert (code, command.started) == (2, [])
    assert f"{path} line 7: secrets: a secret must have 16 characters or more; create one: openssl rand -hex 32" in err
