"""Publishing what an application has collected. It never raises because of the push server: what is lost is logged."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ..client.async_publisher import AsyncPublisher
from ..client.failures import PublishError, PublishRefused, concerns_a_message
from ..client.publisher import Publisher
from .messages import Message, batches, updates

log = logging.getLogger("pushcompat.contrib")


def send(given: Sequence[Message], publisher: Publisher, mode: str) -> None:
    """``given`` is folded. ``mode``: see ``Options``."""
    if mode != "now":
        for message in given:
            publisher.later(**message._asdict())
        return
    for part in batches(given):
        try:
            publisher.publish_batch(updates(part))
        except PublishError as error:
            for one in _after(part, error):
                send([one], publisher, mode)


async def send_async(given: Sequence[Message], publisher: AsyncPublisher) -> None:
    for part in batches(given):
        try:
            await publisher.publish_batch(updates(part))
        except PublishError as error:
            for one in _after(part, error):
                await send_async([one], publisher)


def _after(given: Sequence[Message], error: PublishError) -> Sequence[Message]:
    """What is tried message by message: a refusal of a batch may mean one of them only. Others are lost."""
    if len(given) > 1 and isinstance(error, PublishRefused) and concerns_a_message(error):
        return given
    log.error("%d messages were not published: %s", len(given), error)
    return ()
