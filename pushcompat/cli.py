"""The command line: ``pushcompat`` serves, ``pushcompat publish`` and ``pushcompat listen`` talk to a server.

What a user can get wrong ends in one line on stderr that says what to do, and exit code 2. What a command
needs is imported when it runs, so that ``--help`` and the clients start at once.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from . import __version__
from .config import Config
from .errors import ConfigError
from .options import SERVER, Setting, limits_from
from .state import default_state_dir, keep_key, read_key

_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def main() -> NoReturn:
    """Runs the command that ``sys.argv`` names, and exits with its code."""
    try:
        sys.exit(pushcompat.main(prog_name="pushcompat", standalone_mode=False))
    except click.Abort:
        sys.exit(130)  # what shells give a program that Ctrl-C ended
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "pushcompat"
        _complain(f"{error.format_message().rstrip('.')}. See {command.removesuffix(' serve')} --help.")
    except click.ClickException as error:
        _complain(error.format_message())
    except ConfigError as error:
        _complain(str(error))
    sys.exit(2)


def _complain(text: str) -> None:
    print(f"pushcompat: {' '.join(text.split())}", file=sys.stderr)


class Commands(click.Group):
    """A group whose options, and whose being called without a command, are those of ``serve``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ("-h", "--help", "--version")):
            args = ["serve", *args]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["[OPTIONS]", "|", "COMMAND …"]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        serve.format_options(ctx, formatter)


class Grouped(click.Command):
    """A command whose ``--help`` shows its options under headings."""

    def __init__(self, *args: Any, groups: Mapping[str, Sequence[Setting]], **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.params = [setting for settings in groups.values() for setting in settings]
        self.groups = groups

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, settings in self.groups.items():
            with formatter.section(heading):
                formatter.write_dl(
                    [record for setting in settings if (record := setting.get_help_record(ctx))]
                )


@click.group(cls=Commands, invoke_without_command=True, context_settings=_HELP)
@click.version_option(__version__, message="%(prog)s %(version)s")
def pushcompat() -> None:
    """Pushes updates to every page on every network: WebSocket, Server-Sent Events and long-poll behind one
    log.

    Without a command it serves. Each option below can also be set as PUSHCOMPAT_<OPTION> in the environment
    (PUSHCOMPAT_REQUEST_CAP=30) or in the file that --config names. A flag beats the environment, which beats
    the file, which beats --platform.
    """


@pushcompat.command(cls=Grouped, groups=SERVER)
@click.pass_context
def serve(ctx: click.Context, /, **values: Any) -> None:
    """Serve. This is what happens without a command, too."""
    values["limits"] = limits_from(values)
    values["state_dir"] = values["state_dir"] or default_state_dir()
    values["publish_key"], values["publish_key_file"] = _server_key(ctx, values["state_dir"])
    config = Config(**values)
    from .server import run

    run(config)


def _server_key(ctx: click.Context, state_dir: Path) -> tuple[str, Path | None]:
    return given_key(ctx) or keep_key(state_dir)


def given_key(ctx: click.Context) -> tuple[str, Path | None] | None:
    """The key that was named, and the file it was read from. Of two, the one named closer to the command
    counts.
    """
    key, file = ctx.params["publish_key"], ctx.params["publish_key_file"]
    if key is not None and file:
        key_rank, file_rank = (
            _RANK[ctx.get_parameter_source(name)] for name in ("publish_key", "publish_key_file")
        )
        if key_rank == file_rank:
            raise ConfigError("give --publish-key or --publish-key-file, not both")
        key, file = (key, None) if key_rank < file_rank else (None, file)
    if file:
        return read_key(file), file
    return None if key is None else (key, None)


_RANK: dict[ParameterSource | None, int] = {
    ParameterSource.COMMANDLINE: 0,
    ParameterSource.ENVIRONMENT: 1,
    ParameterSource.DEFAULT_MAP: 2,
}
