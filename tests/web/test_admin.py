from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from tornado.web import Application

from pushcompat.access import log
from pushcompat.access.access import Access
from pushcompat.access.policy import Policy
from pushcompat.errors import Unavailable
from pushcompat.message import Message
from pushcompat.web.admin import Administration, routes
from pushcompat.web.app import Views, make_application

from ..harness import KEY
from .conftest import Fetch, exposed, problem

AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
LONGEST_S = 1000.0


class Log:
    """What is appended, and applied as a hub does."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self.messages: list[Message] = []
        self.refusal: Exception | None = None

    async def publish(self, drafts: Sequence[Message]) -> None:
        if self.refusal is not None:
            raise self.refusal
        for draft in drafts:
            draft.time_ms = 1_800_000_000_000
            self.access.apply(draft)
        self.messages += drafts


@pytest.fixture
def appended() -> Log:
    return Log(Access(Policy([KEY.encode()])))


@pytest.fixture
def app(appended: Log) -> Application:
    administration = Administration(lambda: appended.access, appended.publish, lambda: LONGEST_S, lambda: "")
    return make_application(Views("1", "", exposed, lambda: None), *routes(administration, ""))


async def revoke(fetch: Fetch, body: Any, headers: dict[str, str] = AUTHORIZED) -> Any:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await fetch("/revoke", method="POST", body=text, headers=headers)


@pytest.mark.gen_test
async def test_a_revocation_is_appended_to_the_access_log(fetch: Fetch, appended: Log) -> None:
    response = await revoke(fetch, {"sub": "ann", "channel": "a", "expires": 60})
    assert (response.code, response.body) == (204, b"")
    (message,) = appended.messages
    assert json.loads(message.data) == {"sub": "ann", "channel": "a"}
    assert message.ttl_s == 60
    assert len(appended.access.revocations) == 1


@pytest.mark.gen_test
@pytest.mark.parametrize("more", [{}, {"expires": 1e9}, {"expires": None}])
async def test_a_revocation_lasts_as_long_as_a_token_can_live_at_the_most(
    fetch: Fetch, appended: Log, more: dict[str, object]
) -> None:
    await revoke(fetch, {"jti": "1", **more})
    assert appended.messages[0].ttl_s == LONGEST_S


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({}, "name whom to revoke"),
        ({"expires": 60}, "name whom to revoke"),
        ({"sub": ""}, "sub must have 1 to 256 characters"),
        ({"sub": "ann", "jti": ""}, "jti must have 1 to 256 characters"),
        ({"sub": "x" * 257}, "sub must have 1 to 256 characters"),
        ({"channel": ""}, "invalid channel name"),
        ({"channel": "a,b"}, "too many channels"),
        ({"channel": "!access"}, "invalid channel name"),
        ({"sub": 1}, "invalid JSON"),
        ({"user": "ann"}, "invalid JSON"),
        ({"sub": "ann", "expires": 0}, "expires must be greater than 0"),
        ([], "invalid JSON"),
        (b"", "invalid JSON"),
        (b'{"sub":"\xff"}', "invalid JSON"),
        (b'{"sub":"\\ud800"}', "invalid JSON"),
    ],
)
async def test_a_revocation_that_is_not_clear_is_refused_with_what_to_change(
    fetch: Fetch, appended: Log, body: object, detail: str
) -> None:
    status, found = problem(await revoke(fetch, body))
    assert (status, detail in found) == (400, True), found
    assert appended.messages == []


@pytest.mark.gen_test
@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Bearer", f"Basic {KEY}", "Bearer \u00e9"])
async def test_only_the_root_key_may_revoke(fetch: Fetch, appended: Log, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    response = await revoke(fetch, {"sub": "ann"}, headers)
    assert problem(response)[0] == 401
    assert response.headers["WWW-Authenticate"].startswith("Bearer")
    assert appended.messages == []


@pytest.mark.gen_test
async def test_a_full_access_log_refuses_another_revocation(
    fetch: Fetch, appended: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "MOST_ENTRIES", 1)
    await revoke(fetch, {"sub": "ann"})
    status, detail = problem(await revoke(fetch, {"sub": "bob"}))
    assert (status, "access log is full" in detail) == (507, True)
    assert (await revoke(fetch, {"sub": "ann"})).code == 204


@pytest.mark.gen_test
async def test_a_log_that_does_not_work_is_told_to_who_revokes(fetch: Fetch, appended: Log) -> None:
    appended.refusal = Unavailable("the log is away", 3)
    response = await revoke(fetch, {"sub": "ann"})
    assert problem(response) == (503, "the log is away")
    assert response.headers["Retry-After"] == "3"


@pytest.mark.gen_test
async def test_only_post_revokes(fetch: Fetch) -> None:
    response = await fetch("/revoke", headers=AUTHORIZED)
    assert problem(response)[0] == 405
    assert response.headers["Allow"] == "POST"
