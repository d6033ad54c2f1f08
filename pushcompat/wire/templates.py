"""Templates of what a hook publishes: ``order {order.id} is {action}``.

``{path}`` stands for a text, a number or a boolean of the request: names of members and indexes of lists, joined by
dots. ``{{`` and ``}}`` are braces. Nothing else has a meaning, and values are inserted as they are, so the result is
plain text: the page that shows it has to treat it as such.
"""

from __future__ import annotations

import re
from typing import Any

_PART = re.compile(r"\{\{|\}\}|\{([A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)\}|[^{}]+|(.)", re.DOTALL)


class Missing(Exception):
    """The request does not have what the template needs; the message names it."""


class Template:
    """Raises ValueError, with what to write instead."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._parts: list[str | tuple[str, ...]] = []
        for match in _PART.finditer(text):
            if match[2]:
                raise ValueError(
                    f"template {text[:60]!r}: {match[2]} at character {match.start() + 1} does not belong to a field"
                    " like {order.id}; write {{ or }} for a brace"
                )
            self._parts.append(
                tuple(match[1].split(".")) if match[1] else match[0].replace("{{", "{").replace("}}", "}")
            )

    def render(self, document: object) -> str:
        """Raises Missing."""
        return "".join([part if isinstance(part, str) else _text(part, document) for part in self._parts])


def _text(path: tuple[str, ...], document: object) -> str:
    value: Any = document
    for name in path:
        if isinstance(value, dict):
            value = value.get(name)
        elif isinstance(value, list) and name.isdecimal() and len(name) < 9 and int(name) < len(value):
            value = value[int(name)]
        else:
            value = None
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        raise Missing(f"no text, number or boolean at {{{'.'.join(path)}}}")
    return value
