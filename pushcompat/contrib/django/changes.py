"""Notifying when instances of a model are saved or deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from django.db.models import Model
from django.db.models.signals import post_delete, post_save

from .notifying import notify

_Class = TypeVar("_Class", bound=type[Model])
Channels = str | Iterable[str] | None


def push_changes(
    channel: Channels | Callable[[Any], Channels],
    data: Callable[[Any], object] | None = None,
    *,
    message_key: Callable[[Any], str] | None = None,
) -> Callable[[_Class], _Class]:
    """Decorates a model: ``notify`` is called when an instance is saved or deleted.

    Each argument may be a function of the instance; ``channel`` may then return None: nobody is notified.

    Django sends no signal for ``bulk_create``, ``bulk_update`` and ``update`` of a query set, for changes of a
    many-to-many relation, and for SQL: call ``notify`` there. ``loaddata`` does not notify.
    """

    def notify_of(instance: Model, using: str, raw: bool = False, **_: object) -> None:
        channels = channel(instance) if callable(channel) else channel
        if raw or channels is None:
            return
        notify(
            channels,
            None if data is None else data(instance),
            message_key=None if message_key is None else message_key(instance),
            using=using,
        )

    def decorate(model: _Class) -> _Class:
        for signal in (post_save, post_delete):
            signal.connect(notify_of, sender=model, weak=False)
        return model

    return decorate
