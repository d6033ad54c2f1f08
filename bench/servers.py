"""The servers, each started fresh, pinned to the first core, and stopped again."""

from __future__ import annotations

import os
import resource
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from itertools import dropwhile, islice
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMPILED, SUBJECT, BEFORE, NCHAN, CENTRIFUGO, WS = ORDER = (
    "compiled",
    "pushcompat",
    "before",
    "Nchan",
    "Centrifugo",
    "ws",
)
SERVER_CORE = 0
LOAD_CORE = 1
START_S = 15
LEAVE_S = 3
STOP_S = 20
FEW_FILES = 32  # open in a server without clients
NCHAN_MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")

# Nchan at its best: one worker for its one core, no logs, connections that are never recycled, exact locations (a
# regular expression would cost it on every request), the same history per channel as ours. A poll begins with the
# oldest message, so that the first answer names a place in the channel; streams begin with the next one.
NCHAN_CONFIG = """
load_module {module};
daemon off;
worker_processes 1;
worker_rlimit_nofile {files};
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
events {{
    worker_connections {files};
    use epoll;
    multi_accept on;
}}
http {{
    access_log off;
    server_tokens off;
    tcp_nodelay on;
    keepalive_requests 1000000000;
    keepalive_timeout 620s;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    nchan_max_reserved_memory 1024M;
    nchan_store_messages on;
    nchan_message_buffer_length 100;
    nchan_message_timeout 1h;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /publish {{
            nchan_publisher http;
            nchan_channel_id $arg_id;
        }}
        location = /subscribe {{
            nchan_subscriber websocket eventsource longpoll;
            nchan_channel_id $arg_id;
            nchan_subscriber_first_message newest;
        }}
        location = /poll {{
            nchan_subscriber longpoll;
            nchan_channel_id $arg_id;
            nchan_subscriber_first_message oldest;
        }}
    }}
}}
"""


class BenchError(Exception):
    """The benchmark cannot continue; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server, as the load generator needs to know it."""

    dialect: str
    port: int
    key: str
    pids: tuple[int, ...]
    publish_port: int | None = None  # of another process, which publishers use
    parameters: Path | None = None  # of each subscriber's URL, one line each


Options = Mapping[str, str]
Starter = Callable[[Path], AbstractContextManager[Server]]


def open_files() -> int:
    """The most files a process here may open; raises this process's own limit to it, for its children."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def require_nchan() -> None:
    os.environ["PATH"] += ":/usr/sbin"  # where Debian has nginx, and users other than root do not look
    if not shutil.which("nginx") or not NCHAN_MODULE.exists():
        raise BenchError(
            "Nchan is missing, which this benchmark compares with: apt-get install nginx libnginx-mod-nchan"
        )


def python_of(checkout: Path) -> str:
    """The interpreter of the checkout's own virtual environment, or the one that runs this."""
    own = checkout / ".venv" / "bin" / "python"
    return str(own) if own.exists() else sys.executable


def require_checkout(checkout: Path) -> None:
    """An editable installation of another checkout must not be measured by mistake."""
    command = [python_of(checkout), "-c", "import pushcompat; print(pushcompat.__file__)"]
    done = subprocess.run(
        command, cwd=checkout, env=_environment(checkout), capture_output=True, text=True, check=False
    )
    if done.returncode or not Path(done.stdout.strip()).is_relative_to(checkout):
        raise BenchError(f"{checkout} has no pushcompat that starts there:\n{done.stdout}{done.stderr}")


def pushcompat(checkout: Path, more: Options | None = None) -> Starter:
    """The server of a checkout. It logs at its default level, to a file: what a service does."""

    @contextmanager
    def start(folder: Path) -> Iterator[Server]:
        port = free_port()
        options = {"--host": "127.0.0.1", "--port": str(port), "--publish-key": secrets.token_hex(16)}
        options |= {"--state-dir": str(folder), **(more or {})}
        command = [
            python_of(checkout),
            "-m",
            "pushcompat",
            *(word for option in options.items() for word in option),
        ]
        with running(command, port, folder, cwd=checkout, env=_environment(checkout)) as process:
            yield Server("pushcompat", port, options["--publish-key"], family(process.pid))

    return start


def _environment(checkout: Path) -> dict[str, str]:
    """The caller's without the server's own settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PUSHCOMPAT_")}
    return {**inherited, "PYTHONPATH": str(checkout)}


@contextmanager
def nchan(folder: Path) -> Iterator[Server]:
    port, config = free_port(), folder / "nginx.conf"
    folder.chmod(0o755)  # the worker is another user when this runs as root
    files = min(open_files(), 20_000)
    config.write_text(NCHAN_CONFIG.format(module=NCHAN_MODULE, folder=folder, port=port, files=files))
    with running(["nginx", "-p", str(folder), "-c", str(config)], port, folder) as process:
        yield Server("nchan", port, "", family(process.pid))


def on_core(core: int, command: list[str]) -> list[str]:
    return ["taskset", "--cpu-list", str(core), *command]


@contextmanager
def running(
    command: list[str],
    port: int,
    folder: Path,
    cwd: Path = ROOT,
    env: dict[str, str] | None = None,
    ask: bytes = b"GET / HTTP/1.0\r\n\r\n",
    core: int = SERVER_CORE,
) -> Iterator[subprocess.Popen[bytes]]:
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(on_core(core, command), stdout=output, stderr=output, cwd=cwd, env=env)
    try:
        _wait_until_answering(process, port, log, ask)
        yield process
    finally:
        _stop(process)
    _complain_about(log)


def _wait_until_answering(process: subprocess.Popen[bytes], port: int, log: Path, ask: bytes) -> None:
    """Listening is not enough: nginx listens before it has started its worker."""
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(ask)
            if connection.recv(1):
                return
        time.sleep(0.02)
    raise BenchError(f"{process.args!r} did not start to answer on port {port}:\n{log.read_text()[-2000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    _wait_until_left(process)
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_left(process: subprocess.Popen[bytes]) -> None:
    """Until it has seen that the load is gone: a server that stops with clients takes seconds to let them go."""
    files, end = Path(f"/proc/{process.pid}/fd"), time.monotonic() + LEAVE_S
    while process.poll() is None and len(os.listdir(files)) > FEW_FILES and time.monotonic() < end:
        time.sleep(0.02)


def _complain_about(log: Path) -> None:
    """An exception in the log belongs to the result. The log has a line per publish: it is not read into memory."""
    with log.open(errors="replace") as lines:
        found = list(islice(dropwhile(lambda line: "Traceback" not in line, lines), 40))
    if found:
        print(f"the server logged an exception:\n{''.join(found)}", file=sys.stderr)


def family(pid: int) -> tuple[int, ...]:
    """The process and all its descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (pid, *(member for child in children for member in family(int(child))))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def cores() -> int:
    return len(os.sched_getaffinity(0))
