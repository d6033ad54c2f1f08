"""README.md against the product: its commands do what it says, and its files can be built and read elsewhere."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from .harness import PATIENCE_S, Server
from .machine import may_lack

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EPOCH = "vmmy0vkj"  # of the recorded session
STREAMS = ("curl -N", "pushcompat listen", shlex.quote(sys.executable))


class Stream:
    """A command of README.md that does not end by itself, and what it prints."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.text = ""
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self.text += line
                self._news.notify_all()

    def wait_for(self, expected: str) -> None:
        with self._news:
            seen = self._news.wait_for(lambda: plain(expected) in plain(self.text), PATIENCE_S)
        assert seen, f"{plain(expected)}\nis not in\n{plain(self.text)}"

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        assert self._process.stdout is not None
        self._process.stdout.close()


class Reader:
    """Somebody who enters the commands of README.md in the shell, one after the other."""

    def __init__(self, server: Server, home: Path) -> None:
        self._server = server
        self._home = home
        self.epoch = ""
        self.streams: list[Stream] = []

    def start(self, command: str) -> subprocess.Popen[str]:
        variables = re.search(r"```sh\n(H=.*?)```", README, re.DOTALL)
        assert variables is not None
        text = (variables[1] + command).replace("127.0.0.1:8888", f"127.0.0.1:{self._server.port}")
        text = text.replace("\npushcompat ", f"\n{shlex.quote(sys.executable)} -m pushcompat ")
        text = text.replace("| pushcompat ", f"| {shlex.quote(sys.executable)} -m pushcompat ")
        text = text.replace("curl ", "curl -s ").replace(EPOCH, self.epoch or EPOCH)
        kind = "exec " if command.startswith(STREAMS) else ""
        head, _, last = text.rpartition("\n")
        return subprocess.Popen(
            ["bash", "-c", f"{head}\n{kind}{last}"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={
                "PATH": "/usr/local/bin:/usr/bin:/bin",
                "HOME": str(self._home),
                "PUSHCOMPAT_URL": self._server.url,
                "PYTHONUNBUFFERED": "1",
            },
        )

    def run(self, command: str) -> str:
        printed, _ = self.start(command).communicate(timeout=PATIENCE_S)
        return printed

    def follow(self, command: str, channels: str) -> Stream:
        before = len(self._server.log)
        stream = Stream(self.start(command))
        self.streams.append(stream)
        with self._server._logged:
            found = self._server._logged.wait_for(
                lambda: any(f" subscribe channels={channels} " in line for line in self._server.log[before:]),
                PATIENCE_S,
            )
        assert found, command
        return stream

    def stop_all(self) -> None:
        while self.streams:
            self.streams.pop().stop()


def plain(text: str) -> str:
    """Without what differs between sessions: epochs, times, delays, counts of subscribers, and blank lines."""
    text = re.sub(r"[a-z0-9]{8}(?=-\d{15})", "EPOCH", text)
    text = re.sub(r'(retry: |"time": ?|"subscribers": ?)\d+', r"\1N", text)
    return "\n".join(line for line in text.splitlines() if line)


def blocks(text: str) -> list[tuple[str, str]]:
    """The language and the text of each block of code."""
    return re.findall(r"```(\w*)\n(.*?)```", text, re.DOTALL)


def commands(block: str) -> list[tuple[str, str]]:
    """The commands of a console, and what they print."""
    found = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    return [(command.partition("  #")[0], printed.replace("…\n", "")) for command, printed in found]


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """Skips without curl. The server keeps its state where a newcomer's does, with a key of its own."""
    if not shutil.which("curl") and may_lack("curl"):
        pytest.skip("there is no curl here")
    state = tmp_path / ".local" / "state" / "pushcompat"
    server = Server(state, "--demo", env={"PUSHCOMPAT_PUBLISH_KEY": ""})
    with ExitStack() as stack:
        stack.callback(server.stop)
        reader = Reader(server, tmp_path)
        stack.callback(reader.stop_all)
        yield reader


def test_the_commands_of_the_readme_print_what_it_says(reader: Reader) -> None:
    """The whole of "Five minutes with curl", in its order, up to what is not for the shell."""
    section = README.partition("## Five minutes with curl\n")[2].partition("**From an application**")[0]
    held: tuple[subprocess.Popen[str], str] | None = None
    checked = 0
    for language, block in blocks(section):
        if language == "":  # what an earlier stream prints now
            reader.streams[-1].wait_for(block)
        if language != "console":
            continue
        for command, printed in commands(block):
            checked += 1
            if command.startswith("curl -N"):
                if "cursor=" in command:
                    reader.stop_all()  # the page says Ctrl-C
                names = re.search(r"\$U/([^?]*)", command)
                assert names is not None
                stream = reader.follow(command, names[1])
                stream.wait_for(printed)
                reader.epoch = reader.epoch or stream.text.partition("id: ")[2][:8]
            elif command.startswith("pushcompat listen"):
                listening = reader.follow(command, "chat,news"), printed
            elif "worth the wait" in printed:
                held = reader.start(command), printed
                reader._server.wait_for_log(r" subscribe channels=chat transport=longpoll")
                assert '"id"' in reader.run("curl -H \"$H\" -d 'worth the wait' $U/chat")
                assert plain(held[0].communicate(timeout=PATIENCE_S)[0]) == plain(printed)
            else:
                assert plain(reader.run(command)) == plain(printed), command
    listening[0].wait_for(listening[1])
    assert checked > 20


def python(program: str) -> str:
    """The command that runs it."""
    return f"{shlex.quote(sys.executable)} -c {shlex.quote(program)}"


def test_the_python_of_the_readme_does_what_it_says(reader: Reader) -> None:
    publishing, listening = (block for language, block in blocks(README) if language == "python")
    program = "".join(f"{line}\n" for line in re.findall(r"^>>> (.*)$", listening, re.MULTILINE))
    stream = reader.follow(python(program), "chat")
    program = "".join(f"{line}\n" for line in re.findall(r"^>>> (.*)$", publishing, re.MULTILINE))
    printed = reader.run(python(re.sub(r"^(publish\(.*)$", r"print(\1)", program, flags=re.MULTILINE)))
    expected = re.sub(r"^>>> .*\n", "", publishing, flags=re.MULTILINE)

    def shape(text: str) -> str:
        return re.sub(r"\d+", "N", re.sub(r"'[a-z0-9]{8}-\d+'", "ID", text))

    assert shape(printed) == shape(expected)
    stream.wait_for("bob")


def test_what_the_server_prints_is_what_the_readme_shows(reader: Reader) -> None:
    shown = README.partition("    pushcompat 0.1.0 listens on ")[2].partition("\n")[0]
    assert reader._server.greeting.replace(str(reader._server.port), "8888").endswith(f" listens on {shown}\n")


@pytest.mark.parametrize("page", ["README.md", *(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/*.md"))])
def test_every_link_to_a_file_leads_to_one(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", text)):
        path = urlsplit(target).path
        if "://" not in target and path:
            assert (ROOT / page).parent.joinpath(path).exists(), target


def test_each_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^    |`)make ([a-z-]+)", README, re.MULTILINE)) <= targets
