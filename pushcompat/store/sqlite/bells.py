"""Doorbells: a process that has committed rings, and the followers in other processes read immediately.

A follower's bell is a FIFO in a directory beside the log. A byte in it means "read"; a full one
is ringing already. FIFOs need no registration, have no limit on the length of their path as sockets do, and report
immediately if they have no reader: then the ringer removes them. A lost bell delays a follower by a quarter of a
second, but loses no message.
"""

from __future__ import annotations

import os
import secrets
import select
import time
from contextlib import suppress
from pathlib import Path

_HIDDEN = "."  # prefix of the name of a bell that is not ready yet
_SETTLED_NS = 1_000_000_000  # a directory's mtime is coarse: a later change may leave a recent one the same


class Bell:
    """A follower's bell. Raises OSError if the directory's file system has no FIFOs."""

    def __init__(self, directory: Path) -> None:
        self.name = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._path = directory / self.name
        hidden = directory / (_HIDDEN + self.name)
        os.mkfifo(hidden, 0o600)
        try:
            self._read_end = os.open(hidden, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            self._write_end = os.open(hidden, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            hidden.rename(self._path)  # ready: before, a ringer would find no reader, and remove it
        except OSError:
            hidden.unlink(missing_ok=True)
            raise

    def ring(self) -> None:
        with suppress(BlockingIOError):
            os.write(self._write_end, b"\0")

    def wait(self, seconds: float) -> None:
        """Returns when it has rung, or after that time."""
        if select.select([self._read_end], [], [], seconds)[0]:
            with suppress(BlockingIOError):
                os.read(self._read_end, 65536)

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._read_end)
        os.close(self._write_end)


class Bells:
    """All bells in the directory except this process's, for the thread that rings them."""

    def __init__(self, directory: Path) -> None:
        self.own: frozenset[str] = frozenset()  # names
        self._directory = str(directory)  # a Path would cost a tenth of a commit
        self._ends: dict[str, int] = {}
        self._listed_as_of_ns = 0

    def ring(self) -> None:
        with suppress(OSError):
            if os.stat(self._directory).st_mtime_ns > self._listed_as_of_ns - _SETTLED_NS:
                self._list()
        for name, end in tuple(self._ends.items()):
            try:
                os.write(end, b"\0")
            except BlockingIOError:
                pass  # it is full, so it rings
            except OSError:
                self._remove(name)

    def close(self) -> None:
        for end in self._ends.values():
            os.close(end)
        self._ends.clear()

    def _list(self) -> None:
        self._listed_as_of_ns = time.time_ns()
        names = {name for name in os.listdir(self._directory) if not name.startswith(_HIDDEN)} - self.own
        for name in self._ends.keys() - names:
            os.close(self._ends.pop(name))
        for name in names - self._ends.keys():
            try:
                self._ends[name] = os.open(f"{self._directory}/{name}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                self._remove(name)

    def _remove(self, name: str) -> None:
        """It has no reader: its process is dead."""
        end = self._ends.pop(name, None)
        if end is not None:
            os.close(end)
        with suppress(OSError):
            os.unlink(f"{self._directory}/{name}")
