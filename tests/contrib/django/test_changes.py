from __future__ import annotations

from django.core import serializers
from django.db import transaction

from pushcompat.contrib.django.testing import Message, outbox

from .shop.models import Note, Order


def test_saving_and_deleting_an_instance_notifies_after_the_commit() -> None:
    with transaction.atomic():
        order = Order.objects.create(text="new")
        assert not outbox
    assert outbox == [Message("orders")]
    order.save()
    order.delete()
    assert outbox == [Message("orders")] * 3


def test_functions_of_the_instance_choose_channel_data_and_key() -> None:
    note = Note.objects.create(text="hello")
    Note.objects.create(text="hidden", secret=True)
    assert outbox == [Message(f"note.{note.pk}", {"text": "hello"}, "text")]


def test_what_django_sends_no_signal_for_notifies_nobody() -> None:
    """As docs/applications.md says."""
    Order.objects.bulk_create([Order(text="a"), Order(text="b")])
    Order.objects.update(text="c")
    Order.objects.bulk_update(Order.objects.all(), ["text"])
    for loaded in serializers.deserialize("json", '[{"model": "shop.order", "pk": 99, "fields": {"text": "d"}}]'):
        loaded.save()
    assert not outbox
    Order.objects.all().delete()
    assert outbox == [Message("orders")] * 3 or outbox == [Message("orders")]
