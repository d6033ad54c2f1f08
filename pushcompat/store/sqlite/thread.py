"""A thread that executes calls in order for the event loop.

Unlike threads of the standard library's executors it does not delay the exit of the process: a disk may never respond.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import TypeVar

_Result = TypeVar("_Result")


class Thread:
    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._ended = asyncio.Event()
        threading.Thread(target=self._run, name=f"pushcompat {name}", daemon=True).start()

    def put(self, work: Callable[[], None]) -> None:
        """``work`` must not raise."""
        self._queue.put(work)

    async def do(self, work: Callable[[], _Result]) -> _Result:
        """Returns what ``work`` returns or raises."""
        future: asyncio.Future[_Result] = self._loop.create_future()

        def done(result: _Result | None, error: BaseException | None) -> None:
            if future.cancelled():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)  # type: ignore[arg-type]

        def run() -> None:
            result, error = None, None
            try:
                result = work()
            except BaseException as raised:
                error = raised
            self.call(lambda: done(result, error))

        self._queue.put(run)
        return await future

    def call(self, back: Callable[[], None]) -> None:
        """Calls in the event loop, from the thread."""
        try:
            self._loop.call_soon_threadsafe(back)
        except RuntimeError:
            pass  # the loop is closed

    async def end(self) -> None:
        """Returns when all queued work is done."""
        self._queue.put(None)
        await self._ended.wait()

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            work()
        self.call(self._ended.set)
