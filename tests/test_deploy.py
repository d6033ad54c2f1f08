"""The files in deploy/ against the server that they start."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest

from pushcompat.options import SERVER
from pushcompat.settings import environment_name

from .harness import CERTIFICATE, MS, PATIENCE_S, running
from .machine import may_lack

DEPLOY = Path(__file__).parents[1] / "deploy"
FLAGS = [setting.flag for group in SERVER.values() for setting in group]


def instructions(name: str) -> list[str]:
    """Of a Dockerfile: one line for each instruction, without comments."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / name).read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [line for line in text.splitlines() if line]


def test_all_options_that_are_set_exist() -> None:
    known = {environment_name(flag) for flag in FLAGS}
    for path in DEPLOY.iterdir():
        text = path.read_text()
        assert set(re.findall(r"\bPUSHCOMPAT_[A-Z_]*[A-Z]\b", text)) <= known, path
        assert set(re.findall(r"(?<=\s)--(?:host|port|workers|config|unix[a-z-]+)", text)) <= {f"--{f}" for f in FLAGS}
    assert tomllib.loads((DEPLOY / "pushcompat.toml").read_text()).keys() <= set(FLAGS)


def documents(yaml: str) -> list[dict[str, Any]]:
    if shutil.which("ruby") is None and may_lack("ruby"):
        pytest.skip("needs ruby, which has a parser of YAML")
    parse = ["ruby", "-ryaml", "-rjson", "-e", "puts JSON.generate(YAML.load_stream(STDIN.read))"]
    parsed = subprocess.run(parse, input=yaml.encode(), stdout=subprocess.PIPE, check=True)
    found: list[dict[str, Any]] = json.loads(parsed.stdout)
    return found


def test_the_servers_of_the_compose_file_wait_for_their_redis_which_keeps_the_log() -> None:
    (file,) = documents((DEPLOY / "compose.yaml").read_text())
    server, redis = file["services"]["pushcompat"], file["services"]["redis"]
    assert server["build"] == {"context": "..", "dockerfile": "deploy/Dockerfile"}
    assert server["environment"]["PUSHCOMPAT_STORE"] == "redis://redis:6379/0"
    assert server["depends_on"] == {"redis": {"condition": "service_healthy"}}
    assert redis["healthcheck"]["test"] == ["CMD", "redis-cli", "ping"]
    program, *options = redis["command"]
    assert program == "redis-server"
    settings = dict(zip(options[::2], options[1::2], strict=True))
    assert (settings["--appendonly"], settings["--maxmemory-policy"]) == ("yes", "noeviction")
    assert [volume.partition(":")[0] for volume in redis["volumes"]] == list(file["volumes"])


def test_the_image_runs_no_shell_and_no_root() -> None:
    lines = instructions("Dockerfile")
    entry = next(line for line in lines if line.startswith("ENTRYPOINT "))
    assert json.loads(entry.removeprefix("ENTRYPOINT "))[-1] == "/opt/pushcompat/bin/pushcompat"
    assert next(line for line in lines if line.startswith("USER ")) == "USER 888"


@pytest.mark.parametrize("tls", [{}, {"PUSHCOMPAT_TLS_CERT": str(CERTIFICATE)}], ids=["plain", "TLS"])
def test_the_health_check_of_the_image_finds_the_server_as_its_variables_say(
    tmp_path: Path, tls: dict[str, str]
) -> None:
    health = next(line for line in instructions("Dockerfile") if line.startswith("HEALTHCHECK "))
    _, *arguments = json.loads(health.partition(" CMD ")[2])
    for server in running(tmp_path, "--prefix", "/push", env=tls):
        said = {**os.environ, **tls, "PUSHCOMPAT_PORT": str(server.port), "PUSHCOMPAT_PREFIX": "/push"}
        subprocess.run([sys.executable, *arguments], env=said, check=True, timeout=PATIENCE_S)
        said |= {"PUSHCOMPAT_PORT": "", "PUSHCOMPAT_PLATFORM": "cloud-run", "PORT": str(server.port)}
        subprocess.run([sys.executable, *arguments], env=said, check=True, timeout=PATIENCE_S)


def may_make_namespaces() -> bool:
    probe = ["unshare", "--pid", "--fork", "true"]
    return shutil.which("unshare") is not None and subprocess.run(probe, capture_output=True).returncode == 0


@pytest.mark.skipif(not may_make_namespaces(), reason="needs unshare, and the right to use it")
def test_a_container_that_is_stopped_while_it_starts_ends(tmp_path: Path) -> None:
    """The kernel discards a signal to process 1 that has no handler for it, and Python needs a while to set one."""
    entry = next(line for line in instructions("Dockerfile") if line.startswith("ENTRYPOINT "))
    first, *blocked, _ = json.loads(entry.removeprefix("ENTRYPOINT "))
    command = ["unshare", "--pid", "--fork", "--kill-child", "--", first, *blocked, sys.executable, "-m", "pushcompat"]
    options = ["--port", "0", "--publish-key", "k", "--state-dir", str(tmp_path)]
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            os.kill(python_in(process.pid), signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 128 + signal.SIGTERM
        finally:
            process.kill()


def python_in(pid: int) -> int:
    """The child of unshare, as soon as it has become Python, before that has done anything."""
    deadline = threading.Event()
    timer = threading.Timer(PATIENCE_S, deadline.set)
    timer.start()
    try:
        while not deadline.wait(0.1 * MS):
            for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
                if Path(f"/proc/{child}/cmdline").read_text().startswith(sys.executable):
                    return int(child)
    finally:
        timer.cancel()
    raise AssertionError("it did not start")
