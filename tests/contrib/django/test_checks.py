from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.checks import run_checks

from ...harness import KEY, Server
from .conftest import TOKEN_KEY, with_settings


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PUSHCOMPAT_STATE_DIR", str(tmp_path))


def found(deploy: bool = False, **given: Any) -> dict[str, str]:
    with with_settings(**given):
        messages = run_checks(include_deployment_checks=deploy)
        return {message.id: message.msg for message in messages if (message.id or "").startswith("pushcompat.")}


def test_a_good_project_has_nothing_to_say(server: Server) -> None:
    assert found(True, URL=server.url, KEY=KEY, TOKEN_KEY=TOKEN_KEY) == {}


@pytest.mark.parametrize(
    ("given", "id", "text"),
    [
        ({}, "W001", "no publish key"),
        ({"SERVER": "x"}, "E001", "SERVER is not a setting"),
        ({"MODE": "soon"}, "E001", "must be one of later, request, now, outbox"),
        ({"KEY_FILE": "/nowhere/key"}, "E002", "cannot read the publish key in /nowhere/key"),
        ({"KEY": "two words"}, "E002", "spaces"),
        ({"KEY": KEY, "URL": "nonsense"}, "E002", "not a valid server URL"),
        ({"KEY": KEY, "TOKEN_KEY": "short"}, "E003", "needs 32"),
    ],
)
def test_a_mistake_in_the_settings_is_named(given: dict[str, Any], id: str, text: str) -> None:
    ((name, message),) = found(**given).items()
    assert name == f"pushcompat.{id}"
    assert text in message


@pytest.mark.parametrize("key", ["of the environment", "of the settings"])
def test_a_wrong_key_is_a_warning_of_where_it_is_from(
    key: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"URL": server.url}
    if key == "of the settings":
        given["KEY"] = "w" * 32
    else:
        monkeypatch.setenv("PUSHCOMPAT_PUBLISH_KEY", "w" * 32)
    said = found(True, **given)["pushcompat.W002"]
    assert ("PUSHCOMPAT_PUBLISH_KEY" in said) == (key == "of the environment")
    assert "message_key" not in said


def test_before_a_deployment_the_server_is_asked(server: Server) -> None:
    assert found(KEY=KEY, URL="http://127.0.0.1:9") == {}
    assert "cannot reach" in found(True, KEY=KEY, URL="http://127.0.0.1:9")["pushcompat.W002"]
    assert "key" in found(True, KEY="k" * 32, URL=server.url)["pushcompat.W002"]
