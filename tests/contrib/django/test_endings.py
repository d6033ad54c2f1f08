"""What Django and Celery call when a request, or a process of a worker, ends."""

from __future__ import annotations

import asyncio

import pytest
from celery.signals import worker_process_shutdown
from django.apps import apps
from django.test import AsyncClient, Client

from .conftest import with_settings


@pytest.mark.parametrize(("mode", "expected"), [("request", 2), ("later", 0)])
def test_the_queue_is_flushed_at_the_end_of_requests_of_both_kinds(
    mode: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[bool] = []
    monkeypatch.setattr("pushcompat.contrib.django.sending.end_of_request", lambda: lambda: flushed.append(True))
    with with_settings(URL="http://127.0.0.1:9", KEY="k" * 32, TIMEOUT=0.1, MODE=mode, TEST_OUTBOX=False):
        assert Client().post("/add").status_code == 200
        assert asyncio.run(post("/add-async")) == 200
    assert len(flushed) == expected


async def post(path: str) -> int:
    status: int = (await AsyncClient().post(path)).status_code
    return status


def test_a_worker_of_celery_publishes_what_is_queued_before_its_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[bool] = []
    monkeypatch.setattr("pushcompat.contrib.django.sending.flush", lambda: flushed.append(True))
    apps.get_app_config("pushcompat").ready()
    worker_process_shutdown.send(sender=None)
    assert flushed == [True]
