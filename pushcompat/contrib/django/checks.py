"""What ``manage.py check`` says about pushcompat; with ``--deploy`` also whether the server answers."""

from __future__ import annotations

from collections.abc import Iterator

from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured

from ...client.failures import PublishError
from ...errors import ConfigError
from ..options import Options
from ..page import token
from .conf import push_options


def check_settings(**_: object) -> list[CheckMessage]:
    return list(_settings())


def check_server(**_: object) -> list[CheckMessage]:
    try:
        push_options().publisher.cursor()
    except PublishError as error:
        hint = "Start it, and look at PUSHCOMPAT['URL'] and PUSHCOMPAT['KEY']."
        return [Warning(f"The push server does not answer as it should: {error}", hint=hint, id="pushcompat.W002")]
    except (ConfigError, ImproperlyConfigured, ValueError):
        pass  # the other check says so
    return []


def _settings() -> Iterator[CheckMessage]:
    try:
        given = push_options()
    except ImproperlyConfigured as error:
        yield Error(str(error), id="pushcompat.E001")
        return
    yield from _publisher(given)
    try:
        token(given.token_key, given.token_key_file, given.token_ttl, ["a"], None)
    except ConfigError as error:
        yield Error(f"PUSHCOMPAT: no token can be made: {error}", id="pushcompat.E003")


def _publisher(given: Options) -> Iterator[CheckMessage]:
    try:
        key = given.publish_key
        given.publisher  # noqa: B018 (is made)
    except (ConfigError, ValueError) as error:
        yield Error(f"PUSHCOMPAT: {error}", id="pushcompat.E002")
        return
    if key is None:
        hint = "Set PUSHCOMPAT['KEY'] or ['KEY_FILE'], or $PUSHCOMPAT_PUBLISH_KEY."
        yield Warning("There is no publish key: the push server refuses messages.", hint=hint, id="pushcompat.W001")
