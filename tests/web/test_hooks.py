"""Webhooks that the server receives: the application by itself; tests/faults/test_hooks.py has what needs a server."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from standardwebhooks import Webhook
from tornado.httpclient import HTTPResponse
from tornado.web import Application

from pushcompat import logs
from pushcompat.access.hooks import Challenge, Hook
from pushcompat.access.providers import PROVIDERS
from pushcompat.errors import StoreFull, Unavailable
from pushcompat.limits import Limits
from pushcompat.message import Message
from pushcompat.web.app import Views, make_application
from pushcompat.web.hooks import Hooks, routes
from pushcompat.wire.templates import Template

from .conftest import Fetch, exposed, problem

SECRET = "It's a Secret to Everybody"
STANDARD = "whsec_" + base64.b64encode(b"s" * 32).decode()
TOKEN = "u" * 43
ID = "x6b758hk-000000000000009"


class Publisher:
    """Takes what is published, and counts as the metrics do."""

    def __init__(self) -> None:
        self.published: list[tuple[str, Sequence[Message], str | None]] = []
        self.problem: Exception | None = None
        self.hook_requests: Counter[str] = Counter()
        self.hook_refused: Counter[tuple[str, str]] = Counter()

    async def publish(self, hook: str, drafts: Sequence[Message], replay_key: str | None) -> str:
        if self.problem is not None:
            raise self.problem
        self.published.append((hook, drafts, replay_key))
        return ID

    @property
    def payloads(self) -> list[tuple[str, bytes, bool]]:
        return [(draft.channel, draft.data, draft.json) for _, drafts, _ in self.published for draft in drafts]


def hook(name: str, provider: str, *secrets: str, **more: Any) -> Hook:
    of = PROVIDERS[provider]
    return Hook(name, more.pop("channels", ("c",)), of, tuple([of.key(secret) for secret in secrets]), **more)


HOOKS = [
    hook("github", "github", SECRET),
    hook("body", "github", SECRET, publishes_body=True, channels=("a", "b"), key="k", type="t"),
    hook("template", "github", SECRET, template=Template("order {order.id} is {action}")),
    hook("small", "github", SECRET, body_bytes=100),
    hook("meta", "github", SECRET, challenge=Challenge.META, verify_token="ü verify".encode()),
    hook("slack", "slack", "8f742231b10e8888abcd99yyyzzz85a5"),
    hook("standard", "standard", STANDARD),
    hook("token", "token", TOKEN),
    hook("fetched", "token", TOKEN, allows_get=True, template=Template("{what}")),
    hook("websub", "token", TOKEN, challenge=Challenge.WEBSUB),
]


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()


@pytest.fixture
def hooks(publisher: Publisher) -> Hooks:
    limits = Limits(hook_budget_bytes=4 << 20)
    return Hooks(HOOKS, limits, publisher.publish, publisher, lambda channel: limits.message_bytes)


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, object]]]:
    found: list[tuple[str, dict[str, object]]] = []
    monkeypatch.setattr(logs, "event", lambda name, *_, **fields: found.append((str(name), fields)))
    return found


@pytest.fixture
def app(hooks: Hooks) -> Application:

    return make_application(Views("1", "", exposed, lambda: None), *routes("", hooks))


def signed(body: bytes, secret: str = SECRET, **more: str) -> dict[str, str]:
    digest = hmac.new(secret.encode(), body, "sha256").hexdigest()
    return {
        "X-Hub-Signature-256": f"sha256={digest}",
        **{name.replace("_", "-"): value for name, value in more.items()},
    }


def slack_signed(body: bytes) -> dict[str, str]:
    now = int(time.time())
    digest = hmac.new(b"8f742231b10e8888abcd99yyyzzz85a5", b"v0:%d:" % now + body, "sha256").hexdigest()
    return {"X-Slack-Request-Timestamp": str(now), "X-Slack-Signature": f"v0={digest}"}


def plain(response: HTTPResponse) -> str:
    """The body of an answer that repeats what was sent: browsers must not take it for a page."""
    assert response.code == 200, response.body
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert "no-store" in response.headers["Cache-Control"]
    text: str = response.body.decode()
    return text


# What is published


@pytest.mark.gen_test
async def test_a_signed_webhook_publishes_the_signal_and_is_answered_with_its_id(
    fetch: Fetch, publisher: Publisher
) -> None:
    response = await fetch("/hooks/github", method="POST", body=b'{"a":1}', headers=signed(b'{"a":1}'))
    assert (response.code, json.loads(response.body)) == (200, {"id": ID})
    assert response.headers["Content-Type"] == "application/json"
    assert publisher.payloads == [("c", b"UPDATED", False)]
    ((name, _, replay_key),) = publisher.published
    assert (name, len(replay_key or "")) == ("github", 64)
    assert publisher.hook_requests == {"github": 1}


@pytest.mark.parametrize(
    ("body", "content_type", "payload", "is_json"),
    [
        (b' {"a": [1.10]}\n', "application/json", b'{"a": [1.10]}', True),
        (b'{"a": 1}', "application/cloudevents+json; charset=utf-8", b'{"a": 1}', True),
        ("é\n".encode(), "text/plain", "é\n".encode(), False),
        (b"a=1&b=2", "application/x-www-form-urlencoded", b"a=1&b=2", False),
        (b"payload=%7B%22a%22%3A+1%7D", "application/x-www-form-urlencoded", b'{"a": 1}', True),
        (b"payload=1&more=2", "application/x-www-form-urlencoded", b"payload=1&more=2", False),
        (b"<a/>", "text/xml", b"<a/>", False),
        (b"", "application/json", b"UPDATED", False),
    ],
)
@pytest.mark.gen_test
async def test_a_body_is_published_as_it_came(
    fetch: Fetch, publisher: Publisher, body: bytes, content_type: str, payload: bytes, is_json: bool
) -> None:
    headers = signed(body, Content_Type=content_type)
    assert (await fetch("/hooks/body", method="POST", body=body, headers=headers)).code == 200
    assert publisher.payloads == [("a", payload, is_json), ("b", payload, is_json)]
    ((_, drafts, _),) = publisher.published
    assert [(draft.key, draft.type) for draft in drafts] == [("k", "t")] * 2


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"order": {"id": 12345678901234567890.10}, "action": "sent"}', "application/json"),
        (b"payload=%7B%22order%22%3A%7B%22id%22%3A12345678901234567890.10%7D%2C%22action%22%3A%22sent%22%7D",
         "application/x-www-form-urlencoded"),
    ],
)  # fmt: skip
@pytest.mark.gen_test
async def test_a_template_is_filled_from_the_body(
    fetch: Fetch, publisher: Publisher, body: bytes, content_type: str
) -> None:
    await fetch("/hooks/template", method="POST", body=body, headers=signed(body, Content_Type=content_type))
    assert publisher.payloads == [("c", b"order 12345678901234567890.10 is sent", False)]


@pytest.mark.parametrize(
    ("name", "body", "why"),
    [
        ("template", b'{"order": {}, "action": "sent"}', "no text, number or boolean at {order.id}"),
        ("template", b'{"order": {"id": "\\ud800"}, "action": "sent"}', "invalid JSON"),
        ("template", b"nonsense", "invalid JSON"),
        ("template", b"[" * 10_000 + b"]" * 10_000, "nested too deeply"),
        ("template", b'{"order": {"id": "%s"}, "action": "x"}' % (b"x" * 70_000), "exceed the limit of a message"),
        ("template", b"\xff", "not UTF-8"),
        ("body", b"[" * 10_000 + b"]" * 10_000, "nested too deeply"),
        ("body", b"nonsense", "invalid JSON"),
        ("body", b"\xff", "not UTF-8"),
        ("body", b'"%s"' % (b"x" * 70_000), "70002 bytes exceed the limit of a message"),
    ],
)  # fmt: skip
@pytest.mark.gen_test
async def test_what_cannot_be_published_as_configured_is_published_as_the_signal(
    fetch: Fetch, publisher: Publisher, events: list[tuple[str, dict[str, object]]], name: str, body: bytes, why: str
) -> None:
    """The sender cannot change it: it would retry, and in the end disable the hook."""
    headers = signed(body, Content_Type="application/json")
    assert (await fetch(f"/hooks/{name}", method="POST", body=body, headers=headers)).code == 200
    assert {data for _, data, _ in publisher.payloads} == {b"UPDATED"}
    ((event, fields), _) = events
    assert event == "hook_unusable"
    assert why in str(fields["detail"])


# Refusals


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/hooks/github", {}, 401),
        ("/hooks/github", {"X-Hub-Signature-256": "sha256=" + "0" * 64}, 401),
        ("/hooks/github", signed(b"other"), 401),
        ("/hooks/standard", {}, 401),
        ("/hooks/slack", {}, 401),
        ("/hooks/token", {}, 401),
        ("/hooks/token/", {}, 401),
        ("/hooks/token/wrong", {}, 401),
        ("/hooks/token/%FF", {}, 400),
        ("/hooks/github/x", {}, 404),
        ("/hooks/nothing", {}, 404),
        ("/hooks/", {}, 404),
        ("/hooks/%FF", {}, 400),
        ("/hooks/token/" + TOKEN + "/more", {}, 404),
    ],
)
@pytest.mark.gen_test
async def test_what_is_not_verified_is_refused_without_detail(
    fetch: Fetch, publisher: Publisher, path: str, headers: Mapping[str, str], status: int
) -> None:
    response = await fetch(path, method="POST", body=b"{}", headers=headers)
    assert (response.code, publisher.published) == (status, [])
    if status == 401:
        assert problem(response) == (401, "the request could not be verified")
        assert response.headers["WWW-Authenticate"]


@pytest.mark.gen_test
async def test_the_log_says_why_a_request_was_refused(
    fetch: Fetch, publisher: Publisher, events: list[tuple[str, dict[str, object]]]
) -> None:
    await fetch("/hooks/github", method="POST", body=b"{}", headers=signed(b"other"))
    await fetch("/hooks/someone's%20text", method="POST", body=b"{}")
    assert events == [
        ("hook_refused", {"hook": "github", "status": 401, "detail": "wrong signature", "address": "127.0.0.1",
                          "unlogged": None}),
        ("hook_refused", {"hook": None, "status": 404, "detail": "no hook of this name; it needs a [[hook]] in the"
                          " server's configuration", "address": "127.0.0.1", "unlogged": None}),
    ]  # fmt: skip
    assert publisher.hook_refused == {("github", "unverified"): 1}  # names are bounded by the configuration


@pytest.mark.parametrize(
    ("path", "method", "allow"),
    [
        ("/hooks/github", "GET", "HEAD, POST, OPTIONS"),
        ("/hooks/github", "PUT", "HEAD, POST, OPTIONS"),
        ("/hooks/github", "DELETE", "HEAD, POST, OPTIONS"),
        ("/hooks/github", "PROPFIND", None),
        (f"/hooks/token/{TOKEN}", "GET", "HEAD, POST, OPTIONS"),
        (f"/hooks/websub/{TOKEN}", "GET", "HEAD, POST, OPTIONS"),
        (f"/hooks/fetched/{TOKEN}", "PUT", "GET, HEAD, POST, OPTIONS"),
    ],
)
@pytest.mark.gen_test
async def test_other_methods_are_refused(
    fetch: Fetch, publisher: Publisher, path: str, method: str, allow: str | None
) -> None:
    response = await fetch(path, method=method)
    assert (problem(response)[0], publisher.published) == (405, [])
    if allow is not None:
        assert response.headers["Allow"] == allow


@pytest.mark.gen_test
async def test_a_body_over_the_limit_is_413_whether_its_length_is_known_or_not(
    fetch: Fetch, hooks: Hooks, publisher: Publisher
) -> None:
    fits, over = b"x" * 100, b"x" * 101

    def chunks(body: bytes) -> Any:
        async def produce(write: Any) -> None:
            await write(body)

        return produce

    for send in ({"body": over}, {"body_producer": chunks(over)}):
        response = await fetch("/hooks/small", method="POST", headers=signed(over), **send)
        assert problem(response) == (413, "the body exceeds the limit of 100 bytes")
    for send in ({"body": fits}, {"body_producer": chunks(fits)}):
        assert (await fetch("/hooks/small", method="POST", headers=signed(fits), **send)).code == 200
    assert publisher.hook_refused == {("small", "payload_too_large"): 2}
    assert hooks._receiving == {}


@pytest.mark.gen_test
async def test_a_body_of_a_mebibyte_is_accepted_although_a_message_is_shorter(
    fetch: Fetch, publisher: Publisher
) -> None:
    body = b"x" * (1 << 20)
    assert (await fetch("/hooks/github", method="POST", body=body, headers=signed(body))).code == 200
    body += b"x"
    assert (await fetch("/hooks/github", method="POST", body=body, headers=signed(body))).code == 413
    assert publisher.payloads == [("c", b"UPDATED", False)]


@pytest.mark.parametrize(("error", "status"), [(Unavailable("busy", 7), 503), (StoreFull("full"), 507)])
@pytest.mark.gen_test
async def test_a_webhook_that_could_not_be_stored_is_to_be_sent_again(
    fetch: Fetch, publisher: Publisher, error: Exception, status: int
) -> None:
    publisher.problem = error
    response = await fetch("/hooks/github", method="POST", body=b"{}", headers=signed(b"{}"))
    assert problem(response)[0] == status
    assert int(response.headers["Retry-After"]) > 0


# Handshakes


@pytest.mark.gen_test
async def test_githubs_ping_publishes_nothing(fetch: Fetch, publisher: Publisher) -> None:
    for event, published in (("ping", 0), ("push", 1)):
        headers = signed(b"{}", X_GitHub_Event=event)
        assert (await fetch("/hooks/github", method="POST", body=b"{}", headers=headers)).code == 200
        assert len(publisher.published) == published
    response = await fetch("/hooks/github", method="POST", body=b"{}", headers={"X-GitHub-Event": "ping"})
    assert response.code == 401


@pytest.mark.gen_test
async def test_slacks_url_verification_is_answered_with_its_challenge_once_it_is_verified(
    fetch: Fetch, publisher: Publisher
) -> None:
    body = b'{"token":"Jhj5dZrVaK7ZwHHjRyZWjbDl","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY","type":"url_verification"}'
    response = await fetch("/hooks/slack", method="POST", body=body, headers=slack_signed(body))
    assert plain(response) == "3eZbrw1aBm2rZgRNFdxV2595E9CY"
    response = await fetch("/hooks/slack", method="POST", body=body, headers=slack_signed(body + b" "))
    assert problem(response)[0] == 401
    assert publisher.published == []
    event = b'{"type":"event_callback","event":{"text":"url_verification"}}'
    assert (await fetch("/hooks/slack", method="POST", body=event, headers=slack_signed(event))).code == 200
    assert len(publisher.published) == 1


@pytest.mark.parametrize("challenge", [b'""', b'"%s"' % (b"x" * 2049)])
@pytest.mark.gen_test
async def test_a_challenge_has_a_bounded_length(fetch: Fetch, challenge: bytes) -> None:
    body = b'{"challenge":%b,"type":"url_verification"}' % challenge
    response = await fetch("/hooks/slack", method="POST", body=body, headers=slack_signed(body))
    assert problem(response) == (400, "challenge must have 1 to 2048 characters")


@pytest.mark.gen_test
async def test_trellos_head_is_answered(fetch: Fetch, publisher: Publisher) -> None:
    for path, code in ((f"/hooks/token/{TOKEN}", 200), ("/hooks/token/wrong", 401), ("/hooks/github", 200)):
        response = await fetch(path, method="HEAD")
        assert (response.code, response.body) == (code, b"")
    assert (await fetch(f"/hooks/fetched/{TOKEN}?what=x", method="HEAD")).code == 200
    assert publisher.published == []


@pytest.mark.gen_test
async def test_the_validation_token_of_microsoft_graph_is_repeated_as_plain_text(
    fetch: Fetch, publisher: Publisher
) -> None:
    path = f"/hooks/token/{TOKEN}?validationToken="
    sent = "Validation%3A+Testing+client+application+%3Cscript%3E%C3%A9"
    for body in (b"", b" "):
        response = await fetch(path + sent, method="POST", body=body, headers={"Content-Type": "text/plain"})
        assert plain(response) == "Validation: Testing client application <script>é"
    for wrong in ("", "x" * 2049):
        assert problem(await fetch(path + wrong, method="POST", body=b""))[0] == 400
    assert (await fetch(f"/hooks/token/wrong?validationToken={sent}", method="POST", body=b"")).code == 401
    assert (await fetch(path + sent)).code == 405
    assert publisher.published == []
    body = b'{"value":[]}'
    assert (await fetch(f"/hooks/token/{TOKEN}", method="POST", body=body)).code == 200
    assert len(publisher.published) == 1


@pytest.mark.gen_test
async def test_a_validation_token_means_nothing_to_a_hook_with_signatures(fetch: Fetch, publisher: Publisher) -> None:
    response = await fetch("/hooks/github?validationToken=x", method="POST", body=b"{}", headers=signed(b"{}"))
    assert json.loads(response.body) == {"id": ID}


@pytest.mark.gen_test
async def test_metas_challenge_is_answered_if_its_verify_token_is_right(fetch: Fetch, publisher: Publisher) -> None:
    query = "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token="
    assert plain(await fetch(f"/hooks/meta?{query}%C3%BC+verify")) == "1158201444"
    for wrong in ("", "x", "%FF"):
        assert problem(await fetch(f"/hooks/meta?{query}{wrong}"))[0] == 401
    assert (await fetch("/hooks/meta")).code == 405
    assert (await fetch(f"/hooks/github?{query}x")).code == 405  # only where the option asks for it
    assert publisher.published == []
    assert publisher.hook_refused["meta", "unverified"] == 3


@pytest.mark.gen_test
async def test_websubs_challenge_is_answered_at_the_url_that_only_the_hub_knows(
    fetch: Fetch, publisher: Publisher
) -> None:
    query = "hub.mode=subscribe&hub.topic=https%3A%2F%2Fexample.com%2Ffeed&hub.challenge=abc&hub.lease_seconds=100"
    assert plain(await fetch(f"/hooks/websub/{TOKEN}?{query}")) == "abc"
    assert (await fetch(f"/hooks/websub/wrong?{query}")).code == 401
    assert plain(await fetch(f"/hooks/websub/{TOKEN}?hub.mode=denied&hub.topic=x")) == ""
    assert (await fetch(f"/hooks/websub/{TOKEN}?hub.mode=subscribe")).code == 400
    assert publisher.published == []


@pytest.mark.gen_test
async def test_the_handshake_of_cloudevents_is_answered(fetch: Fetch, publisher: Publisher) -> None:
    path = f"/hooks/token/{TOKEN}"
    headers = {"WebHook-Request-Origin": "eventgrid.azure.net", "WebHook-Request-Rate": "120"}
    response = await fetch(path, method="OPTIONS", headers=headers)
    assert response.code == 200
    fields = ("WebHook-Allowed-Origin", "WebHook-Allowed-Rate", "Allow")
    assert [response.headers[name] for name in fields] == ["eventgrid.azure.net", "*", "HEAD, POST, OPTIONS"]
    response = await fetch(path, method="OPTIONS", headers={"WebHook-Request-Origin": "<script>"})
    assert problem(response)[0] == 400
    response = await fetch(path, method="OPTIONS")
    assert (response.code, response.headers.get("WebHook-Allowed-Origin")) == (200, None)
    assert (await fetch("/hooks/token/wrong", method="OPTIONS", headers=headers)).code == 401
    assert publisher.published == []


@pytest.mark.gen_test
async def test_discords_ping_is_answered_with_the_same(fetch: Fetch, publisher: Publisher) -> None:
    path, headers = f"/hooks/token/{TOKEN}", {"X-Signature-Ed25519": "00", "Content-Type": "application/json"}
    response = await fetch(path, method="POST", body=b'{"type":1,"application_id":"9"}', headers=headers)
    assert (response.code, json.loads(response.body), publisher.published) == (200, {"type": 1}, [])
    for body, more in ((b'{"type":2}', headers), (b'{"type":1}', {}), (b"[" * 200, headers)):
        assert (await fetch(path, method="POST", body=body, headers=more)).code == 200
    assert len(publisher.published) == 3


# A URL that only has to be fetched


@pytest.mark.gen_test
async def test_a_sender_that_can_only_fetch_publishes_where_it_is_allowed(fetch: Fetch, publisher: Publisher) -> None:
    """As in 2009: a GET with a number that changes, so that no cache answers it."""
    for number in range(2):
        assert (await fetch(f"/hooks/fetched/{TOKEN}?what=news&_={number}")).code == 200
    assert publisher.payloads == [("c", b"news", False)] * 2
    assert [key for _, _, key in publisher.published] == [None, None]  # the same again is another event
    assert (await fetch("/hooks/fetched/wrong?what=news")).code == 401
    assert (await fetch(f"/hooks/fetched/{TOKEN}")).code == 200
    assert publisher.payloads[-1] == ("c", b"UPDATED", False)


@pytest.mark.gen_test
async def test_a_token_publishes_with_any_body(fetch: Fetch, publisher: Publisher) -> None:
    for body in (b"", b"x", b"\xff", b"x" * 100_000):
        assert (await fetch(f"/hooks/token/{TOKEN}", method="POST", body=body)).code == 200
    assert publisher.payloads == [("c", b"UPDATED", False)] * 4


@pytest.mark.gen_test
async def test_the_library_of_standard_webhooks_is_understood(fetch: Fetch, publisher: Publisher) -> None:
    now, keys = datetime.now(UTC), []
    for id in ("msg_1", "msg_1", "msg_2"):
        headers = {
            "webhook-id": id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": Webhook(STANDARD).sign(id, now, '{"type":"a"}'),
        }
        assert (await fetch("/hooks/standard", method="POST", body=b'{"type":"a"}', headers=headers)).code == 200
    keys = [key for _, _, key in publisher.published]
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.gen_test
async def test_refusals_of_hooks_fill_no_log(
    fetch: Fetch, hooks: Hooks, monkeypatch: pytest.MonkeyPatch, events: list[tuple[str, dict[str, object]]]
) -> None:
    monkeypatch.setattr(logs, "_LINES_PER_S", 2)
    hooks.clock = lambda: 1_700_000_000.0
    for _ in range(4):
        assert (await fetch("/hooks/nobody", method="POST", body=b"{}")).code == 404
    assert len(events) == 2


@pytest.mark.gen_test
async def test_hooks_are_replaced_as_a_whole(fetch: Fetch, hooks: Hooks, publisher: Publisher) -> None:
    hooks.reconfigure([hook("other", "github", SECRET)])
    assert (await fetch("/hooks/github", method="POST", body=b"{}", headers=signed(b"{}"))).code == 404
    assert (await fetch("/hooks/other", method="POST", body=b"{}", headers=signed(b"{}"))).code == 200


@pytest.mark.gen_test
async def test_a_bug_is_logged_without_the_token(
    fetch: Fetch, publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    publisher.problem = RuntimeError("a bug")
    assert (await fetch(f"/hooks/token/{TOKEN}", method="POST", body=b"")).code == 500
    assert "BUG: unhandled exception in a page" in caplog.text
    assert TOKEN not in caplog.text
