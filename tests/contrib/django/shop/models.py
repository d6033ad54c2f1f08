"""An application that is notified about."""

from __future__ import annotations

from django.db import models

from pushcompat.contrib.django import push_changes


@push_changes("orders")
class Order(models.Model):
    text = models.CharField(max_length=100)


@push_changes(
    lambda note: None if note.secret else f"note.{note.pk}",
    lambda note: {"text": note.text},
    message_key=lambda note: "text",
)
class Note(models.Model):
    text = models.CharField(max_length=100)
    secret = models.BooleanField(default=False)


class Plain(models.Model):
    """Nothing is said about it."""

    text = models.CharField(max_length=100)
