"""One scenario: nodes under load while things are done to them, then the judgement."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from .clients import Publisher, Subscriber
from .cluster import Node, Usage
from .ledger import Ledger, Verdict

CHANNELS = [f"channel-{number}" for number in range(12)]
_STORM_EVERY_S = (2.0, 6.0)
_CATCH_UP_S = 60.0
_LEAVE_S = 15.0
_FEW_DESCRIPTORS = 4  # are opened when they are first needed, and stay: the doorbells of siblings
_WARM_UPS = 10
_SETTLE_S = 1.5  # what a process does once a second, it has done
_WARM_S = 10.0  # after which a process's memory and descriptors are what they should stay


class Engine(Protocol):
    """A database server that the nodes share."""

    async def start(self, folder: Path) -> None: ...

    @property
    def options(self) -> Sequence[str]:
        """What a node is started with."""

    @property
    def storms(self) -> Sequence[tuple[str, Callable[[], Awaitable[None]]]]:
        """What can be done to it, by name."""

    async def stop(self) -> None: ...


@dataclass(frozen=True)
class Scenario:
    """``loses``: the log, or its tail, may be lost, which must then be told."""

    name: str
    options: Sequence[str] = ()
    nodes: int = 1
    workers: int = 1
    loses: bool = False
    engine: Callable[[], Engine] | None = None


@dataclass
class Outcome:
    verdict: Verdict
    storms: dict[str, int] = field(default_factory=dict)
    connections: int = 0
    unanswered: int = 0
    problems: list[str] = field(default_factory=list)
    memory_growth: float = 1.0  # of the process that grew most
    descriptor_growth: int = 0

    @property
    def passed(self) -> bool:
        return not (self.verdict.faults or self.problems or self.descriptor_growth > _FEW_DESCRIPTORS)


class World:
    def __init__(self, scenario: Scenario, folder: Path, subscribers: int, publishers: int, rate: float) -> None:
        self._scenario = scenario
        self._folder = folder
        self._ledger = Ledger()
        self._engine = scenario.engine() if scenario.engine is not None else None
        self._nodes: list[Node] = []
        self._subscribers = [
            Subscriber(self._addresses, random.sample(CHANNELS, random.choice((1, 1, 3))), slow=number % 5 == 0)
            for number in range(subscribers)
        ]
        self._publishers = [
            Publisher(self._addresses, self._ledger, f"p{number}", CHANNELS, rate / publishers)
            for number in range(publishers)
        ]
        self._first: dict[int, tuple[float, Usage]] = {}
        self._warm: dict[int, Usage] = {}
        self._last: dict[int, Usage] = {}

    def _addresses(self) -> Sequence[tuple[str, int]]:
        return [node.address for node in self._nodes]

    async def run(self, seconds: float) -> Outcome:
        async with AsyncExitStack() as stack:
            await self._start(stack)
            await asyncio.wait_for(self._warm_up(), _CATCH_UP_S)
            idle = self._descriptors()
            following = [asyncio.ensure_future(subscriber.run()) for subscriber in self._subscribers]
            publishing = [asyncio.ensure_future(publisher.run()) for publisher in self._publishers]
            stack.push_async_callback(_cancel, [*following, *publishing])
            storms = await self._storm(seconds)
            for publisher in self._publishers:
                publisher.stop()
            await asyncio.wait_for(asyncio.gather(*publishing), _CATCH_UP_S)
            await self._catch_up()
            self._look()
            await _cancel(following)
            left = await self._descriptors_without_clients(idle)
        subscribers, publishers = self._subscribers, self._publishers
        failures = [s.failure for s in subscribers if s.failure is not None]
        growth = [(self._last[pid], warm) for pid, warm in self._warm.items()]
        return Outcome(
            self._ledger.judge([s.record for s in subscribers], loses=self._scenario.loses),
            storms,
            connections=sum(s.connections for s in subscribers),
            unanswered=sum(p.unanswered for p in publishers),
            problems=failures + [line for node in self._nodes for line in node.complaints],
            memory_growth=max([last.memory_bytes / warm.memory_bytes for last, warm in growth], default=1.0),
            descriptor_growth=left - idle,
        )

    async def _start(self, stack: AsyncExitStack) -> None:
        options = [*self._scenario.options, "--log-format", "text"]
        if self._engine is not None:
            await self._engine.start(self._folder)
            stack.push_async_callback(self._engine.stop)
            options += self._engine.options
        if self._scenario.workers > 1:
            options += ["--workers", str(self._scenario.workers)]
        for number in range(self._scenario.nodes):
            node = Node(self._folder / f"node-{number}", options)
            await node.start()
            stack.push_async_callback(node.stop)
            self._nodes.append(node)

    async def _warm_up(self) -> None:
        """What is opened at the first publish is open, in every process."""
        for number in range(_WARM_UPS):
            for node in self._nodes:
                publisher = Publisher(
                    lambda node=node: [node.address], Ledger(), f"warm-up-{number}-{node.port}", ["warm-up"], 1e6
                )
                publisher.stop_after(1)
                await publisher.run()
        await asyncio.sleep(_SETTLE_S)

    # Storms

    async def _storm(self, seconds: float) -> dict[str, int]:
        until = time.monotonic() + seconds
        done: dict[str, int] = {}
        choices = self._choices()
        while time.monotonic() < until:
            pause_s = min(random.uniform(*_STORM_EVERY_S), max(0.0, until - time.monotonic()))
            await asyncio.sleep(pause_s)
            self._look()
            name, act = random.choice(choices)
            done[name] = done.get(name, 0) + 1
            await act()
        return done

    def _choices(self) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
        choices: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            ("everybody reconnects", self._cut_everybody),
            ("a node stands still for 1 s", self._freeze),
            ("a node is killed", self._kill),
            ("a node is restarted", self._restart),
        ]
        if self._scenario.workers > 1:
            choices += [("a worker is killed", self._kill_worker), ("the workers are rolled", self._roll)]
        if self._engine is not None:
            choices += self._engine.storms
        return choices

    async def _cut_everybody(self) -> None:
        for subscriber in self._subscribers:
            subscriber.cut()

    async def _freeze(self) -> None:
        node = random.choice(self._nodes)
        pids = node.processes()
        node.signal_all(pids, signal.SIGSTOP)
        await asyncio.sleep(1.0)
        node.signal_all(pids, signal.SIGCONT)

    async def _kill(self) -> None:
        node = random.choice(self._nodes)
        await node.kill()
        await node.start()

    async def _restart(self) -> None:
        node = random.choice(self._nodes)
        await node.terminate()
        await node.start()

    async def _kill_worker(self) -> None:
        node = random.choice(self._nodes)
        workers = node.processes()[1:]
        if workers:
            node.signal_all([random.choice(workers)], signal.SIGKILL)

    async def _roll(self) -> None:
        random.choice(self._nodes).signal(signal.SIGHUP)

    # The end

    async def _catch_up(self) -> None:
        """Waits until everybody stands where the log ends, but not for ever: who does not is judged silent."""
        until = time.monotonic() + _CATCH_UP_S
        while time.monotonic() < until and not self._caught_up():
            await asyncio.sleep(0.1)

    def _caught_up(self) -> bool:
        return all(s.failure is not None or self._ledger.is_served(s.record) for s in self._subscribers)

    def _descriptors(self) -> int:
        return sum(usage.descriptors for node in self._nodes for usage in node.usage().values())

    async def _descriptors_without_clients(self, idle: int) -> int:
        """How many are open when those of the clients have had time to close."""
        until = time.monotonic() + _LEAVE_S
        while (left := self._descriptors()) > idle and time.monotonic() < until:
            await asyncio.sleep(0.1)
        return left

    def _look(self) -> None:
        """Notes what each process uses."""
        now = time.monotonic()
        for node in self._nodes:
            for pid, usage in node.usage().items():
                began, _ = self._first.setdefault(pid, (now, usage))
                if now - began >= _WARM_S:
                    self._warm.setdefault(pid, usage)
                self._last[pid] = usage


async def _cancel(tasks: Sequence[asyncio.Future[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
