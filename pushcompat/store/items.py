"""Batches whose items have ids: what of them is appended. For stores in this process; Redis has a script for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..errors import KeyReused, RequestError
from ..message import Message
from .base import Idempotency, Publish, Receipt, id_reused


class NewDrafts(NamedTuple):
    """The drafts of a batch with ids that are to be appended, the indexes of the others, and the receipt of the last of
    these.
    """

    drafts: list[Message]
    again: tuple[int, ...]
    latest: Receipt | None

    def receipt(self, publish: Publish, epoch: str, head: int) -> Receipt:
        """The outcome. ``head``: the number of the last one that was appended, if any was."""
        if self.drafts or self.latest is None:
            return Receipt(epoch, head, publish.subscribers, again=self.again)
        latest = self.latest
        return Receipt(latest.epoch, latest.sequence, publish.subscribers, repeated=True, again=self.again)


def new_drafts(
    publish: Publish, find: Callable[[Idempotency], Receipt | RequestError | None]
) -> NewDrafts | RequestError:
    """RequestError: the batch is refused as a whole."""
    assert publish.ids is not None
    drafts: list[Message] = []
    again: list[int] = []
    latest: Receipt | None = None
    own: set[str] = set()
    for index, (draft, item) in enumerate(zip(publish.drafts, publish.ids, strict=True)):
        first = None if item is None else find(item)
        if isinstance(first, RequestError):
            return id_reused(index) if isinstance(first, KeyReused) else first
        if first is not None:
            if latest is None or first.sequence > latest.sequence:
                latest = first
            again.append(index)
        elif item is not None and item.key in own:
            again.append(index)
        else:
            drafts.append(draft)
            if item is not None:
                own.add(item.key)
    return NewDrafts(drafts, tuple(again), latest)


def item_receipts(publish: Publish, epoch: str) -> list[tuple[Idempotency, Receipt]]:
    """Of the drafts with ids that were appended: only these have sequence numbers."""
    return [
        (item, Receipt(epoch, draft.sequence, {}))
        for draft, item in zip(publish.drafts, publish.ids or (), strict=True)
        if item is not None and draft.sequence
    ]
