"""Kinds of options, and where their values come from: flag, environment, configuration file, platform, default.

Which options there are is in ``options`` and ``command_options``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from . import address, cores
from .access.token_settings import TokenSettings
from .address import Address
from .config_file import Table, read_config
from .environment import PREFIX, SERVICE_LINK
from .limits import Limits, Retention
from .platforms import PLATFORMS
from .units import COUNT, Unit

Groups = Mapping[str, Sequence["Setting"]]  # options by their heading in --help

_RETENTION = "retention_"  # prefix of the parameters for Retention's fields
_CONFIG_PATH = "pushcompat.config"  # key in click's context for the path of the file
_TABLES = "pushcompat.tables"  # for its tables
IGNORED = "pushcompat.ignored"  # for the names of ignored variables
_PLATFORM = "pushcompat.platform"  # for the name of the platform
_PRESET = "pushcompat.preset"  # and for what --platform sets: by parameter, the name of its source
NOT_IN_FILES = {"config", "print-config"}
PATH: dict[str, Any] = {"type": click.Path(path_type=Path), "metavar": "PATH"}
_WORKERS_PER_CORE = 16  # more would only use memory, and CPU time to start them


def environment_name(flag: str) -> str:
    return PREFIX + flag.upper().replace("-", "_")


class Setting(click.Option):
    """An option that ``PUSHCOMPAT_<FLAG>`` sets too, and whose error messages name the source of the value.

    ``envvar=None``: no environment variable. ``is_secret``: whether a value must not be in the list of processes.
    ``unit``: of a number.
    """

    def __init__(
        self,
        flag: str,
        help: str,
        *,
        param: str | None = None,
        is_secret: Callable[[str], bool] = lambda _: False,
        unit: Unit | None = None,
        **attributes: Any,
    ) -> None:
        declarations = [f"--{flag}", param] if param else [f"--{flag}"]
        attributes.setdefault("envvar", environment_name(flag))
        super().__init__(declarations, help=help, **attributes)
        self.flag = flag
        self.is_secret = is_secret
        self.unit = unit

    def source(self, ctx: click.Context) -> str:
        """Where the value comes from: the flag, the variable, the file, ``--platform NAME``, or ``default``."""
        kind = ctx.get_parameter_source(str(self.name))
        if kind is ParameterSource.DEFAULT_MAP:
            return str(ctx.meta.get(_PRESET, {}).get(self.name) or ctx.meta.get(_CONFIG_PATH))
        named = {ParameterSource.COMMANDLINE: f"--{self.flag}", ParameterSource.ENVIRONMENT: str(self.envvar)}
        return named.get(kind, "default") if kind else "default"

    def get_error_hint(self, ctx: click.Context | None) -> str:
        source = ctx.get_parameter_source(self.name) if ctx and self.name else None
        if source is ParameterSource.ENVIRONMENT:
            return environment_name(self.flag)
        if source is ParameterSource.DEFAULT_MAP and ctx:
            where = self.source(ctx)
            return where if where.startswith("PORT") else f"{self.flag} in {where}"
        return f"--{self.flag}"

    def value_from_envvar(self, ctx: click.Context) -> Any:
        value = self.resolve_envvar_value(ctx)
        return value.replace(",", " ").split() if value and self.multiple else value


class PortSetting(Setting):
    """The port. If $PUSHCOMPAT_PORT is set by Kubernetes for a Service named ``pushcompat``, it is ignored."""

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        value = super().resolve_envvar_value(ctx)
        # Kubernetes sets NAME_PORT=tcp://10.0.0.1:8888 for a Service of that name, in each container of its namespace
        if value is None or not SERVICE_LINK.match(value):
            return value
        ctx.meta.setdefault(IGNORED, set()).add(environment_name(self.flag))
        return None


class EnvironmentSetting(Setting):
    """A secret, from the environment or the configuration file only: arguments are visible to other users in ps."""

    def __init__(self, flag: str, help: str, **attributes: Any) -> None:
        super().__init__(flag, help, hidden=True, **attributes)

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        if self.name and ctx.get_parameter_source(self.name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"--{self.flag} would be visible to other users in ps; set {environment_name(self.flag)}, or use"
                f" --{self.flag}-file"
            )
        return super().process_value(ctx, value)


def platform_of(ctx: click.Context) -> str | None:
    name: str | None = ctx.meta.get(_PLATFORM)
    return name


def visible_secrets(ctx: click.Context) -> tuple[str, ...]:
    """The options whose secret was given as an argument, so that other users of the machine see it."""
    given = [option for option in ctx.command.params if isinstance(option, Setting) and option.name in ctx.params]
    return tuple(
        option.flag
        for option in given
        if ctx.get_parameter_source(str(option.name)) is ParameterSource.COMMANDLINE
        and option.is_secret(str(ctx.params[str(option.name)]))
    )


def always(value: str) -> bool:
    return True


def has_password(url: str) -> bool:
    return "@" in url.partition("://")[2]


def tables(ctx: click.Context, kind: str) -> Sequence[Table]:
    """The tables of that kind in the configuration file."""
    return [table for table in ctx.meta.get(_TABLES, ()) if table.kind == kind]


def port_number(value: str | int) -> int:
    if str(value).isdecimal() and int(value) <= 65535:
        return int(value)
    raise click.BadParameter(f"{value!r} is not a valid port; expected 0 (any free port) to 65535.")


def file_mode(value: str | int) -> int:
    text = str(value)
    # A number in TOML may be octal, 0o660, and is decimal here: no such number has both rights of the owner.
    if not re.fullmatch("0?[0-7]{3}", text) or int(text, 8) & 0o600 != 0o600:
        raise click.BadParameter(f"{text!r} is not a valid mode; use three octal digits in quotes, 600 to 777.")
    return int(text, 8)


def address_of(value: str | Address) -> Address:
    try:
        return value if isinstance(value, Address) else address.parse(value)
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from None


def worker_count(value: str | int) -> int:
    usable = cores.usable()
    if value != "auto" and not str(value).isdecimal():
        raise click.BadParameter(f"{value!r} is not a valid count; expected a number of processes, or auto.")
    try:
        workers = usable if value == "auto" else int(COUNT.parse(value, 1))
    except ValueError as error:
        raise click.BadParameter(f"{error}.") from None
    if workers > _WORKERS_PER_CORE * usable:
        most = f"the maximum is {_WORKERS_PER_CORE * usable}, {_WORKERS_PER_CORE} for each usable core"
        raise click.BadParameter(f"{value} is too many; {most}.")
    return workers


def measure(flag: str, unit: Unit, default: Any, minimum: float, help: str, **attributes: Any) -> Setting:
    """An option that is a number with a unit. Without a default, ``none`` is a valid value too."""

    def convert(value: object) -> float | int | None:
        if value == "none" and default is None:
            return None
        try:
            return unit.parse(value, minimum)
        except ValueError as error:
            raise click.BadParameter(f"{error}.") from None

    shown = "none" if default is None else unit.format(default)
    return Setting(
        flag, f"{help} [default: {shown}]", type=convert, metavar=unit.metavar, default=default, unit=unit, **attributes
    )


def limit(flag: str, unit: Unit, param: str, minimum: float, help: str) -> Setting:
    """An option that sets one field of the limits, and has its default from there."""
    limits = Limits()
    owner = limits.retention if param.startswith(_RETENTION) else limits
    return measure(flag, unit, getattr(owner, param.removeprefix(_RETENTION)), minimum, help, param=param)


def limits_from(values: dict[str, Any]) -> Limits:
    """Takes the limits' parameters out of ``values``; a limit without an option keeps its default."""
    names = [field.name for field in fields(Retention) if _RETENTION + field.name in values]
    retention = {name: values.pop(_RETENTION + name) for name in names}
    own = {field.name: values.pop(field.name) for field in fields(Limits) if field.name in values}
    return Limits(**own, retention=Retention(**retention))


def tokens_from(values: dict[str, Any]) -> TokenSettings:
    """Takes the parameters of subscriber tokens out of ``values``."""
    names = [name for name in values if name.startswith("token_")]
    return TokenSettings(**{name.removeprefix("token_"): values.pop(name) for name in names})


def take_config(ctx: click.Context, param: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    ctx.meta[_CONFIG_PATH] = path
    known = [option for option in ctx.command.params if isinstance(option, Setting)]
    names = {option.flag: option.name for option in known}
    switches = {option.flag for option in known if option.is_flag}
    lists = {option.flag for option in known if option.multiple}
    settings, ctx.meta[_TABLES] = read_config(path, names.keys() - NOT_IN_FILES, switches, lists)
    found = {str(names[flag]): settings[flag] for flag in settings}
    ctx.default_map = {**(ctx.default_map or {}), **found}
    _forget_presets(ctx, found)


def take_platform(ctx: click.Context, param: click.Parameter, name: str | None) -> None:
    if name is None:
        return
    platform, port = PLATFORMS[name], os.environ.get("PORT")
    preset: dict[str, Any] = {"request_cap_s": platform.request_cap_s, "heartbeat_s": platform.heartbeat_s}
    sources = dict.fromkeys(preset, f"--platform {name}")
    if platform.sets_port and port:
        preset |= {"port": port, "host": "0.0.0.0"}
        sources |= dict.fromkeys(("port", "host"), f"PORT, --platform {name}")
    ctx.meta[_PRESET], ctx.meta[_PLATFORM] = sources, name
    found = ctx.default_map or {}
    ctx.default_map = {**preset, **found}  # the file overrides the preset, in either order
    _forget_presets(ctx, found)


def _forget_presets(ctx: click.Context, overridden: Mapping[str, Any]) -> None:
    for name in overridden:
        ctx.meta.get(_PRESET, {}).pop(name, None)
