"""Publishing the outbox: each message once, whatever ends in the middle of it.

Ids of rows do not follow commits: while a slow transaction is open, a later id can be seen before an earlier one. So
there is no "last id that was published"; a message is deleted when its publish was acknowledged. If the answer is lost,
it is published again, perhaps together with others than before: the push server recognises it by its ``uid``.

Several processes may do so at once: rows are locked, and the others skip them. SQLite has no such locks; there two may
publish the same messages, which is again once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext

from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.db.models import QuerySet

from ...client.failures import PublishRefused, concerns_a_message
from ...client.posts import Update
from .. import messages
from .conf import only_recorded, push_options
from .models import OutboxMessage

TIMEOUT_S = 10.0  # for a batch: nobody waits

log = logging.getLogger("pushcompat.contrib")


def deliver(using: str = DEFAULT_DB_ALIAS) -> int | None:
    """Publishes one batch of the oldest messages, and returns their number; None: there is none. Raises PublishError:
    they wait."""
    rows = OutboxMessage.objects.using(using)
    has_locks = connections[using].features.has_select_for_update
    with transaction.atomic(using) if has_locks else nullcontext():
        waiting = list(_skipping_locked(rows.filter(refused="").order_by("pk"), using)[: messages.BATCH_MESSAGES])
        waiting = waiting[: len(next(messages.batches(row.message for row in waiting), []))]
        if not waiting:
            return None
        refused = _publish(waiting)
        with transaction.atomic(using):  # in SQLite a transaction of its own, which must not begin by reading
            rows.filter(pk__in=[row.pk for row in waiting if row.pk not in refused]).delete()
            for pk, reason in refused.items():
                rows.filter(pk=pk).update(refused=reason)
    return len(waiting)


def _skipping_locked(rows: QuerySet, using: str) -> QuerySet:
    can_skip = connections[using].features.has_select_for_update_skip_locked
    return rows.select_for_update(skip_locked=can_skip)


def _publish(waiting: Sequence[OutboxMessage]) -> dict[int, str]:
    """Returns why messages were refused. If the batch is, that may mean one of them only: each is tried."""
    if only_recorded():
        from .testing import outbox

        outbox.record(row.message for row in waiting)
        return {}
    try:
        push_options().publisher.publish_batch(map(_update, waiting), timeout=TIMEOUT_S)
    except PublishRefused as refusal:
        if not concerns_a_message(refusal):
            raise
        if len(waiting) > 1:
            return {pk: reason for row in waiting for pk, reason in _publish([row]).items()}
        log.error("outbox: message %s was refused: %s", waiting[0], refusal)
        return {waiting[0].pk: str(refusal)}
    return {}


def _update(row: OutboxMessage) -> Update:
    return {**row.message.update(), "id": str(row.uid)}
