"""A project's own test suite, in processes of their own, under each runner: it never reaches a push server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import pushcompat

from ...harness import KEY, PATIENCE_S
from ...stub import Stub, Talk

SETTINGS = """
SECRET_KEY = "for tests"
INSTALLED_APPS = ["pushcompat.contrib.django"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
USE_TZ = True
"""
TESTS = """
from django.db import transaction
from django.test import TestCase, TransactionTestCase

from pushcompat.contrib.django import notify
from pushcompat.contrib.django.testing import Message, outbox

class Committed(TransactionTestCase):
    def test_one(self):
        with transaction.atomic():
            notify("orders")
        self.assertEqual(outbox, [Message("orders")])

    def test_two(self):
        notify("orders", 2)
        self.assertEqual(outbox, [Message("orders", 2)])

class RolledBack(TestCase):
    def test_three(self):
        with self.captureOnCommitCallbacks(execute=True):
            notify("orders", 3)
        self.assertEqual(outbox, [Message("orders", 3)])

    def test_four(self):
        notify("orders", 4)
        self.assertEqual(outbox, [])
"""


def answers(talk: Talk) -> None:
    talk.request()


@pytest.mark.parametrize("runner", ["django", "pytest-django", "pytest"])
def test_the_tests_of_a_project_reach_no_server(runner: str, tmp_path: Path) -> None:
    stub = Stub(answers)
    (tmp_path / "project_settings.py").write_text(SETTINGS)
    (tmp_path / "test_project.py").write_text(TESTS)
    command = {
        "django": ["django", "test"],
        "pytest-django": ["pytest", "-q", "-c", os.devnull, "--rootdir=.", "test_project.py"],
        "pytest": ["pytest", "-q", "-c", os.devnull, "--rootdir=.", "-p", "no:django", "test_project.py"],
    }[runner]
    if runner == "pytest":
        (tmp_path / "conftest.py").write_text(
            "import django\ndjango.setup()\nfrom django.core.management import call_command\n"
            "call_command('migrate', verbosity=0)\n"
        )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment |= {
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path(pushcompat.__file__).parent.parent}",
        "DJANGO_SETTINGS_MODULE": "project_settings",
        "PUSHCOMPAT_URL": stub.url,
        "PUSHCOMPAT_PUBLISH_KEY": KEY,
    }
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=6 * PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4" in done.stdout + done.stderr
    assert stub.talks == []
