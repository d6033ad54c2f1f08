"""The parent of several workers: it binds the sockets, starts and replaces the workers, and handles no requests itself.

    start       one worker for each number from 1; the server is announced when all of them accept
    a worker    another worker accepts on its sockets at once, while a new one is started; a start that fails is
    has ended   repeated after 0.1 s, and after twice as long each time, up to 5 s
    SIGHUP      one number after the other: a successor is started, on the same sockets. When it accepts, the old
                worker stops accepting, tells its subscribers to reconnect, and ends. The first successor that
                cannot be started ends this: the other workers stay as they are
    SIGTERM,    all workers drain at the same time. A second one kills them
    SIGINT
    kill -9     of the parent: the workers read EOF from their line to it, and drain

A worker is a new process, so that it reads configuration and code again, and shares no descriptor that SQLite has
opened (SQLite does not support fork). The sockets are open from before the first worker until after the last one:
closing the last copy of a socket resets the connections in its queue.

If a worker does not answer for 3 s, another one accepts in its place, as if it had ended; after 30 s it is killed and
replaced, since its subscribers get nothing while it hangs. So is one that does not accept within 60 s of its start:
while the server starts, this ends the server.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import NoReturn

from . import exposure, listening, logs, systemd
from .config import Config
from .errors import ConfigError
from .logs import Event
from .metrics import Figures, counted, merged
from .place import Place
from .worker import Accept, Closed, Failed, Message, Ready, Report, Retire, Total, settled
from .worker_process import WorkerProcess

_RETRY_S = (0.1, 5.0)
_STEADY_S = 10.0  # a worker that lasted this long has started successfully
_MAX_FAILURES = 3  # of one worker, before any has served requests
_START_S = 60.0  # until a new worker accepts
_STOP_S = 10.0  # beyond the drain
_ASK_S = 2.0  # between two checks of a worker
_ABSENT_S = 3.0  # without an answer, until another worker accepts in its place
_SILENCE_S = 30.0  # without an answer, until it is killed
_FIGURES_S = 1.0  # how long to wait for workers that do not answer
_READ_BYTES = 64 * 1024


class _Slot:
    """One worker's number: the worker that serves, or is being started."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.worker: WorkerProcess | None = None
        self.failures = 0
        self.start_at = 0.0

    @property
    def serving(self) -> bool:
        return self.worker is not None and self.worker.ready and self.worker.silent_s < _ABSENT_S


class _Question:
    """A worker's request for the figures of all workers."""

    def __init__(self, asker: WorkerProcess, waited_for: Iterable[WorkerProcess]) -> None:
        self.asker = asker
        self.waited_for = set(waited_for)
        self.ends_at = time.monotonic() + _FIGURES_S


class Supervisor:
    def __init__(self, config: Config) -> None:
        _fill_standard_streams()
        self._config = config
        self._systemd = systemd.Notifier()
        given = systemd.take_sockets()
        self._given = bool(given)
        self._sockets = [listening.adopt(given)] * config.workers if given else listening.bind(config)
        self._admin = listening.bind_admin(config)
        self._own_sockets = len({id(group) for group in self._sockets}) > 1  # each worker has its own
        self._slots = [_Slot(number) for number in range(1, config.workers + 1)]
        self._workers: set[WorkerProcess] = set()  # all that are running
        self._selector = selectors.DefaultSelector()
        self._announced = False
        self._stopping = False
        self._closed: set[int] = set()  # numbers of workers that stopped accepting during shutdown
        self._exit_code = 0
        self._refusal: ConfigError | None = None
        # A rolling restart
        self._to_roll: deque[_Slot] = deque()
        self._successor: WorkerProcess | None = None
        self._leaving: WorkerProcess | None = None
        self._covering: dict[int, WorkerProcess] = {}  # the worker that accepts for a number without one
        # Figures
        self._questions: list[_Question] = []
        self._gone: Figures = {}  # of workers that have ended
        self._replaced = 0
        self._alive_at = 0.0

    def run(self) -> int:
        """Returns the exit code. Raises ConfigError if the workers cannot be started as configured."""
        signals = self._receive_signals()
        self._look()
        while self._workers or not self._stopping:
            for key, events in self._selector.select(self._timeout_s()):
                key.data(events)
            self._reap()
            self._look()
        signals.close()
        listening.remove_paths(self._config, self._given)
        if self._refusal is not None:
            raise self._refusal
        return self._exit_code

    # Signals

    def _receive_signals(self) -> socket.socket:
        """Signals become bytes on a socket, which the loop reads."""
        incoming, outgoing = socket.socketpair()
        for sock in (incoming, outgoing):
            sock.setblocking(False)
        signal.set_wakeup_fd(outgoing.detach(), warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda _number, _frame: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP])  # which ``__main__`` has blocked

        def received(_events: int) -> None:
            for number in incoming.recv(_READ_BYTES):
                if number in (signal.SIGINT, signal.SIGTERM):
                    self._stop(number)
                elif number == signal.SIGHUP:
                    self._roll()

        self._selector.register(incoming, selectors.EVENT_READ, received)
        return incoming

    def _stop(self, number: int) -> None:
        if self._stopping:
            self._kill_all(number)
        self._end_all()

    def _end_all(self) -> None:
        self._stopping = True
        self._systemd.stopping()
        self._to_roll.clear()
        for worker in self._workers:
            self._end(worker)

    def _end(self, worker: WorkerProcess) -> None:
        worker.process.terminate()
        worker.dies_at = time.monotonic() + self._config.limits.drain_s + _STOP_S

    def _close_sockets_of(self, worker: WorkerProcess) -> None:
        """During shutdown new connections go to a worker that still accepts, or are refused, instead of waiting in a
        queue.

        The other workers have copies of the sockets, so closing ours would not do.
        """
        succeeded = any(other.number == worker.number for other in self._workers if other is not worker)
        if not self._stopping or self._given or succeeded:
            return
        self._closed.add(worker.number)
        sockets = self._sockets[worker.number - 1]
        if all(group is not sockets or number in self._closed for number, group in enumerate(self._sockets, 1)):
            _refuse_connections(sockets)
        if len(self._closed) == len(self._slots):
            _refuse_connections(self._admin)

    def _kill_all(self, number: int) -> NoReturn:
        """The second signal: exit immediately."""
        for worker in self._workers:
            worker.process.kill()
        os._exit(128 + number)

    # Workers start and end

    def _start(self, slot: _Slot) -> WorkerProcess | None:
        def place(line: int) -> Place:
            sockets = [[sock.fileno() for sock in group] for group in self._sockets]
            admin = [sock.fileno() for sock in self._admin]
            return Place(slot.number, line, sockets, settled(self._config), admin)

        try:
            worker = WorkerProcess(slot.number, place, self._selector, self._heard)
        except OSError as error:  # no memory, no descriptor, or no process may be added
            self._failed_to_start(slot, error)
            return None
        worker.dies_at = worker.started + _START_S
        self._workers.add(worker)
        logs.event(Event.WORKER_STARTED, worker=worker.number, pid=worker.process.pid)
        return worker

    def _failed_to_start(self, slot: _Slot, error: OSError) -> None:
        slot.start_at = time.monotonic() + _RETRY_S[1]
        if self._announced:
            logs.event(Event.WORKER_FAILED, logging.ERROR, worker=slot.number, detail=error.strerror)
        elif not self._stopping:
            self._refusal = ConfigError(f"--workers {self._config.workers}: cannot start a process: {error.strerror}")
            self._end_all()

    def _reap(self) -> None:
        for worker in [worker for worker in self._workers if worker.process.poll() is not None]:
            worker.close()
            self._workers.remove(worker)
            self._gone = merged([self._gone, counted(worker.figures)])
            self._ended(worker)

    def _ended(self, worker: WorkerProcess) -> None:
        slot = self._slots[worker.number - 1]
        code = worker.process.returncode
        planned = worker is self._leaving or self._stopping
        level = logging.INFO if planned and code == 0 else logging.WARNING
        logs.event(Event.WORKER_ENDED, level, worker=worker.number, pid=worker.process.pid, code=code)
        for question in self._questions:
            question.waited_for.discard(worker)
        if worker is self._leaving:
            self._leaving = None
        elif worker is self._successor:
            self._successor = None
            self._give_up_rolling(worker)
        elif slot.worker is worker:
            slot.worker = None
            self._lost(slot, worker)
        self._close_sockets_of(worker)
        if self._stopping and worker.ready and code != 0:
            self._exit_code = 1

    def _lost(self, slot: _Slot, worker: WorkerProcess) -> None:
        """A worker ended unexpectedly."""
        if self._stopping:
            return
        if worker.ready:
            self._replaced += 1
        if self._successor is not None and self._successor.number == slot.number:
            slot.worker, self._successor = self._successor, None
            return
        now = time.monotonic()
        slot.failures = 0 if worker.ready and now - worker.started >= _STEADY_S else slot.failures + 1
        first, longest = _RETRY_S
        slot.start_at = now + (min(longest, first * 2 ** (slot.failures - 1)) if slot.failures > 1 else 0)
        if self._announced:
            if worker.failure is not None:
                logs.event(Event.WORKER_FAILED, logging.ERROR, worker=worker.number, detail=worker.failure)
        elif worker.failure is not None or slot.failures >= _MAX_FAILURES:
            self._refusal = None if worker.failure is None else ConfigError(worker.failure)
            self._exit_code = 1
            self._end_all()

    # A rolling restart

    def _roll(self) -> None:
        if self._stopping:
            return
        logs.event(Event.RELOAD, detail="replacing the workers one by one")
        self._to_roll = deque(self._slots)  # from the beginning, if a roll is in progress
        for slot in self._slots:
            slot.start_at = 0.0

    def _continue_rolling(self) -> None:
        if self._successor is not None or self._leaving is not None:
            return
        while self._to_roll:
            slot = self._to_roll[0]
            if slot.worker is not None and not slot.worker.ready:
                return  # it is new already: continue when it is ready
            self._to_roll.popleft()
            if slot.worker is not None:
                self._successor = self._start(slot)
                if self._successor is None:
                    self._to_roll.clear()
                return

    def _give_up_rolling(self, successor: WorkerProcess) -> None:
        if self._stopping:
            return
        self._to_roll.clear()
        detail = successor.failure or "its successor ended before accepting connections"
        logs.event(
            Event.WORKER_FAILED,
            logging.ERROR,
            worker=successor.number,
            detail=f"{detail}; the worker continues unchanged",
        )

    # Messages of workers

    def _heard(self, worker: WorkerProcess, message: Message) -> None:
        worker.heard_at = time.monotonic()
        match message:
            case Ready():
                self._take_over(worker)
            case Failed(detail):
                worker.failure = detail
            case Closed():
                self._close_sockets_of(worker)
            case Report(figures, asks):
                worker.figures = figures
                if asks:
                    self._question(worker)
                    return
                worker.asked_at = None
                for question in self._questions:
                    question.waited_for.discard(worker)

    def _take_over(self, worker: WorkerProcess) -> None:
        slot = self._slots[worker.number - 1]
        worker.ready = True
        worker.dies_at = None
        if worker is self._successor:
            self._leaving, slot.worker, self._successor = slot.worker, worker, None
            if self._leaving is not None:
                self._leaving.dies_at = time.monotonic() + self._config.limits.drain_s + _STOP_S
                self._leaving.say(Retire())
        if self._stopping:
            self._end(worker)

    def _question(self, asker: WorkerProcess) -> None:
        others = [worker for worker in self._workers if worker.ready and worker is not asker]
        for worker in others:
            worker.ask()
        self._questions.append(_Question(asker, others))

    def _answer(self, question: _Question) -> None:
        ready = [worker for worker in self._workers if worker.ready]
        own: Figures = {
            "workers": len(ready),
            "workers_silent": len(question.waited_for),
            "workers_replaced": self._replaced,
        }
        question.asker.say(Total(merged([self._gone, *(worker.figures for worker in ready), own])))

    # Timers

    def _look(self) -> None:
        now = time.monotonic()
        for worker in self._workers:
            self._look_at(worker, now)
        if not self._stopping:
            self._continue_rolling()
            for slot in self._slots:
                if slot.worker is None and slot.start_at <= now:
                    slot.worker = self._start(slot)
            if self._own_sockets:
                self._cover()
            if not self._announced and all(slot.serving for slot in self._slots):
                self._announced = True
                listening.announce(self._config, self._sockets[0], self._admin)
                exposure.warn(self._config)
                self._systemd.ready()
        for question in [q for q in self._questions if not q.waited_for or q.ends_at <= now]:
            self._questions.remove(question)
            self._answer(question)
        if self._systemd.watchdog_s is not None and now - self._alive_at >= self._systemd.watchdog_s:
            self._systemd.alive()
            self._alive_at = now

    def _look_at(self, worker: WorkerProcess, now: float) -> None:
        if worker.dies_at is not None:
            if worker.dies_at <= now:
                if not worker.ready and not self._stopping:
                    worker.failure = (
                        worker.failure or f"the new worker did not accept connections within {_START_S:.0f} s"
                    )
                worker.process.kill()
        elif worker.ready and worker.silent_s >= _SILENCE_S:
            logs.event(Event.WORKER_STUCK, logging.ERROR, worker=worker.number, pid=worker.process.pid)
            worker.process.kill()
        elif worker.ready and now - worker.heard_at >= _ASK_S:
            worker.ask()

    def _cover(self) -> None:
        """Makes another worker accept for each number without one, so that no connection waits for the new worker."""
        serving = [slot.worker for slot in self._slots if slot.worker is not None and slot.serving]
        before = set(self._covering.items())
        self._covering = {
            number: worker for number, worker in before if worker in serving and not self._slots[number - 1].serving
        }
        for slot in self._slots:
            if not slot.serving and slot.number not in self._covering and serving and self._announced:
                loads = list(self._covering.values())
                self._covering[slot.number] = min(serving, key=loads.count)
        for worker in {worker for _, worker in before ^ set(self._covering.items()) if worker in serving}:
            numbers = [number for number, covering in self._covering.items() if covering is worker]
            worker.say(Accept([worker.number, *numbers]))

    def _timeout_s(self) -> float:
        """The time until the next timer."""
        times = [time.monotonic() + 1.0]
        times += [question.ends_at for question in self._questions]
        times += [slot.start_at for slot in self._slots if slot.worker is None and not self._stopping]
        if self._systemd.watchdog_s is not None:
            times.append(self._alive_at + self._systemd.watchdog_s)
        return max(0.0, min(times) - time.monotonic())


def _refuse_connections(sockets: Iterable[socket.socket]) -> None:
    for sock in sockets:
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def _fill_standard_streams() -> None:
    """If one is closed, a socket would get its number, which is a worker's standard input."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
