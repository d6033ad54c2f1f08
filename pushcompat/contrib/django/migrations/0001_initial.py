from __future__ import annotations

from typing import ClassVar

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies: ClassVar[list[tuple[str, str]]] = []

    operations: ClassVar[list[migrations.operations.base.Operation]] = [
        migrations.CreateModel(
            name="OutboxBatch",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("key", models.CharField(max_length=64, unique=True)),
            ],
        ),
        migrations.CreateModel(
            name="OutboxMessage",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("channel", models.CharField(max_length=128)),
                ("data", models.TextField(blank=True, null=True)),
                ("message_key", models.CharField(blank=True, max_length=128, null=True)),
                ("type", models.CharField(blank=True, max_length=128, null=True)),
                ("ttl", models.FloatField(blank=True, help_text="seconds after publishing", null=True)),
                ("created", models.DateTimeField(default=django.utils.timezone.now)),
                ("refused", models.TextField(blank=True, default="")),
                (
                    "batch",
                    models.ForeignKey(
                        blank=True,
                        editable=False,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        to="pushcompat.outboxbatch",
                    ),
                ),
            ],
        ),
    ]
