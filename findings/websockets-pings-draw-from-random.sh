#!/bin/sh
# websockets 17.4 (threading and asyncio): keepalive pings draw their payloads from the global generator of "random".
#
# A program that seeds it for reproducible numbers gets other ones while a connection is open, on either side: each ping
# (every 20 s by default, on by default in the threading client and server since 15.0) takes 32 bits, from a thread of the
# library. Simulations do not repeat, and hypothesis reports tests that use no randomness at all as flaky. Frame masks do
# not: they come from "secrets". Until it is mended: random.Random(seed) of one's own, or ping_interval=None.
#
# Needs python3 with venv. Takes about 15 s. Exit code 0: as described; 1: the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check websockets==17.4

cat >show.py <<'PY'
import asyncio
import random
import threading
import time

from websockets.asyncio.client import connect as connect_async
from websockets.asyncio.server import serve as serve_async
from websockets.sync.client import connect
from websockets.sync.server import serve


def drawn(wait) -> str:
    """Whether waiting draws from a seeded generator."""
    random.seed(1)
    before = random.getstate()
    wait()
    return "drawn from" if random.getstate() != before else "untouched"


with serve(list, "127.0.0.1", 0, ping_interval=None) as server:  # reads until the client closes
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
    with connect(url, ping_interval=0.2):
        print("threading, ping_interval=0.2:", drawn(lambda: time.sleep(1)))
    with connect(url, ping_interval=None):
        print("threading, ping_interval=None:", drawn(lambda: time.sleep(1)))
    server.shutdown()


async def asynchronous() -> None:
    async with serve_async(lambda connection: connection.wait_closed(), "127.0.0.1", 0, ping_interval=None) as server:
        url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for interval in (0.2, None):
            async with connect_async(url, ping_interval=interval):
                random.seed(1)
                before = random.getstate()
                await asyncio.sleep(1)
                changed = random.getstate() != before
                print(f"asyncio, ping_interval={interval}:", "drawn from" if changed else "untouched")


asyncio.run(asyncio.wait_for(asynchronous(), 20))
PY
timeout 60 venv/bin/python show.py | tee seen
cat >expected <<'TXT'
threading, ping_interval=0.2: drawn from
threading, ping_interval=None: untouched
asyncio, ping_interval=0.2: drawn from
asyncio, ping_interval=None: untouched
TXT
diff expected seen
