"""The ways of a message from an application: setting MODE."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from ...client.failures import PublishError
from ..messages import Message, fold, updates
from .conf import end_of_request, only_recorded, push_options

log = logging.getLogger("pushcompat.contrib")


def send(given: Iterable[Message], mode: str) -> None:
    """Never raises because of the push server."""
    folded = fold(given)
    if only_recorded():
        from .testing import outbox

        outbox.record(folded)
    elif mode == "now":
        _publish(folded)
    else:
        publisher = push_options().publisher
        for message in folded:
            publisher.later(**message._asdict())


def _publish(given: Sequence[Message]) -> None:
    try:
        push_options().publisher.publish_batch(updates(given))
    except PublishError as error:
        log.error("%d messages were not published: %s", len(given), error)


def store(given: Iterable[Message], using: str | None) -> None:
    """Saves the messages, in the transaction if there is one, for ``manage.py push_outbox``."""
    from .models import OutboxMessage

    OutboxMessage.objects.using(using).bulk_create(map(OutboxMessage.of, fold(given)))


def at_end_of_request(**_: object) -> None:
    if push_options().mode == "request" and not only_recorded():
        end_of_request()()
