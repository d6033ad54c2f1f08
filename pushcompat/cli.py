"""The command line: ``pushcompat`` serves, ``pushcompat publish`` and ``pushcompat listen`` talk to a server.

User errors print one line on stderr and exit with code 2. Commands import what they need when they run, so that
``--help`` and the clients start at once.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from . import logs, place
from .build import VERSION
from .channel_tables import rules_from
from .client.dial import Endpoint
from .command_options import (
    HOOK_ADD,
    HOOK_LIST,
    KEY_ADD,
    KEYS,
    LISTEN,
    PUBLISH,
    REVOKE,
    TOKEN,
    ignored_variables,
    read_server_config,
)
from .config import Config
from .errors import ConfigError
from .hook_tables import hooks_from
from .key_tables import keys_from
from .options import CHECK, SERVE, SERVER
from .settings import Groups, Setting, environment_name, limits_from, platform_of, tables, tokens_from, visible_secrets
from .state import KEY_FILE, default_state_dir, load_or_create_key, read_key, read_token, stored_key
from .wire.names import NAME

if TYPE_CHECKING:
    from .client.keys import Keys

_ARGUMENTS = "pushcompat.arguments"  # key in click's context for a command's arguments
_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


def main() -> NoReturn:
    """Runs the command that ``sys.argv`` names, and exits with its code."""
    try:
        sys.exit(pushcompat.main(prog_name="pushcompat", standalone_mode=False))
    except click.Abort:
        sys.exit(130)  # the exit code of a program that Ctrl-C ended
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "pushcompat"
        if isinstance(error, click.NoSuchOption) and error.option_name == "--check":
            _print_error("No such option '--check'. Use the command: pushcompat check")
            sys.exit(2)
        _print_error(f"{error.format_message().rstrip('.')}. See {command.removesuffix(' serve')} --help.")
    except click.ClickException as error:
        _print_error(error.format_message())
    except ConfigError as error:
        _print_error(str(error))
    sys.exit(2)


def _print_error(text: str) -> None:
    line, worker = " ".join(text.split()), place.find()
    if worker is None:
        print(f"pushcompat: {logs.escaped(line)}", file=sys.stderr)
    else:
        place.fail(worker, line)


class Commands(click.Group):
    """A command group that runs ``serve`` if no command is named, and shows its options."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if ctx.resilient_parsing and not args:
            return super().parse_args(ctx, args)  # of a shell, which completes a command
        if not args or (args[0].startswith("-") and args[0] not in ("-h", "--help", "--version")):
            args = ["serve", *args]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["[OPTIONS]", "|", "COMMAND …"]

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        options = serve.shell_complete(click.Context(serve, parent=ctx), incomplete)
        return list({item.value: item for item in [*super().shell_complete(ctx, incomplete), *options]}.values())

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        serve.format_options(ctx, formatter)


class Grouped(click.Command):
    """A command whose ``--help`` shows its options under headings."""

    def __init__(self, *args: Any, groups: Groups, **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.params = [*self.params, *(setting for settings in groups.values() for setting in settings)]
        self.groups = groups

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, settings in self.groups.items():
            with formatter.section(heading):
                formatter.write_dl([record for setting in settings if (record := setting.get_help_record(ctx))])


@click.group(cls=Commands, invoke_without_command=True, context_settings=_HELP)
@click.version_option(VERSION, message="%(prog)s %(version)s")
@click.pass_context
def pushcompat(ctx: click.Context) -> None:
    """Push server for web pages: WebSocket, Server-Sent Events and long-polling on one log.

    Without a command, starts the server. Every option below can also be set as PUSHCOMPAT_<OPTION> in the environment
    (PUSHCOMPAT_REQUEST_CAP=30) or in the file that --config names. Precedence: flag, environment, file, --platform,
    default.
    """
    if ctx.invoked_subcommand != "serve":  # the server handles them, and ``__main__`` has blocked them until then
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])


@pushcompat.command(cls=Grouped, groups=SERVE)
@click.pass_context
def serve(ctx: click.Context, /, **values: Any) -> None:
    """Run the server (the default command)."""
    worker = place.find()
    logs.configure(values["log_format"], values["log_level"], worker=None if worker is None else worker.number)
    try:
        if worker is None:  # or each of them would log the same
            for name, detail in ignored_variables(ctx).items():
                logs.event(logs.Event.VARIABLE_IGNORED, logging.WARNING, name=name, detail=detail)
        if values["print_config"]:
            _print_config(ctx)
        else:
            _run(ctx)
    finally:
        logs.close()


def _run(ctx: click.Context) -> None:
    config = _configuration(ctx)
    from .server import run

    run(config, lambda: _configured_again(ctx))


def _configuration(
    ctx: click.Context, stored_key: Callable[[Path], tuple[str, Path | None]] = load_or_create_key
) -> Config:
    values = {name: value for name, value in ctx.params.items() if not name.startswith(("case_", "print_"))}
    values["limits"] = limits_from(values)
    values["hooks"] = hooks_from(tables(ctx, "hook"))
    values["keys"] = keys_from(tables(ctx, "key"))
    values["visible_secrets"] = visible_secrets(ctx)
    values["tokens"] = tokens_from(values)
    values["rules"] = rules_from(
        tables(ctx, "channel"),
        values.pop("publish"),
        values.pop("subscribe"),
        tokens=values["tokens"].given,
        asks=values.get("authorize_url") is not None,
    )
    values["state_dir"] = values["state_dir"] or default_state_dir()
    values["publish_key"], values["publish_key_file"] = _named_key(ctx) or stored_key(values["state_dir"])
    return Config(**values)


def _print_config(ctx: click.Context) -> None:
    """Raises ConfigError if the server would not start with it."""
    from .effective import lines

    config = _configuration(ctx, stored_key)
    values = {
        "platform": platform_of(ctx),
        "state_dir": config.state_dir,
        "subscribe": config.rules.default.subscribe.value,
    }
    head = f"# pushcompat {VERSION}. Tables, like [[channel]], are not shown: see pushcompat check"
    click.echo("\n".join([head, *lines(ctx, SERVER, values)]))


def _configured_again(ctx: click.Context) -> tuple[Config, set[str]]:
    """The configuration of the same arguments, with the files as they are now, and the options that have changed."""
    try:
        now = ctx.command.make_context(ctx.info_name, list(ctx.meta[_ARGUMENTS]), parent=ctx.parent)
    except click.ClickException as error:
        raise ConfigError(error.format_message().rstrip(".")) from error
    known = [option for option in ctx.command.params if isinstance(option, Setting) and option.name in ctx.params]
    changed = {option.flag for option in known if now.params[option.name] != ctx.params[option.name]}
    return _configuration(now), changed


@pushcompat.command(cls=Grouped, groups=CHECK)
@click.pass_context
def check(ctx: click.Context, /, case_channel: str | None, case_token: Path | None, **values: Any) -> int:
    """Show what is open to whom with the configuration as it is, and what is dangerous about it.

    Takes the options of the server, starts nothing and writes nothing. With --channel, explains what applies to that
    channel; with --token too, whether that token suffices to subscribe to it.

    \b
    Exit codes: 0  nothing dangerous; with --token: the token suffices
                1  warnings; with --token: the token does not suffice
                2  the server would refuse to start with this configuration
    """
    from .check.check import report, report_case

    config = _configuration(ctx, stored_key)
    _warn_of_variables(ctx)
    if case_channel is None:
        if case_token is not None:
            raise click.UsageError("--token needs --channel, the channel to explain", ctx)
        lines, code = report(config)
    else:
        lines, code = report_case(config, *_case(case_channel, case_token))
    click.echo("\n".join(lines))
    return code


def _case(channel: str, file: Path | None) -> tuple[str, str | None]:
    """The channel and the token. Raises BadParameter, ConfigError."""
    if not NAME.fullmatch(channel):
        raise click.BadParameter(f"{channel!r} is not a valid channel name.", param_hint="--channel")
    if file is None:
        return channel, None
    return channel, read_token(Path("/dev/stdin") if str(file) == "-" else file)


@pushcompat.command(cls=Grouped, groups=PUBLISH)
@click.argument("channel")
@click.argument("data", required=False)
@click.pass_context
def publish(ctx: click.Context, /, channel: str, data: str | None, is_json: bool, **values: Any) -> int:
    """Publish DATA to CHANNEL, or to each of CHANNEL,CHANNEL…

    DATA is text, or JSON with --json. If DATA is missing or "-", it is read from standard input (missing: only if stdin
    is a pipe or a file). Empty data publishes the bare signal UPDATED; in scripts, pass '' for it.

    Prints the server's JSON response on one line. Exit codes: 0 published, 1 refused by the server or server
    unreachable, 2 wrong usage.
    """
    from .client import publisher
    from .client.credentials import find_endpoint

    body = _body(data, values["timeout"])
    try:
        published = publisher.publish(
            channel.split(","),
            publisher.JsonText(body.decode()) if is_json else body,
            message_key=values["key"],
            type=values["kind"],
            ttl=values["ttl"],
            idempotency_key=values["idempotency_key"],
            url=values["url"],
            key=_publisher_key(ctx, find_endpoint(values["url"])),
            timeout=values["timeout"],
        )
    except publisher.PublishError as error:
        _print_error(str(error).removesuffix(publisher.MESSAGE_KEY_HINT))
        return 1
    except ValueError as error:
        raise click.UsageError(str(error), ctx) from error
    _warn(ctx)
    counts = {name: {"subscribers": count} for name, count in published.channels.items()}
    click.echo(json.dumps({"id": published.id, "channels": counts}))
    return 0


@pushcompat.command(cls=Grouped, groups=LISTEN)
@click.argument("channels", metavar="CHANNEL…", nargs=-1, required=True)
@click.pass_context
def listen(ctx: click.Context, /, channels: tuple[str, ...], **values: Any) -> int:
    """Subscribe to channels: print each message as a line of JSON. Reconnects automatically.

    A line is a message, {"id": …, "channel": …, "data": …}, or a reset, which means that messages were lost and that
    state must be refetched: {"control": "reset", …}. Pass the id (or cursor) of the last line to --cursor to resume.

    \b
    Exit codes: 0  after --count messages, or after --timeout if no --count was given
                1  refused by the server, or --timeout expired before --count messages arrived or before a
                   connection was made
                2  wrong usage
    """
    from .client.credentials import find_endpoint
    from .client.listener import Listener, follow
    from .client.position import EARLIEST, Position
    from .client.transports import TRANSPORTS, ListenRefused, Subscription, Watchdog

    if values["earliest"] and values["cursor"]:
        raise click.UsageError("--cursor and --earliest are mutually exclusive", ctx)
    try:
        endpoint = find_endpoint(values["url"])
    except ValueError as error:
        raise click.UsageError(str(error), ctx) from error
    names = [name for argument in channels for name in argument.split(",")]
    position = Position(EARLIEST if values["earliest"] else values["cursor"] or "")
    timeout, transport = values["timeout"], values["transport"]
    watchdog = Watchdog(None if timeout is None else time.monotonic() + timeout)
    if values["token"] and values["token_file"]:
        raise click.UsageError("--token and --token-file are mutually exclusive", ctx)
    token = values["token"] if values["token_file"] is None else lambda: read_token(values["token_file"])
    subscription = Subscription(endpoint, names, watchdog, token, position)
    transports = list(TRANSPORTS) if transport == "auto" else [transport]
    listener = Listener(subscription, transports, _print_error if values["verbose"] else _ignore)
    _warn(ctx)
    try:
        return follow(listener, values["count"], sys.stdout.buffer)
    except ListenRefused as error:
        _print_error(str(error))
        return 1


@pushcompat.command(cls=Grouped, groups=TOKEN)
@click.pass_context
def token(ctx: click.Context, /, key: str | None, key_file: Path | None, **claims: Any) -> int:
    """Print a subscriber token (JWT), to try access control with.

    It is signed with the server's secret, or with the private key that belongs to the server's public one. Applications
    make their tokens themselves.
    """
    from .access.issuing import issue

    if not (key or key_file):
        raise click.UsageError("no key: give --token-key-file, or set PUSHCOMPAT_TOKEN_KEY", ctx)
    click.echo(issue(key_file or key or "", **claims))
    return 0


@pushcompat.command(cls=Grouped, groups=REVOKE)
@click.pass_context
def revoke(ctx: click.Context, /, sub: str | None, jti: str | None, channel: str | None, **values: Any) -> int:
    """Refuse subscribers whose tokens are still valid, and end their connections, in all processes of the server.

    Who matches all of --sub, --jti and --channel that are given is refused. Needs the server's root key, its publish
    key. Exit codes: 0 revoked, 1 refused by the server or server unreachable, 2 wrong usage.
    """
    if not (sub or jti or channel):
        raise click.UsageError("name whom to revoke: --sub, --jti, --channel, or several of these", ctx)
    target = {"sub": sub, "jti": jti, "channel": channel, "expires": values["expires_s"]}
    return _administrate(ctx, lambda server: server.revoke(**target))


@pushcompat.group()
def keys() -> None:
    """Keys that may publish to some channels. These commands need the server's root key, its publish key.

    Exit codes: 0 done, 1 refused by the server or server unreachable, 2 wrong usage.
    """


@keys.command("add", cls=Grouped, groups=KEY_ADD)
@click.argument("name")
@click.pass_context
def add_key(ctx: click.Context, /, name: str, channels: tuple[str, ...], **values: Any) -> int:
    """Add the key NAME, and print it: it is not shown again. All processes of the server accept it at once."""

    def run(server: Keys) -> None:
        key = server.add(name, channels)
        click.echo(logs.escaped(key["key"]))  # alone on stdout, for scripts
        click.echo("\n".join(map(logs.escaped, server.how_to_use(key))), err=True)

    return _administrate(ctx, run)


@keys.command("list", cls=Grouped, groups=KEYS)
@click.pass_context
def list_keys(ctx: click.Context, /, **values: Any) -> int:
    """List the keys: name, public part, channels, and since when there is such a key."""
    return _administrate(ctx, lambda server: click.echo("\n".join(map(logs.escaped, server.table()))))


@keys.command("revoke", cls=Grouped, groups=KEYS)
@click.argument("name")
@click.pass_context
def revoke_key(ctx: click.Context, /, name: str, **values: Any) -> int:
    """Revoke the key NAME. It is invalid at once, in all processes of the server."""
    return _administrate(ctx, lambda server: server.remove(name))


def _administrate(ctx: click.Context, run: Callable[[Keys], None]) -> int:
    from .client.administration import AdministrationError
    from .client.credentials import find_endpoint
    from .client.keys import Keys

    url = ctx.params["url"]
    try:
        run(Keys(url, _publisher_key(ctx, find_endpoint(url)), ctx.params["timeout"]))
    except AdministrationError as error:
        _print_error(str(error))
        return 1
    except ValueError as error:
        raise click.UsageError(str(error), ctx) from error
    return 0


@pushcompat.group()
def hooks() -> None:
    """Webhooks of others that the server receives."""


@hooks.command(cls=Grouped, groups=HOOK_ADD)
@click.argument("name")
@click.pass_context
def add(ctx: click.Context, /, name: str, path: Path | None, url: str | None, **values: Any) -> None:
    """Add the webhook /hooks/NAME, and print what to enter at its sender.

    It is appended to the file that --config names; without it, it is printed. The server applies it when it is
    restarted, or gets SIGHUP.
    """
    from .hook_files import NewHook

    options, others = read_server_config(path) if path is not None and path.exists() else ({}, [])
    values["channels"] = list(values["channels"])
    if values["secrets_file"] is not None:
        values["secrets_file"] = str(values["secrets_file"].absolute())
    given = {key.replace("_", "-"): value for key, value in {"name": name, **values}.items()}
    new = NewHook(path or Path("pushcompat.toml"), given, [table for table in others if table.kind == "hook"])
    notes = new.notes(url or f"https://YOUR-SERVER{options.get('prefix', '')}")
    if path is None:
        click.echo(new.table() + "\n".join([f"# {note}" for note in notes]))
        return
    warning = new.append()
    click.echo("\n".join([*notes, f"Added to {path}. It is applied when the server is restarted, or gets SIGHUP."]))
    if warning:
        _print_error(warning)


@hooks.command("list", cls=Grouped, groups=HOOK_LIST)
@click.pass_context
def list_hooks(ctx: click.Context, /, path: Path | None) -> None:
    """List the webhooks in the file that --config names."""
    from .hook_files import described

    if path is None:
        raise click.UsageError("no configuration: give --config, or set PUSHCOMPAT_CONFIG", ctx)
    _, found = read_server_config(path)
    for hook in hooks_from([table for table in found if table.kind == "hook"]):
        click.echo(described(hook))


def _warn(ctx: click.Context) -> None:
    """Of variables with typing errors, and of secrets that other users see."""
    _warn_of_variables(ctx)
    for option in visible_secrets(ctx):
        _print_error(f"--{option} is visible to other users in the list of processes: set {environment_name(option)}")


def _warn_of_variables(ctx: click.Context) -> None:
    for name, detail in ignored_variables(ctx).items():
        _print_error(f"{name} is ignored: {detail}")


def _ignore(text: str) -> None:
    pass


def _body(data: str | None, timeout_s: float) -> bytes:
    """Of a publish, by its argument. Raises ConfigError."""
    if data is None:
        return _piped(timeout_s)
    if data == "-":
        return b"" if sys.stdin is None else sys.stdin.buffer.read()
    return os.fsencode(data)


def _piped(timeout_s: float) -> bytes:
    """Standard input, if it is a pipe or a file: a terminal would block. Raises ConfigError: a pipe is open for longer
    than that, as CI runners and supervisors leave it.
    """
    if sys.stdin is None:
        return b""
    descriptor = sys.stdin.fileno()
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode)):
        return b""
    deadline, read = time.monotonic() + timeout_s, bytearray()
    while select.select([descriptor], [], [], max(0, deadline - time.monotonic()))[0]:
        part = os.read(descriptor, 65536)
        if not part:
            return bytes(read)
        read += part
    raise ConfigError(
        f"standard input has not ended within {timeout_s:g} s; give the data as an argument, '' for the signal, or - to"
        " wait for it"
    )


def _publisher_key(ctx: click.Context, endpoint: Endpoint) -> str | None:
    """The key given explicitly or stored in --state-dir. None: use the client's own lookup."""
    if named := _named_key(ctx):
        return named[0]
    state_dir: Path | None = ctx.params["state_dir"]
    return read_key(state_dir / KEY_FILE) if state_dir is not None and endpoint.is_local else None


def _named_key(ctx: click.Context) -> tuple[str, Path | None] | None:
    """The configured key, and the file it was read from. Precedence: flag, environment, file."""
    key, file = ctx.params["publish_key"], ctx.params["publish_key_file"]
    if key is not None and file:
        ranks = [_RANK[ctx.get_parameter_source(name)] for name in ("publish_key", "publish_key_file")]
        if ranks[0] == ranks[1]:
            raise ConfigError("--publish-key and --publish-key-file are mutually exclusive")
        key, file = (key, None) if ranks[0] < ranks[1] else (None, file)
    if file:
        return read_key(file), file
    return None if key is None else (key, None)


_RANK: dict[ParameterSource | None, int] = {
    ParameterSource.COMMANDLINE: 0,
    ParameterSource.ENVIRONMENT: 1,
    ParameterSource.DEFAULT_MAP: 2,
}
