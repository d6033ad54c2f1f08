"""A worker process and its parent (``supervisor``): what they say to each other, and the worker's end of it.

A worker is the server itself, started by the parent with the same arguments. It inherits the listening sockets of all
workers and a socket to its parent, a ``Place`` in its environment says which is which, and so it reads configuration
and code anew: what a rolling restart is for. Messages are lines of JSON. A parent may be older than its workers, so
what one end does not know it ignores.

The parent's end of that socket closes when the parent dies, however it does: the workers then stop.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping

import msgspec

from .config import Config
from .errors import ConfigError
from .metrics import Figures
from .place import Place

_LONGEST_LINE_BYTES = 4 * 1024 * 1024
_FIGURES_S = 2.0  # the parent waits for 1 s for the other workers
_SEND_S = 1.0


# From a worker


class Ready(msgspec.Struct, tag=True):
    """It accepts connections."""


class Failed(msgspec.Struct, tag=True):
    """It cannot be started as configured."""

    detail: str


class Closed(msgspec.Struct, tag=True):
    """It drains, and accepts no more."""


class Report(msgspec.Struct, tag=True):
    """The figures of this worker. ``asks``: it wants those of all."""

    figures: Figures
    asks: bool = False


# From the parent


class Ask(msgspec.Struct, tag=True):
    """Send a report."""


class Total(msgspec.Struct, tag=True):
    """The figures of all workers."""

    figures: Figures


class Accept(msgspec.Struct, tag=True):
    """Accept on the sockets of these workers."""

    numbers: list[int]


class Retire(msgspec.Struct, tag=True):
    """Your successor accepts: accept no more, send your subscribers to it, and end."""


Message = Ready | Failed | Closed | Report | Ask | Total | Accept | Retire
_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


def encoded(message: Message) -> bytes:
    return msgspec.json.encode(message) + b"\n"


def decoded(line: bytes) -> Message | None:
    """None: it is of another version."""
    try:
        return _decoder.decode(line)
    except msgspec.DecodeError:
        return None


# The worker's end


def settled(config: Config) -> dict[str, str]:
    """What cannot change while there are workers: the parent has bound it, or two of them would keep two logs."""
    return {
        "--host": config.host,
        "--port": str(config.port),
        "--unix-socket": str(config.unix_socket or ""),
        "--store": config.store,
        "--state-dir": str(config.state_dir),
    }


def check(config: Config, before: Mapping[str, str]) -> None:
    """Raises ConfigError where it differs in what is settled."""
    for option, value in settled(config).items():
        if before.get(option, value) != value:
            raise ConfigError(f"{option} cannot change while the server runs: restart it")


class Line:
    """The worker's end. ``on_message`` gets what the parent says; None: it is gone."""

    def __init__(self, place: Place, on_message: Callable[[Message | None], None]) -> None:
        self._socket = socket.socket(fileno=place.line)
        self._on_message = on_message
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self._total: asyncio.Future[Figures] | None = None

    async def open(self) -> None:
        reader, self._writer = await asyncio.open_unix_connection(sock=self._socket, limit=_LONGEST_LINE_BYTES)
        self._task = asyncio.create_task(self._read(reader))

    def say(self, message: Message) -> None:
        assert self._writer is not None
        self._writer.write(encoded(message))

    async def total(self, own: Figures) -> Figures | None:
        """The figures of all workers. None: the parent does not answer in time."""
        assert self._writer is not None
        if self._writer.transport.get_write_buffer_size():
            return None  # it does not even read
        if self._total is None:
            self._total = asyncio.get_running_loop().create_future()
            self.say(Report(own, asks=True))
        try:
            return await asyncio.wait_for(asyncio.shield(self._total), _FIGURES_S)
        except TimeoutError:
            self._total = None
            return None

    async def close(self) -> None:
        """Sends what was said."""
        if self._task is not None:
            self._task.cancel()
        if self._writer is not None:
            try:
                await asyncio.wait_for(self._writer.drain(), _SEND_S)
            except (OSError, TimeoutError):
                pass
            self._writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while line := await reader.readline():
                message = decoded(line)
                if isinstance(message, Total):
                    self._take_total(message)
                elif message is not None:
                    self._on_message(message)
        except (OSError, ValueError):
            pass
        self._on_message(None)

    def _take_total(self, message: Total) -> None:
        if self._total is not None and not self._total.done():
            self._total.set_result(message.figures)
        self._total = None
