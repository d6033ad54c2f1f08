"""An explicit-state explorer: every interleaving of a small model, breadth first, so that what it finds is shortest.

A design is held to its model before it is built, and stays held to it: a test explores the rule that was built, and the
rules that look as good and are not, whose counterexamples say why.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from typing import Generic, NamedTuple, Protocol, TypeVar

State = TypeVar("State", bound=Hashable)


class Model(Protocol[State]):
    def initial(self) -> State: ...

    def steps(self, state: State) -> Iterable[tuple[str, State]]:
        """What can happen next: a label, and the state after it."""

    def fault(self, state: State) -> str | None:
        """What is wrong in this state; nothing is explored behind it."""

    def is_complete(self, state: State) -> bool | None:
        """Everybody has everything. From each state some way must lead to such a one; None: the model has none."""


class Explored(NamedTuple, Generic[State]):
    """The number of states, whether these are all, and the shortest way to each kind of fault."""

    states: int
    whole: bool
    faults: dict[str, list[str]]


WAITS = "somebody waits for ever"


def explore(model: Model[State], limit: int = 1_000_000) -> Explored[State]:
    start = model.initial()
    came_from: dict[State, tuple[State, str] | None] = {start: None}
    before: dict[State, list[State]] = {}
    faults: dict[str, list[str]] = {}
    to_visit = deque([start])
    while to_visit and len(came_from) <= limit:
        state = to_visit.popleft()
        fault = model.fault(state)
        if fault is not None:
            faults.setdefault(fault, _way(came_from, state))
            continue
        for label, after in model.steps(state):
            before.setdefault(after, []).append(state)
            if after not in came_from:
                came_from[after] = state, label
                to_visit.append(after)
    whole = not to_visit
    stuck = _first_stuck(model, came_from, before) if whole else None
    if stuck is not None:
        faults[WAITS] = _way(came_from, stuck)
    return Explored(len(came_from), whole, faults)


def _first_stuck(
    model: Model[State], states: dict[State, tuple[State, str] | None], before: dict[State, list[State]]
) -> State | None:
    complete = [state for state in states if model.is_complete(state)]
    if not complete and model.is_complete(model.initial()) is None:
        return None
    good, to_visit = set(complete), complete
    while to_visit:
        for state in before.get(to_visit.pop(), ()):
            if state not in good:
                good.add(state)
                to_visit.append(state)
    return next((state for state in states if state not in good and model.fault(state) is None), None)


def _way(came_from: dict[State, tuple[State, str] | None], state: State) -> list[str]:
    labels = []
    while (step := came_from[state]) is not None:
        state, label = step
        labels.append(label)
    return labels[::-1]
