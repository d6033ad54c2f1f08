from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from subprocess import PIPE
from typing import Any

import click
import pytest

from pushcompat import cli, logs
from pushcompat.access.rules import ANYONE, Subscribe
from pushcompat.command_options import LISTEN, PUBLISH
from pushcompat.config import Config
from pushcompat.limits import Limits, Retention
from pushcompat.options import SERVE, SERVER
from pushcompat.platforms import PLATFORMS

from .harness import KEY, PATIENCE_S, Server

ROOT = Path(__file__).parents[1]
ALL = {setting.flag: setting for group in SERVER.values() for setting in group}


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("PUSHCOMPAT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


class Command:
    """Runs the command line in this process, up to where the server would start."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.started: list[Config] = []
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        monkeypatch.setattr("pushcompat.server.run", lambda config, configure: self.started.append(config))

    def __call__(self, *words: str) -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["pushcompat", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = self._capsys.readouterr()
        return int(end.value.code or 0), out, err

    def config(self, *words: str) -> Config:
        code, _, err = self(*words)
        assert (code, err) == (0, "")
        return self.started.pop()

    def complaint(self, *words: str) -> str:
        """What stands on stderr, which must be one line with exit code 2."""
        code, out, err = self(*words)
        assert code == 2
        assert out == ""
        assert err.count("\n") == 1
        assert not self.started
        return err


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """What the command line sets for its process ends with the test."""
    root, ours = logging.getLogger(), logs.log
    before = list(root.handlers), root.level, ours.level
    for module, name in [(logs, "_write"), (logs, "_level"), (logging, "raiseExceptions")]:
        monkeypatch.setattr(module, name, getattr(module, name))
    yield Command(monkeypatch, capsys)
    root.handlers[:], root.level, ours.level = before
    logging.Logger.manager._clear_cache()  # type: ignore[attr-defined]


def process(*words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pushcompat", *words], capture_output=True, text=True, timeout=PATIENCE_S, **options
    )


# Serving


def test_without_a_command_it_serves_with_the_defaults(command: Command) -> None:
    config = command.config()
    assert config == Config(
        publish_key=config.publish_key, publish_key_file=config.publish_key_file, state_dir=config.state_dir
    )
    assert config.limits == Limits()


def test_serve_can_be_said_too(command: Command) -> None:
    assert command.config("serve", "--port", "9000").port == 9000
    assert command.config("--port", "9000").port == 9000


@pytest.mark.parametrize("name", [field.name for field in fields(Limits) if field.name != "retention"])
def test_every_limit_has_an_option(command: Command, name: str) -> None:
    (flag,) = [flag for flag, setting in ALL.items() if setting.name == name]
    config = command.config(f"--{flag}", "70000")
    assert getattr(config.limits, name) == 70000


@pytest.mark.parametrize("name", [field.name for field in fields(Retention) if field.name != "by_channel"])
def test_every_part_of_retention_has_an_option(command: Command, name: str) -> None:
    (flag,) = [flag for flag, setting in ALL.items() if setting.name == f"retention_{name}"]
    assert getattr(command.config(f"--{flag}", "70000").limits.retention, name) == 70000


def test_every_option_can_come_from_the_environment(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for flag, setting in ALL.items():
        name = "PUSHCOMPAT_" + flag.upper().replace("-", "_")
        assert setting.envvar == name
    monkeypatch.setenv("PUSHCOMPAT_REQUEST_CAP", "30s")
    monkeypatch.setenv("PUSHCOMPAT_CORS_ORIGIN", "https://a, https://b")
    monkeypatch.setenv("PUSHCOMPAT_PORT", "")
    config = command.config()
    assert config.limits.request_cap_s == 30
    assert config.cors_origins == ("https://a", "https://b")
    assert config.port == 8888


def test_every_option_can_come_from_a_file(command: Command, tmp_path: Path) -> None:
    values: dict[str, object] = {flag: 70000 for flag, setting in ALL.items() if setting.name in dir(Limits())}
    values |= {"host": "::", "port": 1, "prefix": "x", "cors_origin": ["*"], "store": "memory:", "log-level": "error"}
    values |= {"platform": "heroku", "log_format": "json", "publish-key": "k"}
    file = tmp_path / "push.toml"
    file.write_text("\n".join(f"{name} = {json.dumps(value)}" for name, value in values.items()))
    config = command.config("--config", str(file))
    assert (config.host, config.port, config.prefix, config.cors_origins) == ("::", 1, "/x", ("*",))
    assert (config.log_level, config.log_format, config.publish_key) == ("error", "json", "k")
    assert config.limits.idle_s == 70000


def test_rules_by_channel_come_from_the_file_and_the_default_rule_from_options(
    command: Command, tmp_path: Path
) -> None:
    file = tmp_path / "push.toml"
    file.write_text('subscribe = "nobody"\n[[channel]]\npattern = "board.*"\nsubscribe = "open"\n')
    rules = command.config("--config", str(file), "--publish", "open").rules
    assert (rules.of("board.1").subscribe, rules.of("board.1").publish) == (Subscribe.OPEN, ANYONE)
    assert (rules.of("a").subscribe, rules.of("a").publish) == (Subscribe.NOBODY, ANYONE)
    file.write_text('port = 1\n[[channel]]\npattern = "a b"\n')
    assert f"pushcompat: {file} line 3: pattern 'a b': use" in command.complaint("--config", str(file))


def test_a_switch_can_be_set_everywhere(command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "push.toml"
    file.write_text("demo = true")
    assert command.config("--demo").demo
    assert command.config("--config", str(file)).demo
    monkeypatch.setenv("PUSHCOMPAT_DEMO", "false")
    assert not command.config("--config", str(file)).demo
    monkeypatch.setenv("PUSHCOMPAT_DEMO", "1")
    file.write_text("demo = false")
    assert command.config("--config", str(file)).demo


def test_flag_beats_environment_beats_file_beats_platform_beats_default(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def cap(*words: str) -> float | None:
        return command.config(*words).limits.request_cap_s

    file = tmp_path / "push.toml"
    file.write_text('request-cap = 50\nplatform = "cloud-run"\n')
    assert cap() is None
    assert cap("--platform", "google-lb") == 30
    assert cap("--platform", "google-lb", "--config", str(file)) == 50
    assert cap("--config", str(file), "--platform", "google-lb") == 50
    monkeypatch.setenv("PUSHCOMPAT_REQUEST_CAP", "40")
    assert cap("--config", str(file)) == 40
    assert cap("--config", str(file), "--request-cap", "20s") == 20
    assert cap("--platform", "google-lb", "--request-cap", "none") is None


def test_a_platform_in_the_file_counts(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "push.toml"
    file.write_text('platform = "google-lb"\n')
    assert command.config("--config", str(file)).limits.request_cap_s == 30


def test_a_key_given_closer_to_the_command_counts(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "key"
    file.write_text("from-file\n")
    monkeypatch.setenv("PUSHCOMPAT_PUBLISH_KEY", "from-environment")
    assert command.config().publish_key == "from-environment"
    config = command.config("--publish-key-file", str(file))
    assert (config.publish_key, config.publish_key_file) == ("from-file", file)
    assert "mutually exclusive" in command.complaint("--publish-key-file", str(file), "--publish-key", "x")


def test_the_first_start_keeps_a_key_and_says_where(command: Command, tmp_path: Path) -> None:
    config = command.config()
    assert config.publish_key_file == tmp_path / "pushcompat" / "publish-key"
    assert config.publish_key_file.read_text().strip() == config.publish_key
    assert command.config("--state-dir", str(tmp_path / "x")).publish_key_file == tmp_path / "x" / "publish-key"


def test_a_given_key_leaves_the_state_directory_alone(command: Command, tmp_path: Path) -> None:
    assert command.config("--publish-key", "k").publish_key_file is None
    assert not (tmp_path / "pushcompat").exists()


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["--prot", "1"], "--port"),
        (["servee"], "No such command 'servee'"),
        (["--port"], "'--port' requires an argument"),
        (["--port", "99999"], "Invalid value for --port: '99999' is not a valid port"),
        (["--port", "x"], "'x' is not a valid port"),
        (["--workers", "all"], "'all' is not a valid count; expected a number of processes, or auto"),
        (["--heartbeat", "3x"], "'3x' is not a valid duration; examples: 90s, 5m, 1h"),
        (["--heartbeat", "-1"], "'-1' is not a valid duration"),
        (["--heartbeat", "0"], "0 is too small; the minimum is 1s"),
        (["--heartbeat", "25h"], "--heartbeat 90000: must be at most 86400 s, a day"),
        (["--message-limit", "1 apple"], "is not a valid size; examples: 64KiB"),
        (["--history", "1.5.1"], "is not a valid count; examples: 100"),
        (["--history", "0"], "the minimum is 1"),
        (["--history", "9" * 400], "Invalid value for --history: the count is too large"),
        (["--publish", "all"], "'all' is not one of 'keys', 'open'"),
        (["--subscribe", "all"], "'all' is not one of 'open', 'token', 'ask', 'nobody'"),
        (["--request-cap", "5"], "must be more than 6 s"),
        (["--platform", "herok"], "'heroku'"),
        (["--cors-origin", "example.com"], "an origin is scheme://host"),
        (["--prefix", "a b"], "must be a path like /push"),
        (["--unix-socket", "/dev"], "--unix-socket /dev: exists and is not a socket; choose another path"),
        (["--unix-socket", "/dev/null"], "--unix-socket /dev/null: exists and is not a socket; choose another path"),
        (["--log-level", "loud"], "'debug', 'info'"),
        (["--config", "/nowhere.toml"], "cannot read --config /nowhere.toml: No such file"),
        (["--publish-key-file", "/nowhere"], "cannot read the publish key in /nowhere: No such file"),
        (["--publish-key", ""], "is empty"),
        (["--state-dir", "/dev/null/x"], "set another --state-dir"),
        (["--port", "1", "publish", "a"], "unexpected extra argument"),
        (["publish"], "Missing argument 'CHANNEL'"),
        (["publish", "a b", "x"], "'a b' is not a valid channel name"),
        (["publish", "a", "x", "--url", "a.com"], "'a.com' is not a valid server URL"),
        (["publish", "a", "x", "--url", "http://u:p@a.com"], "pass the key separately"),
        (["publish", "a", "x", "--state-dir", "/nowhere"], "cannot read the publish key in /nowhere/publish-key"),
        (["publish", "a", "x", "--publish-key", "a b"], "has spaces"),
        (["publish", "a", "\udcff", "--json"], "utf-8"),
        (["listen"], "Missing argument 'CHANNEL"),
        (["listen", "a", "--transport", "x"], "'websocket', 'eventsource', 'longpoll'"),
        (["listen", "a", "--count", "0"], "the minimum is 1"),
        (["listen", "a", "--cursor", "x", "--earliest"], "mutually exclusive"),
        (["listen", "a", "--url", "ftp://a"], "is not a valid server URL"),
    ],
)
def test_user_errors_are_one_line_that_says_what_to_do(command: Command, words: list[str], advice: str) -> None:
    assert advice in command.complaint(*words)


def test_a_complaint_says_where_the_wrong_value_came_from(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "push.toml"
    file.write_text("port = -1")
    assert f"port in {file}" in command.complaint("--config", str(file))
    file.write_text("port = [1, 2]")
    assert f"{file}: port takes one value, not a list" in command.complaint("--config", str(file))
    monkeypatch.setenv("PUSHCOMPAT_PORT", "x")
    assert "Invalid value for PUSHCOMPAT_PORT" in command.complaint()


@pytest.mark.parametrize(("name", "value"), [("PORT", "tcp://10.96.0.7:8888"), ("PORT", "udp://[fd00::7]:8888")])
def test_a_service_of_kubernetes_does_not_set_the_port(
    command: Command, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"PUSHCOMPAT_{name}", value)
    code, _, err = command()
    assert (code, command.started.pop().port) == (0, 8888)
    assert " WARNING variable_ignored name=PUSHCOMPAT_PORT detail=" in err
    assert command.config("--port", "9000").port == 9000


def test_no_other_variable_of_a_service_is_one_of_ours() -> None:
    """Kubernetes and Docker links set NAME_SERVICE_… and NAME_PORT… of a Service, and of each of its named ports."""
    names = {setting.envvar for groups in (SERVER, PUBLISH, LISTEN) for group in groups.values() for setting in group}
    ours = [name for name in names if name and re.match(r"PUSHCOMPAT_(\w+_)?(SERVICE_|PORT)", str(name))]
    assert ours == ["PUSHCOMPAT_PORT"]


def test_a_variable_with_a_typing_error_is_warned_of(
    command: Command, monkeypatch: pytest.MonkeyPatch, served: Server
) -> None:
    monkeypatch.setenv("PUSHCOMPAT_HISTROY", "4")
    advice = "no option has this name; did you mean PUSHCOMPAT_HISTORY?"
    assert f'WARNING variable_ignored name=PUSHCOMPAT_HISTROY detail="{advice}"' in command()[2]
    assert f"PUSHCOMPAT_HISTROY is ignored: {advice}" in process("check").stderr
    done = process("publish", "chat", "hi", "--url", served.url, env={**os.environ, "PUSHCOMPAT_PUBLISH_KEY": KEY})
    assert done.returncode == 0
    assert done.stderr == f"pushcompat: PUSHCOMPAT_HISTROY is ignored: {advice}\n"


# What a hosting platform sets


@pytest.mark.parametrize("name", [name for name, platform in PLATFORMS.items() if platform.sets_port])
def test_a_platform_that_sets_port_is_listened_to_there_on_all_addresses(
    command: Command, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("PORT", "5000")
    config = command.config("--platform", name)
    assert (config.host, config.port) == ("0.0.0.0", 5000)


def test_port_of_another_program_is_not_ours(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "5000")
    for words in ([], ["--platform", "nginx"]):
        assert (command.config(*words).host, command.config(*words).port) == ("127.0.0.1", 8888)
    monkeypatch.setenv("PORT", "")
    assert command.config("--platform", "heroku").host == "127.0.0.1"  # on a developer's machine


def test_an_option_beats_the_port_of_the_platform(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PORT", "5000")
    file = tmp_path / "push.toml"
    file.write_text("port = 7000\n")
    assert command.config("--platform", "heroku", "--config", str(file)).port == 7000
    assert command.config("--config", str(file), "--platform", "heroku").port == 7000
    monkeypatch.setenv("PUSHCOMPAT_PORT", "8000")
    assert command.config("--platform", "heroku").port == 8000
    assert command.config("--platform", "heroku", "--port", "9000").port == 9000


def test_a_port_that_the_platform_sets_wrong_is_one_line(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "http")
    assert "Invalid value for PORT, --platform heroku: 'http'" in command.complaint("--platform", "heroku")


# The configuration in force


def shown(command: Command, *words: str) -> dict[str, str]:
    """The lines of --print-config, by their option."""
    code, out, err = command(*words, "--print-config")
    assert (code, err) == (0, "")
    assert not command.started
    lines = [line for line in out.splitlines() if "  # " in line or line.endswith(": none")]
    return {re.split(" = |: ", line.removeprefix("# "))[0]: line for line in lines}


def test_each_option_is_printed_with_its_value_and_its_source(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "push.toml"
    file.write_text('heartbeat = "10s"\ncors-origin = ["https://a.example"]\n[[channel]]\npattern = "x"\n')
    monkeypatch.setenv("PORT", "5000")
    monkeypatch.setenv("PUSHCOMPAT_HISTORY", "7")
    monkeypatch.setenv("PUSHCOMPAT_UNIX_SOCKET_MODE", "660")
    lines = shown(
        command, "--config", str(file), "--platform", "cloud-run", "--log-level", "error", "--insecure-public"
    )
    assert lines.keys() == ALL.keys() - {"config"}
    for line in (
        'host = "0.0.0.0"  # PORT, --platform cloud-run',
        "port = 5000  # PORT, --platform cloud-run",
        'platform = "cloud-run"  # --platform',
        'request-cap = "5m"  # --platform cloud-run',
        f'heartbeat = "10s"  # {file}',
        f'cors-origin = ["https://a.example"]  # {file}',
        "history = 7  # PUSHCOMPAT_HISTORY",
        'unix-socket-mode = "660"  # PUSHCOMPAT_UNIX_SOCKET_MODE',
        'log-level = "error"  # --log-level',
        "insecure-public = true  # --insecure-public",
        'message-limit = "60KiB"  # default',
        "verify-share = 0.25  # default",
        'refetch-rate = "none"  # default',
        f'state-dir = "{tmp_path}/pushcompat"  # default',
        "# unix-socket: none",
    ):
        assert line in lines.values()
    assert not (tmp_path / "pushcompat").exists()  # no key was created


def test_what_is_printed_is_a_file_with_the_same_configuration(command: Command, tmp_path: Path) -> None:
    words = ["--history-age", "90s", "--platform", "heroku", "--publish-key-file", str(tmp_path / "key")]
    (tmp_path / "key").write_text(KEY)
    file = tmp_path / "push.toml"
    file.write_text(command(*words, "--print-config")[1])
    assert command.config("--config", str(file)) == command.config(*words)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PUBLISH_KEY", "s3cret"),
        ("TOKEN_KEY", "s3cret" * 9),
        ("PRESENCE_SECRET", "whsec_s3cret"),
        ("STORE", "redis://:s3cret@127.0.0.1:6379/0"),
        ("PRESENCE_WEBHOOK", "https://user:s3cret@app.example/"),
    ],
)
def test_no_secret_is_printed(command: Command, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv("PUSHCOMPAT_PRESENCE_SECRET", "whsec_other")
    monkeypatch.setenv(f"PUSHCOMPAT_{name}", value)
    code, out, _ = command("--print-config")
    assert code == 0
    assert "s3cret" not in out
    assert f"# {name.lower().replace('_', '-')}: not shown  # PUSHCOMPAT_{name}\n" in out


def test_a_configuration_that_would_not_start_is_not_printed(command: Command) -> None:
    assert "--request-cap 3" in command.complaint("--request-cap", "3", "--print-config")


def test_who_asks_for_a_check_as_of_other_servers_is_told_the_command(command: Command) -> None:
    assert "Use the command: pushcompat check" in command.complaint("--check")


AVAILABLE = "sqlite:, memory:, redis:, rediss:, redis+unix:, redis+sentinel:"


@pytest.mark.parametrize(
    ("url", "advice"),
    [(url, f"unknown kind of store; available: {AVAILABLE}") for url in ("mysql:", "memory", "")]
    + [("memory:x", "nothing may follow memory:")]
    + [
        (f"sqlite:{options}", "after ? only synchronous=normal or synchronous=full may follow")
        for options in ("x?synchronous=off", "?synchronous=full&x=1", "x?full")
    ],
)
def test_a_store_that_there_is_not_is_said_in_one_line(tmp_path: Path, url: str, advice: str) -> None:
    done = process("--publish-key", "k", "--port", "0", "--state-dir", str(tmp_path), "--store", url)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"pushcompat: --store '{url}': {advice}\n"


# Help


def test_help_shows_every_option_under_its_heading_with_its_default(command: Command) -> None:
    code, out, _ = command("--help")
    assert code == 0
    for heading, settings in SERVE.items():
        assert f"\n{heading}:\n" in out
        assert all(f"--{setting.flag} " in out for setting in settings if not setting.hidden)
    wrapped = "".join(out.split())
    for default in ("127.0.0.1", "8888", "64KiB", "1h", "none", "sqlite:"):
        assert f"[default:{default}]" in wrapped
    assert all(name in wrapped for name in PLATFORMS)
    assert "publish" in out
    assert "listen" in out
    assert command("serve", "--help")[1].endswith(out.partition("Listening:")[2])


def documented(setting: click.Option) -> str:
    """The option's row in README.md."""
    flag, text = setting.get_help_record(click.Context(cli.serve)) or ("", "")
    text, _, default = text.removesuffix("]").partition("[default: ")
    shown = {"": "", None: "off" if setting.is_flag else ""}.get(default or None, f"`{default}`")
    return f"| `{flag}` | {text.strip().removesuffix('.')} | {shown} |".replace("text|json", r"text\|json").replace(
        "debug|info|warning|error", r"debug\|info\|warning\|error"
    )


def test_the_documented_options_are_those_that_there_are() -> None:
    readme = (ROOT / "README.md").read_text()
    rows = readme.partition("| option | | default |\n| --- | --- | --- |\n")[2].partition("\n\n")[0].splitlines()
    expected = []
    for heading, settings in SERVE.items():
        expected += [f"| **{heading}** | | |", *(documented(setting) for setting in settings if not setting.hidden)]
    assert rows == expected


@pytest.mark.parametrize(
    "words", [["--help"], ["publish", "--help"], ["listen", "-h"], ["keys", "add", "-h"], ["--version"]]
)
def test_help_and_clients_start_without_the_servers_libraries(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _MAIN_AND_MODULES, *words], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0
    heavy = {"tornado", "msgspec", "httptools", "websockets", "prometheus_client", "asyncio"}
    assert not heavy & set(done.stderr.split())


_MAIN_AND_MODULES = """
import sys
from pushcompat.cli import main
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""


def test_the_version_is_that_of_the_package(command: Command) -> None:
    assert command("--version") == (0, "pushcompat 0.1.0\n", "")


# The real server


UNSHARE = ("unshare", "--pid", "--fork", "--kill-child")


def can_unshare() -> bool:
    return bool(shutil.which("unshare")) and not subprocess.run([*UNSHARE, "true"], capture_output=True).returncode


@contextmanager
def starting(directory: Path, module: str, *wrapper: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server that is importing this module, and does not get any further."""
    (directory / f"{module}.py").write_text("import sys; print('importing', flush=True); sys.stdin.read()")
    command = [*wrapper, sys.executable, "-m", "pushcompat", "--port", "0", "--publish-key", KEY]
    with subprocess.Popen(
        command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env={**os.environ, "PYTHONPATH": f"{directory}:{ROOT}"}
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"importing\n"
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_with_exit_code_0(tmp_path: Path, number: signal.Signals) -> None:
    assert Server(tmp_path, "--drain-timeout", "0").stop(number) == 0


@pytest.mark.parametrize("module", ["click", "tornado"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_start_ends_it_without_a_word(tmp_path: Path, module: str, number: signal.Signals) -> None:
    with starting(tmp_path, module) as process:
        process.send_signal(number)
        assert process.communicate(timeout=PATIENCE_S)[1] == b""
    assert process.returncode == 128 + number


@pytest.mark.skipif(not can_unshare(), reason="needs the right to make a PID namespace")
@pytest.mark.parametrize("module", ["click", "tornado"])
def test_a_signal_during_the_start_ends_it_as_process_1_too(tmp_path: Path, module: str) -> None:
    with starting(tmp_path, module, *UNSHARE) as process:
        (first,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(first), signal.SIGTERM)
        process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 128 + signal.SIGTERM


def test_a_taken_port_is_one_line_and_exit_code_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = process("--port", str(port), "--publish-key", "k")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert str(port) in done.stderr


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("state"), "--drain-timeout", "0")
    yield server
    server.stop()


def publish(served: Server, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
    options.setdefault("stdin", subprocess.DEVNULL if "input" not in options else None)
    if options["stdin"] is None:
        del options["stdin"]
    options["env"] = {"PUSHCOMPAT_PUBLISH_KEY": KEY, **options.get("env", os.environ)}
    return process("publish", "--url", served.url, *words, **options)


def kept(served: Server, channel: str) -> list[Any]:
    """The data of all messages of the channel."""
    with served.connect() as client:
        client.request("GET", f"/channels/{channel}?cursor=earliest&transport=longpoll")
        return [message["data"] for message in json.loads(client.response()[2])["messages"]]


def test_publish_prints_the_answer_in_one_line(served: Server) -> None:
    done = publish(served, "p1,p2", "hello")
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert list(answer) == ["id", "channels"]
    assert answer["channels"] == {"p1": {"subscribers": 0}, "p2": {"subscribers": 0}}
    assert kept(served, "p1") == kept(served, "p2") == ["hello"]


@pytest.mark.parametrize(
    ("channel", "words", "piped", "expected"),
    [
        ("d1", ["hello"], None, "hello"),
        ("d2", ["hello"], "ignored", "hello"),
        ("d3", [], "from a pipe\n", "from a pipe\n"),
        ("d4", ["-"], "from a pipe\n", "from a pipe\n"),
        ("d5", [], None, "UPDATED"),
        ("d6", [""], "ignored", "UPDATED"),
        ("d7", [], "", "UPDATED"),
        ("d8", ["--json", '{"a": 1}'], None, {"a": 1}),
        ("d9", ["--json"], "[1]", [1]),
        ("d10", ["--", "-x"], None, "-x"),
    ],
)
def test_data_comes_from_the_argument_or_a_pipe_and_nothing_is_the_signal(
    served: Server, channel: str, words: list[str], piped: str | None, expected: object
) -> None:
    options = {} if piped is None else {"input": piped}
    assert publish(served, channel, *words, **options).returncode == 0
    assert kept(served, channel) == [expected]


def test_a_pipe_that_stays_open_does_not_hold_a_publish_for_ever(served: Server) -> None:
    reading, writing = os.pipe()
    try:
        with open(reading, "rb") as pipe:
            done = publish(served, "open", "--timeout", "0.2s", stdin=pipe)
    finally:
        os.close(writing)
    assert (done.returncode, done.stdout) == (2, "")
    assert "standard input has not ended within 0.2 s; give the data as an argument, '' for the signal" in done.stderr


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["pushcompat", "pub"], "publish"),
        (["pushcompat", "--print"], "--print-config"),
        (["pushcompat", "keys", "re"], "revoke"),
    ],
)
def test_a_shell_completes_commands_and_options(words: list[str], completed: str) -> None:
    completing = {
        "_PUSHCOMPAT_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": f"{len(words) - 1}",
    }
    done = process(env={**os.environ, **completing})
    assert completed in re.findall(r"^plain,(.*)$", done.stdout, re.MULTILINE)


def test_data_comes_from_a_file(served: Server, tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_text("from a file")
    with file.open() as opened:
        assert publish(served, "file", stdin=opened).returncode == 0
    assert kept(served, "file") == ["from a file"]


def test_refusals_of_the_server_are_printed_with_exit_code_1(served: Server) -> None:
    done = publish(served, "a", "{", "--json")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "invalid JSON" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_body_over_the_limit_is_refused_with_what_the_server_says(served: Server) -> None:
    done = publish(served, "a", input="x" * 1_000_000)
    assert done.returncode == 1
    assert "exceeds the limit of 61440 bytes" in done.stderr


def test_an_unreachable_server_is_said_with_exit_code_1() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    done = process("publish", "a", "x", "--url", f"http://127.0.0.1:{port}", "--timeout", "1s")
    assert done.returncode == 1
    assert done.stderr == (
        f"pushcompat: cannot reach http://127.0.0.1:{port}: Connection refused; "
        "is the server running, and the URL right (PUSHCOMPAT_URL)?\n"
    )


def test_publish_finds_the_key_that_a_server_on_this_machine_keeps(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PUSHCOMPAT_")}
    environment["XDG_STATE_HOME"] = str(tmp_path)
    started = subprocess.Popen(
        [sys.executable, "-m", "pushcompat", "--port", "0"], stdout=subprocess.PIPE, text=True, env=environment
    )
    try:
        assert started.stdout is not None
        url = started.stdout.readline().split()[-1]
        done = process("publish", "a", "x", "--url", url, env=environment)
        assert (done.returncode, done.stderr) == (0, "")
    finally:
        started.terminate()
        started.communicate(timeout=PATIENCE_S)


def keys(served: Server, *words: str, key: str = KEY) -> subprocess.CompletedProcess[str]:
    return process("keys", *words, "--url", served.url, env={**os.environ, "PUSHCOMPAT_PUBLISH_KEY": key})


def test_a_key_is_added_listed_used_and_revoked(served: Server) -> None:
    added = keys(served, "add", "shop", "--channel", "orders.*", "--channel", "stock")
    key = added.stdout.removesuffix("\n")
    assert (added.returncode, key[:3], "\n" in key) == (0, "pc_", False)
    assert "Key shop may publish to orders.*, stock. It is not shown again" in added.stderr
    assert f"-d hello {served.url}/channels/CHANNEL" in added.stderr
    assert key not in added.stderr
    listed = keys(served, "list")
    rows = [line.split() for line in listed.stdout.splitlines()]
    assert (rows[0], rows[1][:3]) == (["NAME", "PREFIX", "CHANNELS", "CREATED"], ["shop", key[:11], "orders.*,stock"])
    assert key[12:] not in listed.stdout
    assert publish(served, "orders.1", "x", env={**os.environ, "PUSHCOMPAT_PUBLISH_KEY": key}).returncode == 0
    refused = publish(served, "chat", "x", env={**os.environ, "PUSHCOMPAT_PUBLISH_KEY": key})
    assert (refused.returncode, refused.stderr) == (
        1,
        "pushcompat: key shop may not publish to channel chat: its channels are orders.*, stock\n",
    )
    assert keys(served, "revoke", "shop").returncode == 0
    assert keys(served, "list").stdout.splitlines() == ["NAME  PREFIX  CHANNELS  CREATED"]
    done = publish(served, "orders.1", "x", env={**os.environ, "PUSHCOMPAT_PUBLISH_KEY": key})
    assert (done.returncode, "invalid publish key" in done.stderr) == (1, True)


def test_what_the_server_refuses_about_keys_is_one_line_with_exit_code_1(served: Server) -> None:
    for words, key, said in (
        (("add", "a b", "--channel", "x"), KEY, "use 1-64 characters"),
        (("add", "a", "--channel", "{sub}"), KEY, "use * instead"),
        (("revoke", "missing/../x"), KEY, "there is no key"),
        (("list",), "wrong", "invalid publish key"),
    ):
        done = keys(served, *words, key=key)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
        assert said in done.stderr


def test_a_key_without_channels_is_wrong_usage(command: Command) -> None:
    assert "Missing option --channel" in command.complaint("keys", "add", "shop")


def test_listen_prints_a_line_per_message_and_stops_after_the_count(served: Server) -> None:
    for data in ("one", "two", "three"):
        assert publish(served, "lines", data).returncode == 0
    done = process("listen", "lines", "--url", served.url, "--earliest", "--count", "2")
    assert (done.returncode, done.stderr) == (0, "")
    assert [json.loads(line)["data"] for line in done.stdout.splitlines()] == ["one", "two"]


@pytest.mark.parametrize("transport", ["auto", "websocket", "eventsource", "longpoll"])
def test_listen_says_in_one_line_what_the_server_refuses(served: Server, transport: str) -> None:
    done = process("listen", "a b", "--url", served.url, "--transport", transport)
    assert (done.returncode, done.stdout) == (1, "")
    assert "invalid channel name" in done.stderr
    assert done.stderr.count("\n") == 1


def test_listen_without_messages_in_time_ends_with_0_or_with_a_count_1(served: Server) -> None:
    assert process("listen", "quiet", "--url", served.url, "--timeout", "1s").returncode == 0
    assert process("listen", "quiet", "--url", served.url, "--timeout", "300ms", "--count", "1").returncode == 1


def listening(served: Server, channel: str) -> subprocess.Popen[str]:
    """A ``listen`` that is connected."""
    words = [sys.executable, "-m", "pushcompat", "listen", channel, "--url", served.url, "--verbose"]
    started = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert started.stderr is not None
    assert started.stderr.readline() == "pushcompat: websocket: connected\n"
    return started


def test_ctrl_c_ends_listen_with_130(served: Server) -> None:
    started = listening(served, "a")
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=PATIENCE_S)
    assert (started.returncode, out) == (130, "")
    assert "Traceback" not in err


def test_a_reader_that_has_had_enough_ends_listen_quietly(served: Server) -> None:
    started = listening(served, "pipe")
    assert started.stdout is not None
    assert started.stderr is not None
    started.stdout.close()
    publish(served, "pipe", "x")
    assert started.wait(PATIENCE_S) == 0
    assert started.stderr.read() == ""
    started.stderr.close()


def test_workers_are_as_many_as_cores_or_up_to_sixteen_for_each(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pushcompat.cores.usable", lambda: 3)
    assert command.config().workers == 1
    assert command.config("--workers", "auto").workers == 3
    assert command.config("--workers", "48").workers == 48
    for wrong in ("0", "49", "500000000", "many"):
        code, _, err = command("--workers", wrong)
        assert (code, err.count("\n")) == (2, 1)
    assert "49 is too many; the maximum is 48" in command("--workers", "49")[2]


# Tokens


def test_a_token_is_printed_and_its_key_is_never_an_argument(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PUSHCOMPAT_TOKEN_KEY", "k" * 32)
    code, out, _ = command("token", "--sub", "u1", "--channel", "orders.*", "--expires", "5m")
    assert code == 0
    assert out.count(".") == 2
    for words in (("token",), ()):
        code, _, err = command(*words, "--token-key", "k" * 32)
        assert code == 2
        assert "visible to other users in ps; set PUSHCOMPAT_TOKEN_KEY" in err


def test_a_token_needs_a_key(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PUSHCOMPAT_TOKEN_KEY", raising=False)
    code, _, err = command("token", "--sub", "u1")
    assert code == 2
    assert "give --token-key-file, or set PUSHCOMPAT_TOKEN_KEY" in err
