"""What a publish costs the application: CPU time of the publishing process, alternately in one run.

    python bench/publishers.py [--before PATH] [--runs 5] [--publishes 400]

``publish`` of this checkout, and of another one; ``http.client`` on a connection that it keeps, the least that a client
in Python's standard library costs; ``cent``, Centrifugo's client (pip install cent), against a stub that answers at
once. Then the same over TLS; ``later``; and the import. Exit code 1: a target was missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from servers import ROOT, free_port, python_of, running

KEY = "k" * 43
DATA = {"text": "hello", "n": 5}
OURS, BEFORE, KEPT, CENT = "pushcompat", "before", "http.client, kept", "cent"
CERTIFICATE = ROOT / "tests" / "tls.pem"
IMPORT = "from pushcompat import publish"
NEEDED = "what it needs"


# In the process that publishes


def publish_kept(url: str) -> Callable[[], object]:
    where = urlsplit(url)
    assert where.hostname
    connection = (HTTPSConnection if where.scheme == "https" else HTTPConnection)(where.hostname, where.port)

    def publish() -> object:
        fields = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        fields["Idempotency-Key"] = os.urandom(16).hex()
        connection.request("POST", "/channels/bench", json.dumps(DATA).encode(), fields)
        return json.loads(connection.getresponse().read())

    return publish


def publish_ours(url: str) -> Callable[[], object]:
    from pushcompat import publish

    return lambda: publish("bench", DATA, url=url, key=KEY)


def publish_later(url: str) -> Callable[[], object]:
    from pushcompat import Publisher

    push = Publisher(url, KEY)
    return lambda: push.later("bench", DATA)


def publish_cent(url: str) -> Callable[[], object]:
    from cent import Client, PublishRequest

    client = Client(f"{url}/api", KEY)
    return lambda: client.publish(PublishRequest(channel="bench", data=DATA))


CLIENTS = {"ours": publish_ours, "kept": publish_kept, "later": publish_later, "cent": publish_cent}


def in_process(client: str, url: str, publishes: int) -> None:
    """Prints the CPU time of a publish, in µs. Of ``later``: of the thread that calls it."""
    publish = CLIENTS[client](url)
    for _ in range(50):
        publish()
    clock = time.thread_time if client == "later" else time.process_time
    began = clock()
    for _ in range(publishes):
        publish()
    print((clock() - began) / publishes * 1e6)


# The servers


@contextmanager
def server(tls: bool) -> Iterator[str]:
    with TemporaryDirectory(prefix="pushcompat-bench-") as folder:
        port = free_port()
        command = [
            str(python_of(ROOT)), "-m", "pushcompat", "--port", str(port), "--state-dir", folder, "--store", "memory:",
            *(("--tls-cert", str(CERTIFICATE), "--tls-key", str(CERTIFICATE)) if tls else ()),
        ]  # fmt: skip
        os.environ["PUSHCOMPAT_PUBLISH_KEY"] = KEY
        with running(command, port, Path(folder)):
            yield f"http{'s' if tls else ''}://127.0.0.1:{port}"


class _Centrifugo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b'{"result":{"offset":1,"epoch":"x"}}'
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def stub() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Centrifugo) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


# The runs


def measured(tree: Path, client: str, url: str, publishes: int) -> float:
    command = [str(python_of(ROOT)), __file__, "--in-process", client, url, "--publishes", str(publishes)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(tree))
    if done.returncode:
        raise SystemExit(f"{client} failed:\n{done.stderr}")
    return float(done.stdout)


def environment(tree: Path) -> dict[str, str]:
    """With compiled modules, as an installed package has them."""
    cache = {"PYTHONPYCACHEPREFIX": str(ROOT / "bench" / "build" / "pycache"), "PYTHONDONTWRITEBYTECODE": ""}
    return {**os.environ, **cache, "PYTHONPATH": str(tree), "SSL_CERT_FILE": str(CERTIFICATE)}


def rows(sides: dict[str, Callable[[], float]], runs: int, title: str, unit: str) -> dict[str, float]:
    """The median of each side; the sides take turns."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(runs):
        for name, run in sides.items():
            found[name].append(run())
    print(f"\n{title}, {unit}")
    for name, values in found.items():
        print(f"  {name:20} {median(values):8.1f}   ({min(values):.1f} to {max(values):.1f})")
    return {name: median(values) for name, values in found.items()}


def imported(tree: Path, statement: str) -> float:
    """CPU time of a Python that imports, in ms."""
    program = f"import time; began = time.process_time(); {statement}; print((time.process_time() - began) * 1e3)"
    done = subprocess.run(
        [str(python_of(ROOT)), "-c", program], capture_output=True, text=True, check=True,
        env=environment(tree),
    )  # fmt: skip
    return float(done.stdout)


def needed() -> str:
    """Imports the modules of the standard library that the import needs."""
    program = f"import sys; before = set(sys.modules); {IMPORT}; print(*set(sys.modules) - before)"
    done = subprocess.run(
        [str(python_of(ROOT)), "-c", program], capture_output=True, text=True, check=True, env=environment(ROOT)
    )
    return f"import {', '.join(sorted(name for name in done.stdout.split() if not name.startswith('pushcompat')))}"


def target(what: str, value: float, most: float) -> bool:
    print(f"  {what}: {value:.2f} × (at most {most}) {'ok' if value <= most else 'MISSED'}")
    return value <= most


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="checkout of the build to compare with")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--publishes", type=int, default=400)
    parser.add_argument("--in-process", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_process:
        in_process(*options.in_process, options.publishes)
        return 0
    met = []
    for tls in (False, True):
        with server(tls) as url, stub() as other:
            sides = {OURS: lambda url=url: measured(ROOT, "ours", url, options.publishes)}
            if options.before:
                sides[BEFORE] = lambda url=url: measured(options.before, "ours", url, options.publishes)
            sides[KEPT] = lambda url=url: measured(ROOT, "kept", url, options.publishes)
            with suppress(ImportError):
                import cent  # noqa: F401

                if not tls:
                    sides[CENT] = lambda other=other: measured(ROOT, "cent", other, options.publishes)
            found = rows(sides, options.runs, "a publish over TLS" if tls else "a publish", "µs of CPU")
            met.append(target("of a kept http.client", found[OURS] / found[KEPT], 1.3))
            if options.before:
                met.append(target("of the build before", found[OURS] / found[BEFORE], 0.12 if tls else 0.4))
    with server(tls=False) as url:
        later = {OURS: lambda: measured(ROOT, "later", url, 20 * options.publishes)}
        found = rows(later, options.runs, "later(), in the calling thread", "µs of CPU")
        met.append(target("of 15 µs", found[OURS] / 15, 1.0))
    statements = {OURS: IMPORT, NEEDED: needed()}
    imports = {name: lambda statement=statement: imported(ROOT, statement) for name, statement in statements.items()}
    found = rows(imports, 8 * options.runs, "the import", "ms of CPU")
    met.append(target("of the modules that it needs", found[OURS] / found[NEEDED], 1.15))
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
