"""The configuration in force, as ``--print-config`` prints it: a file for ``--config``, with the source of each value.

Secrets, and options that have no value, are comments.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import click

from .settings import NOT_IN_FILES, Groups, Setting, has_password


def lines(ctx: click.Context, groups: Groups, values: Mapping[str, Any]) -> Iterator[str]:
    """``values``: by parameter, those that are computed if nothing sets them."""
    for heading, settings in groups.items():
        shown = [setting for setting in settings if setting.flag not in NOT_IN_FILES]
        if shown:
            yield from ("", f"# {heading}", *(_line(ctx, setting, values) for setting in shown))


def _line(ctx: click.Context, setting: Setting, values: Mapping[str, Any]) -> str:
    name, source = str(setting.name), setting.source(ctx)
    value = ctx.params.get(name)
    if value is None and setting.unit is not None:
        return f'{setting.flag} = "none"  # {source}'
    if value is None or value == ():
        value = values.get(name)
    if value is None or value == ():
        return f"# {setting.flag}: none"
    if setting.hidden or setting.is_secret(str(value)) or has_password(str(value)):
        return f"# {setting.flag}: not shown  # {source}"
    return f"{setting.flag} = {_toml(setting, value)}  # {source}"


def _toml(setting: Setting, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(setting, item) for item in value)}]"
    if setting.unit is not None:
        text = setting.unit.format(value)
        return text if text.replace(".", "").isdecimal() else json.dumps(text)
    if setting.flag == "unix-socket-mode":
        return f'"{value:o}"'
    return str(value) if isinstance(value, int) else json.dumps(str(value))
