"""The setting PUSHCOMPAT, and whether tests run."""

from __future__ import annotations

from functools import lru_cache

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from ...errors import ConfigError
from ..endings import EndOfRequest
from ..options import Options, options
from ..recorder import is_test


@lru_cache(maxsize=1)
def push_options() -> Options:
    """Raises ImproperlyConfigured."""
    try:
        return options(getattr(settings, "PUSHCOMPAT", {}))
    except ConfigError as error:
        raise ImproperlyConfigured(f"PUSHCOMPAT: {error}") from None


@lru_cache(maxsize=1)
def end_of_request() -> EndOfRequest:
    given = push_options()
    return EndOfRequest(given.publisher.flush, given.timeout)


def _changed(*, setting: str, **_: object) -> None:
    if setting == "PUSHCOMPAT":
        push_options.cache_clear()
        end_of_request.cache_clear()


setting_changed.connect(_changed, dispatch_uid="pushcompat")


def only_recorded() -> bool:
    """Whether messages go to the test outbox: in tests, unless the setting TEST_OUTBOX says otherwise."""
    said = push_options().test_outbox
    return is_test() if said is None else said
