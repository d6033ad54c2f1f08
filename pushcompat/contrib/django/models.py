"""The outbox: messages that must not be lost are rows of the transaction that they tell of."""

from __future__ import annotations

import uuid

from django.db import models
from django.utils import timezone

from ...client.posts import JsonText
from ..messages import ENCODER, Message


class OutboxMessage(models.Model):
    """``data`` is JSON; null: the bare signal. ``uid``: by which the push server recognises a message that is published
    again. ``refused``: why it does not take it; it stays until somebody has looked.
    """

    uid = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    channel = models.CharField(max_length=128)
    data = models.TextField(null=True, blank=True)
    message_key = models.CharField(max_length=128, null=True, blank=True)
    type = models.CharField(max_length=128, null=True, blank=True)
    ttl = models.FloatField(null=True, blank=True, help_text="seconds after publishing")
    created = models.DateTimeField(default=timezone.now)
    refused = models.TextField(default="", blank=True)

    def __str__(self) -> str:
        return f"{self.pk} to {self.channel}"

    @classmethod
    def of(cls, message: Message) -> OutboxMessage:
        data = message.data
        if isinstance(data, str) and not isinstance(data, JsonText):
            data = ENCODER.encode(data) if data else None
        return cls(**message._replace(data=data)._asdict())

    @property
    def message(self) -> Message:
        data = None if self.data is None else JsonText(self.data)
        return Message(self.channel, data, self.message_key, self.type, self.ttl)
