"""Publishing by the server itself, without a request: for webhooks that it receives, and for administration."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ..errors import RequestError
from ..message import Message
from ..store.base import Idempotency, Outcome, Receipt
from .publishing import Publishing


async def publish(publishing: Publishing, drafts: Sequence[Message], idempotency: Idempotency | None) -> Receipt:
    """Returns when this process has received the messages from the log, as a request is answered. Raises RequestError,
    after the time limit of a request.
    """
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[Outcome] = loop.create_future()
    pending = publishing.submit_own(drafts, idempotency, lambda outcome: _settle(answered, outcome))
    deadline = loop.call_later(publishing.wait_s, publishing.expire, pending)
    try:
        outcome = await answered
    finally:
        deadline.cancel()
    if isinstance(outcome, RequestError):
        raise outcome.with_traceback(None)  # stores return the same object again
    return outcome


def _settle(answered: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not answered.done():  # the caller may have been cancelled
        answered.set_result(outcome)
