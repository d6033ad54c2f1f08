"""The current problems of the log, for ``health`` and for the log lines when they begin and end."""

from __future__ import annotations

import logging

from ... import logs
from ...logs import Event


class Problems:
    """One sentence for each part with a problem. ``server`` is the URL without passwords."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._by_part: dict[str, str] = {}

    @property
    def first(self) -> str | None:
        return next(iter(self._by_part.values()), None)

    def note(self, part: str, error: BaseException | str) -> str:
        """Returns the sentence."""
        detail = str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
        sentence = f"{self._server}: {detail}"
        if not self._by_part:
            logs.event(Event.LOG_TROUBLE, logging.WARNING, detail=sentence)
        self._by_part[part] = sentence
        return sentence

    def clear(self, part: str) -> None:
        if self._by_part.pop(part, None) is not None and not self._by_part:
            logs.event(Event.LOG_WORKS, logging.WARNING)
