from __future__ import annotations

import uuid
from typing import ClassVar

import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies: ClassVar[list[tuple[str, str]]] = []

    operations: ClassVar[list[migrations.operations.base.Operation]] = [
        migrations.CreateModel(
            name="OutboxMessage",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("uid", models.UUIDField(default=uuid.uuid4, editable=False, unique=True)),
                ("channel", models.CharField(max_length=128)),
                ("data", models.TextField(blank=True, null=True)),
                ("message_key", models.CharField(blank=True, max_length=128, null=True)),
                ("type", models.CharField(blank=True, max_length=128, null=True)),
                ("ttl", models.FloatField(blank=True, help_text="seconds after publishing", null=True)),
                ("created", models.DateTimeField(default=django.utils.timezone.now)),
                ("refused", models.TextField(blank=True, default="")),
            ],
        ),
    ]
