"""Publishing the outbox: each message once, whatever ends in the middle of it.

Ids do not follow commits: while a slow transaction is open, a later id can be seen before an earlier one. So there is
no "last id that was published". Instead messages are put into a batch first, in a transaction of its own, and the batch
never changes. It is published under its key, and deleted with its messages when that was acknowledged. If the answer is
lost, the same batch is published under the same key, which the push server does once.

Several processes may do so at once: a batch is locked, and the others skip it. SQLite has no such locks; there two may
publish the same batch, which is again once.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from contextlib import nullcontext

from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.models import QuerySet

from ...client.failures import PublishRefused
from .. import messages
from ..messages import Message, updates
from .conf import only_recorded, push_options
from .models import OutboxBatch, OutboxMessage

TIMEOUT_S = 10.0  # for a batch: nobody waits
_OF_A_MESSAGE = (400, 403, 413, 422)  # other refusals concern all: the key, the address, the certificate

log = logging.getLogger("pushcompat.contrib")


def deliver(using: str = DEFAULT_DB_ALIAS) -> int | None:
    """Publishes one batch, and returns the number of its messages; None: there is none. Raises PublishError: they
    wait."""
    freeze(using)
    has_locks = connections[using].features.has_select_for_update
    with transaction.atomic(using) if has_locks else nullcontext():
        batch = _skipping_locked(OutboxBatch.objects.using(using).order_by("pk"), using).first()
        if batch is None:
            return None
        waiting = list(OutboxMessage.objects.using(using).filter(batch=batch).order_by("pk"))
        refused = _publish(waiting, batch.key)
        with transaction.atomic(using):  # in SQLite a transaction of its own, which must not begin by reading
            done = [message.pk for message in waiting if message not in refused]
            OutboxMessage.objects.using(using).filter(pk__in=done).delete()
            for message in refused:
                message.save(using=using, update_fields=["refused"])
            batch.delete(using=using)
    return len(waiting)


def freeze(using: str = DEFAULT_DB_ALIAS) -> None:
    """Makes a batch of the oldest messages that are in none."""
    waiting = OutboxMessage.objects.using(using).filter(batch=None, refused="").order_by("pk")
    if not waiting.exists():
        return
    with transaction.atomic(using):
        # Written first: in SQLite a transaction that has read cannot write after another one has.
        batch = OutboxBatch.objects.using(using).create(key=secrets.token_hex(16))
        rows = list(_skipping_locked(waiting, using)[: messages.BATCH_MESSAGES])
        first: list[Message] = next(messages.batches(row.message for row in rows), [])
        chosen = [row.pk for row in rows[: len(first)]]
        if not OutboxMessage.objects.using(using).filter(pk__in=chosen).update(batch=batch):
            batch.delete(using=using)  # another process was faster


def _skipping_locked(rows: QuerySet, using: str) -> QuerySet:
    can_skip = connections[using].features.has_select_for_update_skip_locked
    return rows.select_for_update(skip_locked=can_skip)


def _publish(waiting: Sequence[OutboxMessage], key: str) -> list[OutboxMessage]:
    """Returns the messages that were refused. If the batch is, that may mean one of them only: each is tried."""
    given = [message.message for message in waiting]
    if not given:
        return []
    if only_recorded():
        from .testing import outbox

        outbox.record(given)
        return []
    publisher = push_options().publisher
    try:
        publisher.publish_batch(updates(given), idempotency_key=key, timeout=TIMEOUT_S)
    except PublishRefused as refusal:
        if refusal.status not in _OF_A_MESSAGE:
            raise
        if len(waiting) > 1:
            return [refused for message in waiting for refused in _publish([message], f"{key}-{message.pk}")]
        log.error("outbox: message %s was refused: %s", waiting[0], refusal)
        waiting[0].refused = str(refusal)
        return list(waiting)
    return []
