from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import pushcompat
from pushcompat import ListenRefused, Message, Reset, TokenRefused, listen, publish, publish_batch
from pushcompat.client.transports import TRANSPORTS

from ..harness import KEY, PATIENCE_S, Server, client_tls, running
from ..stub import CERTIFICATE, json_says, refuses, stub
from .test_listener import ENDS, OVER, bearer, control, cursor, hold, message, opened, resumed, tokens

every_transport = pytest.mark.parametrize("transport", [*TRANSPORTS, None])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from running(tmp_path_factory.mktemp("state"))


@every_transport
def test_messages_are_yielded_as_they_were_published(server: Server, transport: str | None) -> None:
    channels = [f"{transport}-1", f"{transport}-2"]
    publish(channels[0], {"n": 1}, type="t", message_key="k", url=server.url, key=KEY)
    publish(channels[1], "two", url=server.url, key=KEY)
    with closing(listen(channels, url=server.url, cursor="earliest", transport=transport)) as events:
        first, second = next(events), next(events)
        publish(channels[0], url=server.url, key=KEY)
        third = next(events)
    assert isinstance(first, Message)
    assert isinstance(second, Message)
    assert isinstance(third, Message)
    assert (first.channel, first.data, first.type, first.message_key) == (channels[0], {"n": 1}, "t", "k")
    assert (second.channel, second.data, second.type, second.message_key) == (channels[1], "two", None, None)
    assert (third.data, third.json) == ("UPDATED", b'"UPDATED"')
    assert first.cursor < second.cursor < third.cursor
    assert third.time >= first.time > 1_700_000_000_000


@every_transport
def test_it_goes_on_behind_a_cursor_that_was_kept(server: Server, transport: str | None) -> None:
    kept = publish("kept", 1, url=server.url, key=KEY).id
    publish("kept", 2, url=server.url, key=KEY)
    with closing(listen("kept", url=server.url, cursor=kept, transport=transport)) as events:
        assert next(events).cursor > kept


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_lost_messages_are_a_reset_among_the_messages(transport: str) -> None:
    reset = control("reset", 7, "e1111111", channels=["a"], spread=250)
    script = OVER[transport](opened(0), message(1), reset, message(8, epoch="e1111111"), then=hold)
    with stub(script) as server, closing(listen("a", url=server.url, transport=transport)) as events:
        assert [next(events).cursor for _ in range(3)] == [cursor(1), cursor(7, "e1111111"), cursor(8, "e1111111")]
    with stub(script) as server, closing(listen("a", url=server.url, transport=transport)) as events:
        next(events)
        assert next(events) == Reset(cursor(7, "e1111111"), ["a"], 250)


@pytest.mark.parametrize("transport", ENDS)
def test_a_function_is_asked_for_the_token_of_each_connection(transport: str) -> None:
    with (
        stub(
            OVER[transport](opened(0), message(1), control("expired", 2), then=ENDS[transport]),
            OVER[transport](opened(2), message(3), then=hold),
        ) as server,
        closing(listen("a", url=server.url, transport=transport, token=tokens("t1", "t2"))) as events,
    ):
        assert [next(events).cursor for _ in range(2)] == [cursor(1), cursor(3)]
    assert [bearer(talk) for talk in server.talks] == ["t1", "t2"]
    assert resumed(server.talks[1]) == cursor(2)


@pytest.mark.parametrize(("status", "error"), [(401, TokenRefused), (403, ListenRefused), (404, ListenRefused)])
@every_transport
def test_a_refusal_is_raised_with_what_the_server_says(
    transport: str | None, status: int, error: type[Exception]
) -> None:
    with (
        stub(refuses(status, "say please")) as server,
        pytest.raises(error, match="say please"),
    ):
        next(listen("a", url=server.url, transport=transport))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"channels": "a b"}, "not a valid channel name"),
        ({"channels": []}, "at least one channel"),
        ({"transport": "pigeon"}, "websocket, eventsource, longpoll"),
        ({"url": "ftp://x"}, "not a valid server URL"),
    ],
)
def test_invalid_arguments_are_refused_before_the_first_event(arguments: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        listen(**{"channels": "a", **arguments})  # type: ignore[arg-type]


def test_the_generator_ends_when_its_time_is_up(server: Server) -> None:
    notes: list[str] = []
    assert list(listen("quiet", url=server.url, timeout=0.2, note=notes.append)) == []
    assert notes[0] == "websocket: connected"


def test_numbers_that_python_has_no_float_for_end_nothing() -> None:
    odd = message(1).replace(b'"x"', b"[1e400,12345678901234567890123]")
    with (
        stub(OVER["websocket"](opened(0), odd, message(2), then=hold)) as server,
        closing(listen("a", url=server.url)) as events,
    ):
        first = next(events)
        assert next(events).cursor == cursor(2)
    assert isinstance(first, Message)
    assert first.json == b"[1e400,12345678901234567890123]"
    assert first.data == [float("inf"), 12345678901234567890123]


def test_it_leaves_the_server_when_it_is_closed(server: Server) -> None:
    events = listen("leaving", url=server.url, cursor="earliest")
    publish("leaving", 1, url=server.url, key=KEY)
    next(events)
    events.close()
    assert "transport=websocket" in server.wait_for_log(r"unsubscribe .*channels=leaving")


def test_a_context_says_whom_to_trust(tmp_path: Path) -> None:
    for server in running(tmp_path, "--tls-cert", str(CERTIFICATE), "--tls-key", str(CERTIFICATE)):
        with pytest.raises(ListenRefused, match="certificate"):
            next(listen("a", url=server.url))
        publish("a", 1, url=server.url, key=KEY, ssl_context=client_tls())
        with closing(listen("a", url=server.url, cursor="earliest", ssl_context=client_tls())) as events:
            assert next(events).cursor


def test_a_server_on_a_unix_socket_is_listened_to(tmp_path: Path) -> None:
    path = tmp_path / "s"
    words = ["--unix-socket", str(path), "--state-dir", str(tmp_path)]
    url = f"http+unix://{str(path).replace('/', '%2F')}"
    environment = {**os.environ, "PUSHCOMPAT_PUBLISH_KEY": KEY}
    with subprocess.Popen(
        [sys.executable, "-m", "pushcompat", *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            publish("a", 1, url=url, key=KEY)
            with closing(listen("a", url=url, cursor="earliest")) as events:
                assert next(events).cursor
        finally:
            process.terminate()


def test_threads_listen_each_for_themselves(server: Server) -> None:
    seen: list[object] = []

    def follow(name: str) -> None:
        with closing(listen(name, url=server.url, cursor="earliest", timeout=PATIENCE_S)) as events:
            event = next(events)
        assert isinstance(event, Message)
        seen.append(event.data)

    threads = [threading.Thread(target=follow, args=(f"thread-{number}",)) for number in range(3)]
    for thread in threads:
        thread.start()
    publish_batch([{"channel": f"thread-{number}", "data": number} for number in range(3)], url=server.url, key=KEY)
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(map(str, seen)) == ["0", "1", "2"]


# `key` is the publish key, and nothing else


def test_the_key_of_a_batchs_message_is_message_key(server: Server) -> None:
    publish_batch(
        [{"channel": "keyed", "data": number, "message_key": "k"} for number in range(3)], url=server.url, key=KEY
    )
    with closing(listen("keyed", url=server.url, cursor="earliest")) as events:
        only = next(events)
    assert isinstance(only, Message)
    assert (only.data, only.message_key) == (2, "k")
    for update, said in (({"key": "k"}, "no key; the key of a message is message_key"), ({"tpye": "t"}, "no tpye$")):
        with pytest.raises(ValueError, match=said):
            publish_batch([{"channel": "keyed", **update}], url=server.url, key=KEY)  # type: ignore[list-item,typeddict-item]


def test_publishing_imports_neither_the_subscriber_nor_its_dependencies() -> None:
    code = "import sys; from pushcompat import publish; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "pushcompat.client.publisher" in loaded
    assert not {"pushcompat.client.subscriber", "msgspec", "websockets"} & set(loaded)


def test_all_public_names_can_be_imported() -> None:
    assert {name for name in pushcompat.__all__ if getattr(pushcompat, name) is None} == set()


def test_an_answer_that_is_no_batch_is_no_message() -> None:
    """Of a captive portal that speaks JSON nothing reaches the application."""
    with stub(json_says(200, {"id": "you are not logged in"})) as server:
        assert list(listen("a", url=server.url, transport="longpoll", timeout=0.3)) == []
