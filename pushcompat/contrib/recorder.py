"""What tests of an application see instead of a push server."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import overload

from .messages import Message


class Recorder:
    """The messages that would have been published, in order. It is emptied when a new test begins:
    what ``test`` returns is another value then.
    """

    def __init__(self, test: Callable[[], object]) -> None:
        self._test = test
        self._of: object = None
        self._messages: list[Message] = []

    def record(self, messages: Iterable[Message]) -> None:
        self._current().extend(message.decoded() for message in messages)

    def clear(self) -> None:
        self._messages.clear()

    def _current(self) -> list[Message]:
        now = self._test()
        if now != self._of:
            self._of = now
            self._messages.clear()
        return self._messages

    def __len__(self) -> int:
        return len(self._current())

    def __iter__(self) -> Iterator[Message]:
        return iter(self._current())

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> list[Message]: ...
    def __getitem__(self, index: int | slice) -> Message | list[Message]:
        return self._current()[index]

    def __eq__(self, other: object) -> bool:
        return self._current() == list(other) if isinstance(other, Iterable) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(self._current())


def pytest_test() -> str:
    """The test that pytest runs, without its phase; empty without pytest."""
    return os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]


def is_test() -> bool:
    """Whether tests run: under pytest, also without its plugin for Django, or under Django's test runner."""
    if "PYTEST_VERSION" in os.environ or "PYTEST_CURRENT_TEST" in os.environ:
        return True
    utils = sys.modules.get("django.test.utils")
    return utils is not None and hasattr(utils._TestState, "saved_data")
