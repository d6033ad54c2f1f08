from __future__ import annotations

import sys

from django.apps import AppConfig
from django.core.checks import register
from django.core.signals import request_finished


class PushcompatConfig(AppConfig):
    name = "pushcompat.contrib.django"
    label = "pushcompat"
    verbose_name = "Push"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks, sending

        register(checks.check_settings)
        register(checks.check_server, deploy=True)
        if "celery" in sys.modules:
            from ..celery import flush_at_worker_end

            flush_at_worker_end(sending.flush)
        request_finished.connect(sending.at_end_of_request, dispatch_uid="pushcompat")
