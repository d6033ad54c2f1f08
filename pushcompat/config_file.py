"""The configuration file: options by name, and tables, ``[[channel]]`` for example, that options cannot express.

``tomllib`` reads the file, but knows no lines, which the errors about tables name. A statement of TOML is a line, or
several: a string, or an array. It ends at the first line that makes it valid by itself, so the line of each statement
is found by parsing, without knowing the syntax of comments, strings and arrays.
"""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from .errors import ConfigError

KINDS = ("channel", "hook", "key")  # of tables


@dataclass(frozen=True, slots=True)
class Table:
    """One table, for example a ``[[channel]]``. ``values`` by key, with hyphens. ``line``: of its header; ``lines``:
    of its keys.
    """

    kind: str
    path: Path
    line: int
    values: Mapping[str, Any]
    lines: Mapping[str, int] = field(default_factory=dict)

    def error(self, detail: str, key: str = "") -> ConfigError:
        """The error about the table, or about the value of that key."""
        return ConfigError(f"{self.path} line {self.lines.get(key, self.line)}: {detail}")

    def check_keys(self, known: Collection[str]) -> None:
        """Raises ConfigError."""
        for key in self.values:
            if key not in known:
                advice = _did_you_mean(key, known) or f"it may have {', '.join(known)}"
                raise self.error(f"unknown key {key!r} in [[{self.kind}]]; {advice}", key)


def read_config(
    path: Path, options: Collection[str], switches: Collection[str] = (), lists: Collection[str] = ()
) -> tuple[dict[str, str | list[str]], Sequence[Table]]:
    """The file's settings by option name, and its tables. ``switches`` are boolean options, ``lists`` those with
    several values. Raises ConfigError.
    """
    try:
        text = path.read_text("utf-8-sig")  # editors of Windows begin a file with a byte order mark
        document = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"cannot read --config {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path} is not valid TOML: {error}") from error
    found = _tables(document, text, path)
    settings: dict[str, str | list[str]] = {}
    for key, value in document.items():
        if key in KINDS:
            continue
        name = _option_name(key, options, text, path)
        if name in settings:
            raise ConfigError(f"{path}: {name} is given twice")
        if isinstance(value, list) and name not in {*lists, *switches}:
            raise ConfigError(f"{path}: {name} takes one value, not a list")
        values = [value] if name in lists and not isinstance(value, list) else value
        settings[name] = (_switch if name in switches else _scalar)(key, values, path)
    return settings, found


# Options


def _option_name(key: str, options: Collection[str], text: str, path: Path) -> str:
    name = key.replace("_", "-")
    if name in options:
        return name
    advice = _did_you_mean(name, options, KINDS) or "see --help for all options"
    line = next((line for line, _, statement in _statements(text) if key in statement), 1)
    raise ConfigError(f"{path} line {line}: unknown option {key!r}; {advice}")


def _did_you_mean(name: str, known: Collection[str], kinds: Collection[str] = ()) -> str:
    """``kinds``: of tables, where one may be meant."""
    for close in get_close_matches(name, [*known, *kinds], 1):
        return f"did you mean {f'[[{close}]]' if close in kinds else close}?"
    return ""


def _scalar(key: str, value: object, path: Path) -> str | list[str]:
    values = value if isinstance(value, list) else [value]
    if all(isinstance(item, str | int | float) and not isinstance(item, bool) for item in values):
        return [str(item) for item in values] if isinstance(value, list) else str(value)
    raise ConfigError(f"{path}: {key} must be a string or a number")


def _switch(key: str, value: object, path: Path) -> str:
    if isinstance(value, bool):
        return str(value)
    raise ConfigError(f"{path}: {key} must be true or false")


# Tables


def _tables(document: Mapping[str, Any], text: str, path: Path) -> list[Table]:
    present = [kind for kind in KINDS if kind in document]
    if not present:
        return []
    found = []
    lines = _lines(text)
    for kind in present:
        tables = document[kind]
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise ConfigError(f"{path} line {lines[kind][0][0]}: write each {kind} as a table of its own: [[{kind}]]")
        for table, (line, of_keys) in zip(tables, lines[kind], strict=True):
            found.append(_table(Table(kind, path, line, table, of_keys)))
    return found


def _table(given: Table) -> Table:
    """With the names of its keys as options have them."""
    values: dict[str, Any] = {}
    for key, value in given.values.items():
        name = key.replace("_", "-")
        if name in values:
            raise given.error(f"{name} is given twice", key)
        values[name] = value
    lines = {key.replace("_", "-"): line for key, line in given.lines.items()}
    return Table(given.kind, given.path, given.line, values, lines)


_Lines = tuple[int, dict[str, int]]  # of a table: its first line, and that of each key


def _lines(text: str) -> dict[str, list[_Lines]]:
    """The lines of the tables of each kind, in their order."""
    found: dict[str, list[_Lines]] = {kind: [] for kind in KINDS}
    keys: dict[str, int] | None = None  # of the table that the statements are in; None: they are options
    begun = False
    for line, is_header, statement in _statements(text):
        [(name, value)] = statement.items()
        if is_header:
            begun, keys = True, None
        if keys is not None:
            keys.setdefault(name, line)
        elif name in found and (is_header or not begun):
            if isinstance(value, dict) and found[name]:  # a table in a table
                found[name][-1][1].setdefault(next(iter(value)), line)
                continue
            tables = value if isinstance(value, list) else [value]
            found[name] += [(line, {}) for _ in tables]  # several in one statement share its line
            if is_header:
                keys = found[name][-1][1]
    return found


def _statements(text: str) -> Iterator[tuple[int, bool, dict[str, Any]]]:
    """The first line of each statement of a valid document, whether it is a header, and its value by itself."""
    lines, first = text.split("\n"), 0
    for end in range(1, len(lines) + 1):
        part = "\n".join(lines[first:end])
        try:
            statement = tomllib.loads(part)
        except tomllib.TOMLDecodeError:
            continue
        if statement:
            yield first + 1, part.lstrip().startswith("["), statement
        first = end
