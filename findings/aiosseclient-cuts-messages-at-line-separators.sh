#!/bin/sh
# aiosseclient 0.1.8 (PyPI): of a message with U+2028, U+0085, a vertical tab or a form feed only what is before it
# arrives.
#
# Lines of an event stream end with LF, CR or both. The package divides them as str.splitlines() does, at seven other
# characters too, which text pasted from documents has; the rest is logged as an invalid line. httpx-sse 0.4.3 divides as
# the format says. Until it is mended: JSON that escapes all but ASCII, as json.dumps does; or another package.
#
# Needs python3 with venv. Takes about 8 s. Exit code 0: as described; 1: the behaviour has changed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check aiosseclient==0.1.8 httpx-sse==0.4.3 httpx==0.28.1

cat >show.py <<'PY'
import asyncio
import logging

import httpx
from aiosseclient import aiosseclient
from httpx_sse import aconnect_sse

STREAMS = {
    "/separator": "data: one\u2028two\n\n",
    "/next-line": "data: one\x85two\n\n",
    "/form-feed": "data: one\x0ctwo\n\n",
}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nConnection: close\r\n\r\n"


async def answer(reader, writer):
    path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
    writer.write(HEAD + STREAMS[path].encode())
    await writer.drain()
    writer.close()


async def main() -> None:
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server, httpx.AsyncClient() as client:
        base = "http://127.0.0.1:%d" % server.sockets[0].getsockname()[1]
        for path in STREAMS:
            print("aiosseclient", path, [event.data async for event in aiosseclient(base + path)])
            async with aconnect_sse(client, "GET", base + path) as source:
                print("httpx-sse", path, [event.data async for event in source.aiter_sse()])


logging.disable()
asyncio.run(asyncio.wait_for(main(), 30))
PY
timeout 60 venv/bin/python show.py | tee seen
cat >expected <<'TXT'
aiosseclient /separator ['one']
httpx-sse /separator ['one\u2028two']
aiosseclient /next-line ['one']
httpx-sse /next-line ['one\x85two']
aiosseclient /form-feed ['one']
httpx-sse /form-feed ['one\x0ctwo']
TXT
diff expected seen
