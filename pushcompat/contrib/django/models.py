"""The outbox: messages that must not be lost are rows of the transaction that they tell of."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from ...client.posts import JsonText
from ..messages import ENCODER, Message


class OutboxBatch(models.Model):
    """Messages that are published together, always the same ones under the same key, however often it is tried: a
    batch is frozen when it is made.
    """

    key = models.CharField(max_length=64, unique=True)

    def __str__(self) -> str:
        return self.key


class OutboxMessage(models.Model):
    """``data`` is JSON; null: the bare signal. ``refused``: why the push server does not take it; it stays until
    somebody has looked.
    """

    channel = models.CharField(max_length=128)
    data = models.TextField(null=True, blank=True)
    message_key = models.CharField(max_length=128, null=True, blank=True)
    type = models.CharField(max_length=128, null=True, blank=True)
    ttl = models.FloatField(null=True, blank=True, help_text="seconds after publishing")
    created = models.DateTimeField(default=timezone.now)
    batch = models.ForeignKey(OutboxBatch, null=True, blank=True, editable=False, on_delete=models.SET_NULL)
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
