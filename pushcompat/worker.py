"""The messages between a worker process and its parent (``supervisor``), and the worker's end of the connection.

A worker is the server itself, started by the parent with the same arguments. It reads configuration and code
again, which a rolling restart needs. It inherits the listening sockets of all workers and a socket to its parent; a
``Place`` in its environment identifies them. Messages are lines of JSON. A parent may be older than its workers, so
both ends ignore unknown messages.

The parent's end of that socket closes when the parent dies, for any reason: the workers then stop.
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
    """The worker accepts connections."""


class Failed(msgspec.Struct, tag=True):
    """The worker cannot be started with this configuration."""

    detail: str


class Closed(msgspec.Struct, tag=True):
    """The worker drains, and has stopped accepting."""


class Report(msgspec.Struct, tag=True):
    """The figures of this worker. ``asks``: it requests those of all workers."""

    figures: Figures
    asks: bool = False


# From the parent


class Ask(msgspec.Struct, tag=True):
    """Requests a report."""


class Total(msgspec.Struct, tag=True):
    """The figures of all workers."""

    figures: Figures


class Accept(msgspec.Struct, tag=True):
    """Accept on the sockets of these workers."""

    numbers: list[int]


class Retire(msgspec.Struct, tag=True):
    """The successor accepts: stop accepting, rotate the subscribers to it, and exit."""


Message = Ready | Failed | Closed | Report | Ask | Total | Accept | Retire
_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


def encoded(message: Message) -> bytes:
    return msgspec.json.encode(message) + b"\n"


def decoded(line: bytes) -> Message | None:
    """None: the message is of another version."""
    try:
        return _decoder.decode(line)
    except msgspec.DecodeError:
        return None


# The worker's end


def settled(config: Config) -> dict[str, str]:
    """Options that cannot change while workers run: the parent has bound the sockets, and all workers must share one
    log.
    """
    return {
        "--host": config.host,
        "--port": str(config.port),
        "--unix-socket": str(config.unix_socket or ""),
        "--admin-listen": str(config.admin_listen or ""),
        "--store": config.store,
        "--state-dir": str(config.state_dir),
    }


def check(config: Config, before: Mapping[str, str]) -> None:
    """Raises ConfigError if one of these options has changed."""
    for option, value in settled(config).items():
        if before.get(option, "") != value:
            raise ConfigError(f"{option} cannot change while the server runs: restart it")


class Line:
    """The worker's end. ``on_message`` gets the parent's messages; None: the parent has ended."""

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
        """The figures of all workers. None: the parent did not answer in time."""
        assert self._writer is not None
        if self._writer.transport.get_write_buffer_size():
            return None  # the parent does not read
        if self._total is None:
            self._total = asyncio.get_running_loop().create_future()
            self.say(Report(own, asks=True))
        try:
            return await asyncio.wait_for(asyncio.shield(self._total), _FIGURES_S)
        except TimeoutError:
            self._total = None
            return None

    async def close(self) -> None:
        """Sends pending messages."""
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
