"""A server of several worker processes."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from .harness import MS, PATIENCE_S, Client, Server


class Workers(Server):
    """Of two workers, which have the log in the state directory."""

    count: tuple[str, ...] = ("--workers", "2")

    def __init__(self, state_dir: Path, *options: str, env: dict[str, str] | None = None) -> None:
        super().__init__(state_dir, *self.count, *options, env=env)

    def pids(self) -> dict[int, int]:
        """The process of each worker, by its number: the last that was started."""
        self.wait_for(lambda: {1, 2} <= dict(self.started()).keys())  # their lines come in any order
        return dict(self.started())

    def wait_for_pids(self, count: int) -> None:
        """Until so many workers have been started in all."""
        self.wait_for(lambda: len(self.started()) >= count)

    def started(self) -> list[tuple[int, int]]:
        """The number and the process of each worker that was started, in this order."""
        found = [re.search(r" worker_started worker=(\d+) pid=(\d+)", line) for line in list(self.log)]
        return [(int(match[1]), int(match[2])) for match in found if match]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = threading.Event()
        timer = threading.Timer(PATIENCE_S, deadline.set)
        timer.start()
        try:
            while not condition():
                assert not deadline.wait(20 * MS), "\n".join(self.log[-20:])
        finally:
            timer.cancel()

    def roll(self) -> None:
        """SIGHUP; returns when each worker has been replaced, and those before have ended."""
        before = set(self.pids().values())
        self.process.send_signal(signal.SIGHUP)
        self.wait_for(lambda: not any(alive(pid) for pid in before))

    def subscribe(self, stack: ExitStack, channel: str, count: int) -> list[Client]:
        """So many WebSockets, over all workers as the kernel spreads them."""
        clients = [stack.enter_context(self.connect()) for _ in range(count)]
        for client in clients:
            assert client.upgrade(f"/channels/{channel}") == 101
        return clients


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
