"""One program, a server, and the network between them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http.client import HTTPException
from pathlib import Path

import jwt

from ..harness import Server
from ..reach.relay import TRANSPORTS, Relay
from .programs import Program, environment

CHANNEL = "numbers"
INTERVAL_S = 0.25
REFETCH = "refetch"
_SECRET = "a-secret-of-32-characters-or-more"


class Stage:
    """``received``: the messages that the program has printed, and REFETCH; ``last`` is the highest number of them.
    ``number``: the last one that was published.
    """

    def __init__(self, program: Program, folder: Path, options: tuple[str, ...], token_s: float) -> None:
        self.program = program
        self.received: list[object] = []
        self.number = 0
        self.last = 0
        self._paused = False
        self._publishing = asyncio.Lock()
        self._folder, self._options = folder, options
        self._token = folder / "token"
        self._changed = asyncio.Condition()
        (folder / "keys").write_text(_SECRET)
        self.renew(token_s)

    def renew(self, ttl_s: float) -> None:
        """The program's application gets a new token. It is replaced as a whole, as applications should do."""
        claims = {"channels": [CHANNEL], "exp": int(time.time() + ttl_s)}
        new = self._token.with_suffix(".new")
        new.write_text(jwt.encode(claims, _SECRET, "HS256"))
        os.replace(new, self._token)

    async def serve(self, port: int = 0) -> None:
        keys = ("--token-key-file", str(self._folder / "keys"))
        words = ("--port", str(port), *keys, *self._options)
        self.server = await asyncio.to_thread(Server, self._folder / "state", *words)

    async def stop(self, number: int) -> int:
        """Ends the server, and returns its port."""
        await asyncio.to_thread(self.server.stop, number)
        return self.server.port

    async def connect(self) -> None:
        self.relay = Relay(self.server.port, 0)
        await self.relay.listen()

    def refuse(self, status: int | None) -> None:
        """A gateway answers all requests with this; None: no more."""
        self.relay.refuse(TRANSPORTS if status else (), status or 0)
        self.relay.hang_up()

    async def start(self) -> None:
        given = {"PUSH_URL": f"http://127.0.0.1:{self.relay.port}/channels/{CHANNEL}"}
        given["PUSH_TOKEN_FILE"] = str(self._token)
        with (self._folder / "errors").open("wb") as errors:
            self.process = await asyncio.create_subprocess_exec(
                *self.program.run, cwd=self.program.folder, env={**environment(), **given},
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=errors,
            )  # fmt: skip
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._publish())]

    async def end(self) -> None:
        for task in self._tasks:
            task.cancel()
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        self.relay.close()
        await self.stop(signal.SIGKILL)

    def errors(self) -> str:
        return (self._folder / "errors").read_text(errors="replace")[-1000:]

    async def _read(self) -> None:
        assert self.process.stdout is not None
        text = b""
        while data := await self.process.stdout.read(1 << 16):
            text = self._take(text + data)
            async with self._changed:
                self._changed.notify_all()

    def _take(self, text: bytes) -> bytes:
        """Reads what is whole, and returns the rest."""
        while text := text.lstrip():
            if text.startswith(REFETCH.encode() + b"\n"):
                self.received.append(REFETCH)
                text = text[len(REFETCH) :]
                continue
            try:
                document, end = json.JSONDecoder().raw_decode(decoded := text.decode())
            except ValueError:
                break
            self.received.append(document["data"])
            if isinstance(document["data"], int):
                self.last = max(self.last, document["data"])
            text = decoded[end:].encode()
        return text

    async def _publish(self) -> None:
        number = 1
        while True:
            async with self._publishing:
                if not self._paused:
                    await self.publish(str(number), number)
                    number += 1
            await asyncio.sleep(INTERVAL_S)

    async def pause(self) -> None:
        """Publishes nothing more, and waits for what is under way."""
        self._paused = True
        async with self._publishing:
            pass

    def go_on(self) -> None:
        self._paused = False

    async def publish(self, body: str, number: int, content_type: str = "application/json") -> None:
        """As often as it takes: the server may be away."""
        fields = {"Content_Type": content_type, "Idempotency_Key": f"n{number}"}
        while True:
            try:
                await asyncio.to_thread(self.server.publish, CHANNEL, body, **fields)
            except (OSError, HTTPException):
                await asyncio.sleep(0.1)
                continue
            self.number = max(self.number, number)
            return

    async def until_received(self, goal: object, patience_s: float) -> None:
        """Waits for a number, or a later one, or for anything else that is received."""

        def is_there() -> bool:
            return self.last >= goal if isinstance(goal, int) else goal in self.received

        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(is_there), patience_s)
            except TimeoutError:
                shown = repr(goal)[:60]
                raise AssertionError(
                    f"{shown} did not arrive within {patience_s:g} s; the last were {str(self.received[-3:])[:300]}; "
                    f"exit code {self.process.returncode}; {self.errors()}"
                ) from None


@asynccontextmanager
async def staged(program: Program, options: tuple[str, ...], token_s: float) -> AsyncIterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="pushcompat-client-") as folder:
        stage = Stage(program, Path(folder), options, token_s)
        await stage.serve()
        await stage.connect()
        await stage.start()
        try:
            yield stage
        finally:
            await stage.end()
