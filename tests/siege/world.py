"""One siege: good subscribers alone, then beside hostile clients; then the judgement."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from base64 import urlsafe_b64encode
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pushcompat.bounds import memory_bound
from pushcompat.limits import Limits

from ..harness import CERTIFICATE, KEY, PATIENCE_S, client_tls
from ..soak.cluster import Node
from .good import channels

RATE = 20.0  # publishes a second
MAX_CONNECTIONS = 17_000
_PROCESSES = 4  # of hostile clients
_SETTLE_S = 3.0
_OPEN_S = 60.0
_FLOOD = b"f" * 1024


@dataclass
class Outcome:
    calm: dict[str, Any] = field(default_factory=dict)
    siege: dict[str, Any] = field(default_factory=dict)
    held: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    memory_bytes: int = 0  # the largest that was seen
    bound_bytes: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.problems


class World:
    """``pause_s``: between two actions of a hostile client."""

    def __init__(
        self, folder: Path, good: int, hostile: int, seconds: float, pause_s: float, *, tls: bool = False
    ) -> None:
        self._tls = client_tls() if tls else None
        self._words = ["tls"] if tls else []
        self._options = ["--tls-cert", str(CERTIFICATE)] if tls else []
        self._pause_s = pause_s
        self._folder = folder
        self._good = good
        self._hostile = hostile
        self._seconds = seconds
        self._memory_bytes = 0

    async def run(self) -> Outcome:
        outcome = Outcome()
        async with AsyncExitStack() as stack:
            node, token = await self._start(stack)
            good = await self._process(stack, "good", node.port, self._good, token, *self._words)
            await self._opened(good)
            publishing = asyncio.create_task(self._publish(node))
            stack.push_async_callback(_cancelled, publishing)
            await self._pass(node, self._seconds / 3)
            outcome.calm = await _asked(good)
            per_process = self._hostile // _PROCESSES
            hostile = [
                await self._process(
                    stack, "hostile", node.port, per_process, number, self._pause_s, _wrong_token(), *self._words
                )
                for number in range(_PROCESSES)
            ]
            await self._pass(node, self._hostile / 1600 + _SETTLE_S)  # until all have connected
            await _asked(good)
            await self._pass(node, self._seconds)
            outcome.siege = await _asked(good)
            for process in hostile:
                told, _ = await asyncio.wait_for(process.communicate(b""), PATIENCE_S * 3)
                found = json.loads(told)
                for name in ("held", "done", "refused"):
                    getattr(outcome, name).update(found[name])
            publishing.cancel()
            await asyncio.sleep(_SETTLE_S)
            last = await _asked(good)
            outcome.memory_bytes = self._memory_bytes
            bound = memory_bound(Limits(max_connections=MAX_CONNECTIONS), tls=self._tls is not None)
            outcome.bound_bytes = round(sum(bound.values()))
            await node.stop()
            outcome.problems = [*_problems(outcome, last, self._good), *node.complaints]
        return outcome

    async def _start(self, stack: AsyncExitStack) -> tuple[Node, str]:
        secret = secrets.token_urlsafe(48)
        public = ec.generate_private_key(ec.SECP521R1()).public_key()
        pem = self._folder / "es512.pem"
        pem.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        (self._folder / "hs256.secret").write_text(secret)
        hook_secret = secrets.token_hex(32)
        webhook_secret = "whsec_" + urlsafe_b64encode(b"s" * 33).decode()
        config = self._folder / "push.toml"
        secret_file = self._folder / "hs256.secret"
        config.write_text(
            _CONFIG.format(pem=pem, secret=secret_file, hook=hook_secret, webhook=webhook_secret, most=MAX_CONNECTIONS)
        )
        node = Node(self._folder / "node", ["--config", str(config), *self._options])
        await node.start()
        stack.push_async_callback(node.stop)
        claims = {"sub": "good", "channels": ["member.*"], "exp": int(time.time()) + 3600}
        return node, jwt.encode(claims, secret, "HS256")

    async def _process(self, stack: AsyncExitStack, name: str, *arguments: object) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", f"tests.siege.{name}", *map(str, arguments),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2],
            limit=1 << 24,
        )  # fmt: skip
        stack.push_async_callback(_ended, process)
        return process

    async def _opened(self, good: asyncio.subprocess.Process) -> None:
        async with asyncio.timeout(_OPEN_S):
            while (told := await _asked(good))["open"] < self._good:
                assert not told["lost"], told["lost"]
                await asyncio.sleep(0.2)

    async def _publish(self, node: Node) -> None:
        """To each channel in turn, and to the one that the hostile clients do not read."""
        reader, writer = await asyncio.open_connection(*node.address, ssl=self._tls)
        names = channels()
        number, began = 0, time.monotonic()
        try:
            while True:
                stamp = repr(time.monotonic()).encode()
                for channel, body in ((names[number % len(names)], stamp), ("flood", _FLOOD)):
                    head = f"POST /channels/{channel} HTTP/1.1\r\nHost: siege\r\nAuthorization: Bearer {KEY}\r\n"
                    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
                    answer = await reader.readuntil(b"}\n")
                    assert answer.startswith(b"HTTP/1.1 200"), answer
                number += 1
                await asyncio.sleep(max(0.0, began + number / RATE - time.monotonic()))
        finally:
            writer.close()

    async def _pass(self, node: Node, seconds: float) -> None:
        """Lets the time pass, and looks at the server's memory."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await asyncio.sleep(min(0.5, max(0.0, until - time.monotonic())))
            for usage in node.usage().values():
                self._memory_bytes = max(self._memory_bytes, usage.memory_bytes)


_CONFIG = """
store = "memory:"
trusted-proxies = ["none"]
max-connections = {most}
max-connections-per-address = 200
token-key-file = ["{pem}", "{secret}"]
subscribe = "open"

[[channel]]
pattern = "member.*"
subscribe = "token"

[[hook]]
name = "siege"
channels = ["flood"]
verify = "github"
secrets = ["{hook}"]

[[key]]
name = "signer"
channels = ["*"]
webhook-secrets = ["{webhook}"]
"""


def _wrong_token() -> str:
    """Of no key that the server has."""
    key = ec.generate_private_key(ec.SECP521R1())
    return jwt.encode({"sub": "nobody"}, key, "ES512")


def _problems(outcome: Outcome, last: dict[str, Any], good: int) -> list[str]:
    problems = [f"{times} lost: {how}" for how, times in last["lost"].items()]
    if last["open"] != good:
        problems.append(f"{good - last['open']} were never open")
    if not outcome.siege["delivered"]:
        problems.append("nothing was delivered")
    if outcome.memory_bytes > outcome.bound_bytes:
        problems.append(f"{outcome.memory_bytes:,} bytes of memory are more than the bound")
    for channel, counts in last["counts"].items():
        if len(counts) > 1:
            problems.append(f"subscribers of {channel} got {counts} messages")
    return problems


async def _asked(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"\n")
    told: dict[str, Any] = json.loads(await asyncio.wait_for(process.stdout.readline(), PATIENCE_S * 3))
    return told


async def _ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.communicate(b"")


async def _cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
