"""docs/deploy.md: its files and start lines are accepted by what reads them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pushcompat.options import SERVE
from pushcompat.platforms import PLATFORMS

from .harness import KEY, PATIENCE_S
from .machine import may_lack
from .reach.processes import free_port
from .test_deploy import documents

ROOT = Path(__file__).parents[1]
DEPLOY = (ROOT / "docs" / "deploy.md").read_text()
FLAGS = {setting.flag for settings in SERVE.values() for setting in settings}
NO_NGINX = not shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") and may_lack("nginx")


def block(language: str) -> str:
    """The first one of that language."""
    found = re.search(rf"```{language}\n(.*?)```", DEPLOY, re.DOTALL)
    assert found is not None
    return found[1]


def test_app_engine_and_kubernetes_run_one_instance_and_ask_it_where_it_listens() -> None:
    engine, kubernetes = re.findall(r"```yaml\n(.*?)```", DEPLOY, re.DOTALL)
    (app,) = documents(engine)
    assert app["manual_scaling"] == {"instances": 1}
    deployment, service = documents(kubernetes)
    assert (deployment["spec"]["replicas"], deployment["spec"]["strategy"]) == (1, {"type": "Recreate"})
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    port = container["ports"][0]["containerPort"]
    probes = [container[probe]["httpGet"] for probe in ("livenessProbe", "readinessProbe")]
    assert probes == [{"path": "/healthz", "port": port}, {"path": "/readyz", "port": port}]
    assert service["spec"]["selector"] == pod["metadata"]["labels"] == deployment["spec"]["selector"]["matchLabels"]
    assert service["spec"]["ports"] == [{"port": 80, "targetPort": port}]
    assert {volume["name"] for volume in pod["spec"]["volumes"]} == {at["name"] for at in container["volumeMounts"]}


def test_every_variable_and_platform_of_it_exists() -> None:
    names = {"PUSHCOMPAT_" + flag.upper().replace("-", "_") for flag in FLAGS} | {"PUSHCOMPAT_URL"}
    assert set(re.findall(r"PUSHCOMPAT_[A-Z_]+", DEPLOY)) <= names
    assert set(re.findall(r"--platform[= ]([a-z-]+)", DEPLOY)) <= PLATFORMS.keys()


@pytest.mark.parametrize("line", re.findall(r"^\| [\w. ]+ \| `(--[^`]*)` \|", DEPLOY, re.MULTILINE))
def test_the_server_would_start_with_each_start_line(line: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pushcompat", "check", "--state-dir", str(tmp_path), *line.split()]
    environment = {"PATH": os.environ["PATH"], "PORT": "5000", "PUSHCOMPAT_PUBLISH_KEY": KEY}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, cwd=ROOT)
    assert done.returncode in (0, 1), done.stderr  # 1: that anyone may subscribe is a warning


def test_the_procfile_starts_a_server_on_port_of_all_addresses(tmp_path: Path) -> None:
    port = free_port()
    words = shlex.split(block("Procfile").partition("web: pushcompat ")[2])

    process = subprocess.Popen(
        [sys.executable, "-m", "pushcompat", *words],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PORT": str(port), "PUSHCOMPAT_PUBLISH_KEY": KEY},
    )
    try:
        assert process.stdout is not None
        assert f"http://localhost:{port}, on all addresses" in process.stdout.readline()
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)


@pytest.mark.skipif(NO_NGINX, reason="there is no nginx here")
def test_nginx_accepts_its_snippet(tmp_path: Path) -> None:
    conf = tmp_path / "nginx.conf"
    server = block("nginx").replace("listen 80;", f"listen unix:{tmp_path}/nginx.sock;")
    conf.write_text(f"pid {tmp_path}/nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n{server}\n}}\n")
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    done = subprocess.run([str(nginx), "-t", "-p", str(tmp_path), "-c", str(conf)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_file_for_fly_is_toml_whose_options_the_server_has() -> None:
    fly = tomllib.loads(block("toml"))
    assert fly["http_service"]["internal_port"] == 8888
    assert fly["env"]["PUSHCOMPAT_PLATFORM"] in PLATFORMS
    assert (ROOT / fly["build"]["dockerfile"]).exists()


def test_the_time_to_stop_is_that_of_the_operations() -> None:
    (said,) = re.findall(r"`--drain-timeout` and (\d+) s\)", DEPLOY)
    assert f"`--drain-timeout` and {said} s more to stop" in (ROOT / "docs" / "operations.md").read_text()


def test_only_one_instance_is_said_for_every_store_that_is_not_shared() -> None:
    text = DEPLOY.partition("## Everywhere\n")[2]
    assert text.lstrip().startswith("**One instance, unless they share a log.**")
    assert all(name in text.partition("\n\n**The disk")[0] for name in ("memory:", "sqlite:", "redis://"))
