from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import django
import pytest
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from ...harness import KEY, Server
from ..ending import forget

TOKEN_KEY = "0123456789abcdef" * 4
PAGE = '{% load pushcompat %}<title>Orders</title>{% pushcompat "orders" "news" sub="ann" %}'

if not settings.configured:
    folder = tempfile.TemporaryDirectory(prefix="pushcompat-django-")
    database = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(Path(folder.name, "database")),
        "ATOMIC_REQUESTS": True,
        "OPTIONS": {"timeout": 10},
    }
    settings.configure(
        SECRET_KEY="for tests",
        ROOT_URLCONF="tests.contrib.django.shop.urls",
        ALLOWED_HOSTS=["*"],
        INSTALLED_APPS=["pushcompat.contrib.django", "tests.contrib.django.shop"],
        DATABASES={"default": database},
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "OPTIONS": {"loaders": [("django.template.loaders.locmem.Loader", {"page.html": PAGE})]},
            }
        ],
        LOGGING_CONFIG=None,
        USE_TZ=True,
        PUSHCOMPAT={"URL": "http://127.0.0.1:9"},  # the port "discard", where no push server is
    )
    django.setup()
    from django.core.management import call_command

    call_command("migrate", run_syncdb=True, verbosity=0)


@pytest.fixture(autouse=True)
def _empty_database() -> Iterator[None]:
    yield
    empty_database()


def empty_database() -> None:
    from django.apps import apps
    from django.db import connections

    for model in apps.get_models():
        model._base_manager.all().delete()
    connections.close_all()


@contextmanager
def with_settings(**given: Any) -> Iterator[None]:
    from django.test import override_settings

    from pushcompat.contrib.django.conf import push_options

    with override_settings(PUSHCOMPAT=given):
        try:
            yield
        finally:
            with suppress(ImproperlyConfigured):
                if "publisher" in vars(push_options()):
                    forget(push_options().publisher)


def with_server(server: Server, **given: Any) -> AbstractContextManager[None]:
    """Publishes to that server, instead of the test outbox."""
    return with_settings(URL=server.url, KEY=KEY, TEST_OUTBOX=False, **given)


@contextmanager
def rolled_back(using: str | None = None) -> Iterator[None]:
    """A transaction, or a savepoint, that ends without a commit."""
    from django.db import transaction

    with suppress(ZeroDivisionError), transaction.atomic(using):
        yield
        raise ZeroDivisionError
