"""What the rules by channel say about messages: their maximum size, and their ttl if they have none.

Only called if a rule says something about messages: a publish without such rules costs one comparison.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..access.rules import Rules
from ..errors import PayloadTooLarge
from ..message import Message


def most_bytes(rules: Rules, names: Sequence[str], message_bytes: int) -> int:
    """The maximum size of a message for all of these channels. ``message_bytes``: of channels whose rule has none."""
    return min([rules.of(name).message_bytes or message_bytes for name in names])


def apply(rules: Rules, drafts: Sequence[Message], message_bytes: int) -> None:
    """Sets what the messages of one publish do not say themselves. Raises PayloadTooLarge."""
    for index, draft in enumerate(drafts):
        rule = rules.of(draft.channel)
        most = rule.message_bytes or message_bytes
        if len(draft.data) > most:
            which = f"message {index} of the batch: " if len(drafts) > 1 else ""
            raise PayloadTooLarge(f"{which}the message exceeds the limit of {most} bytes of channel {draft.channel}")
        if draft.ttl_s is None:
            draft.ttl_s = rule.ttl_s
