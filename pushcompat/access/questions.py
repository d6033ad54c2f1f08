"""Questions to the application, whether a subscriber may follow channels, and its answers.

Each question is asked once: requests that would ask the same while it is asked wait for the same answer, and the answer
is kept for as long as it says, refusals for ``_REFUSED_S``. An error is not kept: it says nothing about the subscriber.
At most ``at_once`` questions are asked at the same time, the others wait in their order; those that nobody waits for
any longer are not asked.

What a question is about is told by the fields that are sent with it: another cookie is another question. Answers are
kept under a digest, since a cookie may have 16 KiB.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import NamedTuple, Protocol

from ..errors import RequestError, Unavailable
from .patterns import Pattern

_REFUSED_S = 2  # a client that is refused asks its user; one that does not back off costs a question in 2 s
_SHORTEST_S = 2  # of an answer: ticks are whole seconds
_MOST_KEPT = 10_000
_MOST_WAITING = 1000
_RETRY_S = 5


class Question(NamedTuple):
    """``fields`` of the subscriber's request, by name, and the ``channels`` that only the application can allow."""

    channels: tuple[str, ...]
    fields: tuple[tuple[str, str], ...]

    @property
    def key(self) -> bytes:
        lines = [",".join(self.channels), *(f"{name}: {value}" for name, value in self.fields)]
        return sha256("\n".join(lines).encode("latin-1", "replace")).digest()


class Answer(NamedTuple):
    """``channels``: what is allowed; None: all that was asked for. ``expires_s``: None: the default."""

    channels: tuple[Pattern, ...] | None = None
    sub: str = ""
    expires_s: float | None = None


Outcome = Answer | RequestError
OnAnswer = Callable[[Question, Outcome], None]


class Application(Protocol):
    def ask(self, question: Question, on_answer: OnAnswer) -> None:
        """Calls ``on_answer`` once, later: with Unauthorized or Forbidden if the application refuses, with Unavailable
        if there is no valid answer.
        """


class Waiter(Protocol):
    """A request that waits for an answer."""

    @property
    def waits(self) -> bool:
        """False: its client has disconnected."""

    def answered(self, refused: RequestError | None) -> None:
        """Now the answer is known, unless there was an error."""


class Verdict:
    """An answer that is kept. ``until``: the tick from which it is not; ``issued_at``: Unix seconds of the question."""

    __slots__ = ("_channels", "_refused", "issued_at", "sub", "until")

    def __init__(self, outcome: Outcome, until: int, issued_at: float) -> None:
        self._refused = outcome if isinstance(outcome, RequestError) else None
        answer = Answer() if isinstance(outcome, RequestError) else outcome
        self._channels = answer.channels
        self.sub = answer.sub
        self.until = until
        self.issued_at = issued_at

    def check(self) -> None:
        """Raises Unauthorized or Forbidden if the application has refused."""
        if self._refused is not None:
            raise type(self._refused)(self._refused.detail)

    def covers(self, name: str) -> bool:
        return self._channels is None or any(pattern.matches_for(name, self.sub) for pattern in self._channels)


class _Asked:
    __slots__ = ("again", "issued_at", "question", "waiters")

    def __init__(self, question: Question) -> None:
        self.question = question
        self.waiters: list[Waiter] = []
        self.issued_at = 0.0
        self.again = False  # somebody was revoked since it was asked


class Questions:
    """``at_once``: questions at the same time. ``ttl_s``: how long an answer is kept that does not say; ``most_s``: at
    most.
    """

    def __init__(
        self,
        application: Application,
        at_once: int,
        ttl_s: float,
        most_s: float,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._application = application
        self._at_once = at_once
        self._ttl_s = ttl_s
        self._most_s = most_s
        self._monotonic = monotonic
        self._wall = wall
        self._verdicts: OrderedDict[bytes, Verdict] = OrderedDict()
        self._asked: dict[bytes, _Asked] = {}
        self._waiting: OrderedDict[bytes, _Asked] = OrderedDict()

    def find(self, question: Question) -> Verdict | None:
        """The verdict that is kept, if any."""
        if not self._verdicts:
            return None
        key = question.key
        verdict = self._verdicts.get(key)
        if verdict is not None and verdict.until <= self._monotonic():
            del self._verdicts[key]
            return None
        return verdict

    def ask_soon(self, question: Question) -> None:
        """The verdict is kept no longer than a refusal: its subscriber was refused for another reason."""
        verdict = self._verdicts.get(question.key)
        if verdict is not None:
            verdict.until = min(verdict.until, int(self._monotonic()) + _REFUSED_S)

    def ask(self, question: Question, waiter: Waiter) -> None:
        """``waiter`` is told when the verdict is known. Raises Unavailable if too many questions wait."""
        key = question.key
        asked = self._asked.get(key) or self._waiting.get(key)
        if asked is None:
            asked = _Asked(question)
            if len(self._asked) < self._at_once:
                self._start(key, asked)
            elif len(self._waiting) < _MOST_WAITING:
                self._waiting[key] = asked
            else:
                raise Unavailable("too many subscribers wait for the application; try again later", _RETRY_S)
        asked.waiters.append(waiter)

    def forget(self, sub: str) -> None:
        """Asks again about this subscriber, and those without a name; if it is empty, about all. An answer that is on
        its way may be about it.
        """
        for key in [key for key, verdict in self._verdicts.items() if not sub or verdict.sub in ("", sub)]:
            del self._verdicts[key]
        for asked in self._asked.values():
            asked.again = True

    def _start(self, key: bytes, asked: _Asked) -> None:
        asked.issued_at = self._wall()
        asked.again = False
        self._asked[key] = asked
        self._application.ask(asked.question, self._answered)

    def _answered(self, question: Question, outcome: Outcome) -> None:
        key = question.key
        asked = self._asked.pop(key)
        if asked.again and any(waiter.waits for waiter in asked.waiters):
            self._start(key, asked)
            return
        if not isinstance(outcome, Unavailable) and not asked.again:
            self._keep(key, Verdict(outcome, self._until(outcome), asked.issued_at))
        self._start_next()
        refused = outcome if isinstance(outcome, Unavailable) else None
        for waiter in asked.waiters:
            if waiter.waits:
                waiter.answered(refused)

    def _start_next(self) -> None:
        while self._waiting and len(self._asked) < self._at_once:
            key, asked = self._waiting.popitem(last=False)
            if any(waiter.waits for waiter in asked.waiters):
                self._start(key, asked)

    def _until(self, outcome: Outcome) -> int:
        if isinstance(outcome, RequestError):
            return int(self._monotonic()) + _REFUSED_S
        seconds = self._ttl_s if outcome.expires_s is None else min(outcome.expires_s, self._most_s)
        return int(self._monotonic() + max(seconds, _SHORTEST_S))

    def _keep(self, key: bytes, verdict: Verdict) -> None:
        if len(self._verdicts) >= _MOST_KEPT:
            self._verdicts.popitem(last=False)
        self._verdicts[key] = verdict
