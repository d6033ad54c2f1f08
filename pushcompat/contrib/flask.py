"""pushcompat in a Flask application. See docs/applications.md.

push = Push(app)

@app.post("/comments")
def add():
    db.session.add(Comment(request.form["text"]))
    push("chat")  # published when the request has ended without an exception
    db.session.commit()
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from typing import ParamSpec, TypeVar

from flask import Flask, current_app, g, has_request_context
from markupsafe import Markup

from ..errors import ConfigError
from .endings import EndOfRequest
from .messages import Message, fold, messages
from .options import Options, options
from .page import markup, page, token
from .recorder import Recorder, is_test, pytest_test
from .sending import send

_P = ParamSpec("_P")
_R = TypeVar("_R")
_PREFIX = "PUSHCOMPAT_"


class _State:
    """Of one application."""

    def __init__(self, app: Flask) -> None:
        self.options = _options(app)
        self._app = app
        self.outbox = Recorder(pytest_test)
        self.end_of_request = EndOfRequest(lambda seconds: self.options.publisher.flush(seconds), self.options.timeout)

    @property
    def only_recorded(self) -> bool:
        said = self.options.test_outbox
        return (self._app.testing or is_test()) if said is None else said

    def send(self, given: list[Message]) -> None:
        if self.only_recorded:
            self.outbox.record(fold(given))
        else:
            send(fold(given), self.options.publisher, self.options.mode)

    def cursor(self) -> str:
        return "" if self.only_recorded else self.options.cursors.now("")


class Push:
    """``Push(app)``, or ``Push()`` and later ``init_app``. The configuration is ``PUSHCOMPAT_URL``, ``PUSHCOMPAT_KEY``
    and the other names of ``Options``; ``PUSHCOMPAT_MODE`` is ``later``, ``request`` or ``now``.
    """

    def __init__(self, app: Flask | None = None) -> None:
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Raises ConfigError."""
        app.extensions["pushcompat"] = _State(app)
        app.teardown_request(_end)
        app.jinja_env.globals["pushcompat"] = self.script

    def __call__(
        self,
        channel: str | Iterable[str],
        data: object = None,
        *,
        message_key: str | None = None,
        type: str | None = None,
        ttl: float | None = None,
    ) -> None:
        """Publishes to a channel, or to each of several, when the request has ended without an exception; outside of a
        request at once. Arguments as for ``publish``.

        Raises TypeError or ValueError for what cannot be sent, and nothing because of the push server.
        """
        given = messages(channel, data, message_key=message_key, type=type, ttl=ttl)
        if has_request_context():
            g.setdefault("push_messages", []).extend(given)
        else:
            _state().send(given)

    def with_cursor(self, view: Callable[_P, _R]) -> Callable[_P, _R]:
        """Decorates a view: asks for the cursor of the log before the view reads its data. The page then subscribes
        from there, so that it misses nothing that happens between the query and its first connection.
        """

        @wraps(view)
        def asking(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            g.push_cursor = _state().cursor()
            return view(*args, **kwargs)

        return asking

    def script(self, *channels: str, sub: str | None = None, id: str = "pushcompat") -> Markup:
        """``{{ pushcompat("chat") }}``: the client's script, and a JSON document with that ``id``, for
        ``PushCompat.subscribe``. ``sub``: of the token. Check first that the user may see these channels.
        """
        given = _state().options
        cursor = g.get("push_cursor")
        data = page(
            given.page_url, channels, _state().cursor() if cursor is None else cursor, self.token(channels, sub)
        )
        return Markup(markup(given.page_url, data, id))

    def token(self, channels: Iterable[str], sub: str | None = None) -> str | None:
        """A subscriber token; None without PUSHCOMPAT_TOKEN_KEY and PUSHCOMPAT_TOKEN_KEY_FILE."""
        given = _state().options
        return token(given.token_key, given.token_key_file, given.token_ttl, list(channels), sub)

    @property
    def outbox(self) -> Recorder:
        """What was published while ``app.testing``, or under pytest: nothing reaches a server then."""
        return _state().outbox


def _options(app: Flask) -> Options:
    names = [name for name in app.config if name.startswith(_PREFIX)]
    given = options({name.removeprefix(_PREFIX): app.config[name] for name in names})
    if given.mode == "outbox":
        raise ConfigError("PUSHCOMPAT_MODE outbox is for Django; docs/applications.md has one for PostgreSQL")
    return given


def _state() -> _State:
    state: _State = current_app.extensions["pushcompat"]
    return state


def _end(exception: BaseException | None = None) -> None:
    given = g.pop("push_messages", [])
    state = _state()
    if given and exception is None:
        state.send(given)
    if state.options.mode == "request" and not state.only_recorded:
        state.end_of_request()
