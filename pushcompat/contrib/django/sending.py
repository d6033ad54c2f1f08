"""The ways of a message from an application: setting MODE."""

from __future__ import annotations

from collections.abc import Iterable

from ..messages import Message, fold
from ..sending import send as publish
from .conf import end_of_request, only_recorded, push_options


def send(given: Iterable[Message], mode: str) -> None:
    """Never raises because of the push server."""
    folded = fold(given)
    if only_recorded():
        from .testing import outbox

        outbox.record(folded)
    else:
        publish(folded, push_options().publisher, mode)


def store(given: Iterable[Message], using: str | None) -> None:
    """Saves the messages, in the transaction if there is one, for ``manage.py push_outbox``."""
    from .models import OutboxMessage

    OutboxMessage.objects.using(using).bulk_create(map(OutboxMessage.of, fold(given)))


def at_end_of_request(**_: object) -> None:
    if push_options().mode == "request" and not only_recorded():
        end_of_request()()


def flush() -> None:
    """Publishes what is queued, if anything was."""
    if push_options.cache_info().currsize and "publisher" in vars(push_options()):
        push_options().publisher.flush()
