from __future__ import annotations

import json
from typing import Any

import pytest
from tornado.web import Application

from pushcompat.access import log
from pushcompat.access.access import Access
from pushcompat.access.named_key import NamedKey, checked_patterns, create
from pushcompat.access.policy import Policy
from pushcompat.errors import Unavailable
from pushcompat.message import Message
from pushcompat.web import keys
from pushcompat.web.admin import Administration
from pushcompat.web.app import Views, make_application

from ..harness import KEY
from .conftest import Fetch, exposed
from .conftest import problem as problem_of
from .test_admin import AUTHORIZED, Log

CONFIGURED = NamedKey("configured", checked_patterns(["stock"]), b"x" * 32, secrets=[b"s" * 24])
NEW = {"name": "shop", "channels": ["orders.*", "stock"]}


@pytest.fixture
def appended() -> Log:
    return Log(Access(Policy([KEY.encode()], keys=[CONFIGURED])))


@pytest.fixture
def durable() -> bool:
    return True


@pytest.fixture
def app(appended: Log, durable: bool) -> Application:
    administration = Administration(
        lambda: appended.access, lambda drafts: appended.publish(drafts), lambda: 0.0, lambda: "", durable=durable
    )
    return make_application(Views("1", "", exposed, lambda: None), *keys.routes(administration, ""))


def problem(response: Any, status: int, detail: str) -> None:
    assert response.code == status
    assert detail in problem_of(response)[1]


async def add(fetch: Fetch, body: Any = NEW, headers: dict[str, str] = AUTHORIZED) -> Any:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await fetch("/keys", method="POST", body=text, headers=headers)


async def revoke(fetch: Fetch, name: str = "shop", headers: dict[str, str] = AUTHORIZED) -> Any:
    return await fetch(f"/keys/{name}", method="DELETE", headers=headers)


async def listed(fetch: Fetch) -> dict[str, Any]:
    response = await fetch("/keys", headers=AUTHORIZED)
    assert response.code == 200
    return {key["name"]: key for key in json.loads(response.body)["keys"]}


@pytest.mark.gen_test
async def test_a_key_is_shown_once_and_kept_as_a_hash(fetch: Fetch, appended: Log) -> None:
    response = await add(fetch)
    assert response.code == 201
    assert response.headers["Cache-Control"] == "no-store, no-transform"
    answer = json.loads(response.body)
    text = answer.pop("key")
    assert text.startswith(answer["prefix"] + "_")
    assert (answer["name"], answer["channels"], answer["configured"]) == ("shop", ["orders.*", "stock"], False)
    assert appended.access.publishers.keys.find(text.encode()).name == "shop"  # type: ignore[union-attr]
    (message,) = appended.messages
    assert (message.key, message.ttl_s) == ("key:shop", None)
    assert text[12:].encode() not in message.data


@pytest.mark.gen_test
async def test_the_list_has_all_keys_and_neither_secrets_nor_hashes(fetch: Fetch) -> None:
    answer = json.loads((await add(fetch)).body)
    response = await fetch("/keys", headers=AUTHORIZED)
    found = await listed(fetch)
    assert found["shop"] == {name: value for name, value in answer.items() if name != "key"}
    assert found["configured"] == {
        "name": "configured", "prefix": None, "channels": ["stock"], "created": None, "configured": True, "signs": True,
    }  # fmt: skip
    assert answer["key"].encode() not in response.body
    assert b"sha256" not in response.body
    assert b"78787878" not in response.body


@pytest.mark.gen_test
async def test_a_revoked_key_is_not_listed_and_its_name_is_free(fetch: Fetch, appended: Log) -> None:
    first = json.loads((await add(fetch)).body)["key"]
    assert (await revoke(fetch)).code == 204
    assert list(await listed(fetch)) == ["configured"]
    assert appended.messages[-1].key == "key:shop"
    second = json.loads((await add(fetch)).body)["key"]
    assert first != second
    problem(await revoke(fetch, "other"), 404, "there is no key 'other'")


@pytest.mark.gen_test
async def test_a_name_that_is_taken_is_refused(fetch: Fetch, appended: Log) -> None:
    await add(fetch)
    problem(await add(fetch), 409, "revoke it first, or choose another name")
    problem(await add(fetch, {**NEW, "name": "configured"}), 409, "key configured is in the configuration file")
    problem(await revoke(fetch, "configured"), 409, "key configured is in the configuration file")
    assert len(appended.messages) == 1


@pytest.mark.gen_test
async def test_of_two_keys_of_one_name_that_were_added_at_once_the_later_one_is_valid(
    fetch: Fetch, appended: Log
) -> None:
    publish = appended.publish

    async def another_is_faster(drafts: list[Message]) -> None:
        await publish(drafts)
        other, _ = create("shop", checked_patterns(["*"]), 0.0)
        await publish([appended.access.publishers.added(other)])

    appended.publish = another_is_faster  # type: ignore[method-assign, assignment]
    problem(await add(fetch), 409, "another key shop was added at the same time")


@pytest.mark.gen_test
@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"{", "invalid JSON"),
        (b"\xff", "invalid JSON"),
        ({"name": "shop"}, "invalid JSON: Object missing required field `channels`"),
        ({**NEW, "name": "a b"}, "use 1-64 characters"),
        ({**NEW, "name": "root"}, "choose another name"),
        ({**NEW, "channels": []}, "at least one pattern"),
        ({**NEW, "channels": ["{sub}"]}, "use * instead"),
        ({**NEW, "channels": ["a b"]}, "use the characters of channel names"),
        ({**NEW, "channel": "a"}, "unknown field"),
    ],
)
async def test_a_malformed_key_is_refused(fetch: Fetch, appended: Log, body: Any, detail: str) -> None:
    problem(await add(fetch, body), 400, detail)
    assert appended.messages == []


@pytest.mark.gen_test
async def test_only_the_root_key_manages_keys(fetch: Fetch) -> None:
    shop = json.loads((await add(fetch)).body)["key"]
    for headers, status in (({}, 401), ({"Authorization": "Bearer wrong"}, 401),
                            ({"Authorization": f"Bearer {shop}"}, 403)):  # fmt: skip
        assert (await add(fetch, {**NEW, "name": "other"}, headers)).code == status
        assert (await revoke(fetch, headers=headers)).code == status
        assert (await fetch("/keys", headers=headers)).code == status
    assert set(await listed(fetch)) == {"configured", "shop"}


@pytest.mark.gen_test
async def test_a_log_that_cannot_take_the_key_is_told(
    fetch: Fetch, appended: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    appended.refusal = Unavailable("the log cannot be written now")
    problem(await add(fetch), 503, "the log cannot be written now")
    assert set(await listed(fetch)) == {"configured"}
    appended.refusal = None
    monkeypatch.setattr(log, "MOST_ENTRIES", 0)
    problem(await add(fetch), 507, "the access log is full")


@pytest.mark.gen_test
@pytest.mark.parametrize("durable", [False])
async def test_with_a_log_in_memory_the_answer_says_that_the_key_ends_with_the_process(
    fetch: Fetch, durable: bool
) -> None:
    assert not durable
    assert "ends with the server's process" in json.loads((await add(fetch)).body)["note"]


@pytest.mark.gen_test
async def test_with_another_log_there_is_nothing_to_say(fetch: Fetch) -> None:
    assert "note" not in json.loads((await add(fetch)).body)


@pytest.mark.gen_test
async def test_other_methods_are_refused(fetch: Fetch) -> None:
    response = await fetch("/keys", method="DELETE", headers=AUTHORIZED)
    assert (response.code, response.headers["Allow"]) == (405, "GET, HEAD, POST")
    response = await fetch("/keys/shop", headers=AUTHORIZED)
    assert (response.code, response.headers["Allow"]) == (405, "DELETE")
