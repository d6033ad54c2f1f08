"""What must hold of each parser for any input.

A target takes the input of the fuzzer and raises if something does not hold. An input that is refused with the error
that the parser documents is fine.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pushcompat.access.credentials import bearer, cookie
from pushcompat.access.patterns import Pattern
from pushcompat.access.providers import PROVIDERS, Unverified
from pushcompat.access.proxies import Proxies
from pushcompat.access.token_keys import load_token_keys
from pushcompat.access.tokens import Verifier
from pushcompat.client.transports import EventParser
from pushcompat.errors import RequestError, Unauthorized
from pushcompat.message import EARLIEST, SIGNAL_KEY, Message, parse_cursor
from pushcompat.tls import BLOCKED, Certificate
from pushcompat.wire import drafts
from pushcompat.wire.forwarded import Reports
from pushcompat.wire.names import NAME, channel_names
from pushcompat.wire.negotiation import controls, heartbeat_s, hold_s, requested_cursor, text_format, transport
from pushcompat.wire.request import HEAD_END, Request, cut_keys, known_fields, parse_head
from pushcompat.wire.templates import Missing, Template
from pushcompat.wire.websocket import Input

Target = Callable[[bytes], None]

_EPOCH = "e0000000"
_MESSAGE_BYTES = 4096
_MOST_MESSAGES = 50


def _check_sentence(text: str, without: str = "") -> None:
    """An error is one line, and does not have the secret in it."""
    assert text.isprintable(), text
    assert len(without) < 8 or without not in text, text


def pieces(data: bytes) -> tuple[bytes, list[bytes]]:
    """The input, and the same in pieces whose sizes its first bytes say."""
    sizes, data = data[:8], data[8:]
    cut, at = [], 0
    for size in sizes:
        cut.append(data[at : at + size])
        at += size
    return data, [*cut, data[at:]]


def head(data: bytes) -> None:
    """A head is read or refused; what is remembered of its fields changes nothing."""
    end = data.find(HEAD_END)
    data = data[: end + 4] if end >= 0 else data + HEAD_END
    known_fields.cache_clear()
    first, second = _read(data), _read(data)
    assert first == second
    text, keys = cut_keys(data.partition(b"\r\n")[2])
    assert (keys is None) == (text == data.partition(b"\r\n")[2])


def _read(data: bytes) -> object:
    """Everything that the server asks a head for."""
    found: list[object] = []
    try:
        request = parse_head(data)
    except RequestError as refused:
        _check_sentence(refused.detail)
        return refused.detail
    found += [request.method, request.path, dict(request.params), request.keep_alive, request.has_body]
    found += [request.idempotency_key, request.websocket_key, bearer(request), cookie(request, b"session")]
    for ask in _QUESTIONS:
        try:
            found.append(ask(request))
        except RequestError as refused:
            _check_sentence(refused.detail)
            found.append(refused.detail)
    return found


_QUESTIONS: Sequence[Callable[[Request], object]] = (
    transport,
    lambda request: channel_names(request.path.rpartition("/")[2], 64),
    lambda request: 0 <= hold_s(request.params, 25.0) <= 25.0,
    lambda request: text_format(request.params, "text"),
    lambda request: heartbeat_s(request.params, 15.0),
    lambda request: controls(request.params),
    lambda request: requested_cursor(request, _EPOCH),
    lambda request: request.check_length(1000),
)


def chunked(data: bytes) -> None:
    """A chunked body is the same however it arrives, and what follows it is left alone."""
    whole, parts = pieces(data)
    one, several = _chunked([whole]), _chunked(parts)
    assert one == several


def _chunked(parts: Sequence[bytes]) -> object:
    request = parse_head(b"POST /channels/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    rest = b""
    try:
        for part in parts:
            if request.complete:
                rest += part
            elif part:
                rest += request.feed(part)
    except RequestError:
        return "refused"
    return bytes(request.body), request.complete, rest


def websocket(data: bytes) -> None:
    """Frames are the same however they arrive; replies are bounded by what was sent."""
    whole, parts = pieces(data)
    one, replies = _frames([whole])
    several, more = _frames(parts)
    assert one == several
    assert len(replies) <= len(whole) + 256
    assert len(more) <= len(whole) + 256


def _frames(parts: Sequence[bytes]) -> tuple[object, bytes]:
    reader, replies = Input(1024), b""
    for part in parts:
        if part and not reader.finished:
            reader.receive(part)
            replies += reader.replies()
    # Not the code: which of two faults is found first depends on how they arrive.
    return (reader.closing, reader.finished), replies


def publish(data: bytes) -> None:
    """What is accepted is what a subscriber can read; a batch is accepted as a whole or not at all."""
    kind, body = data[:1], data[1:]
    types = (b"application/json", b"text/plain", b"", b"application/vnd.api+json", kind + b"/x; charset=" + kind)
    try:
        media_type = drafts.media_type(types[kind[0] % len(types)] if kind else b"", b"")
        params = {"ttl": body[:3].decode("latin-1")} if kind == b"t" else {}
        _check(drafts.single(body, media_type == "application/json", ("a", "b"), params))
    except RequestError as refused:
        _check_sentence(refused.detail)
    try:
        batch, _ = drafts.batch(
            body, "application/json", {}, max_messages=_MOST_MESSAGES, message_bytes=_MESSAGE_BYTES
        )  # fmt: skip
        assert 0 < len(batch) <= _MOST_MESSAGES
        _check(batch)
    except RequestError as refused:
        _check_sentence(refused.detail)


def _check(messages: Sequence[Message]) -> None:
    for message in messages:
        assert NAME.fullmatch(message.channel)
        message.data.decode()
        assert message.data
        assert message.ttl_s is None or 0 < message.ttl_s < float("inf")
        assert message.key in (None, SIGNAL_KEY) or NAME.fullmatch(message.key)
        if message.json:
            json.loads(message.data)


def forwarded(data: bytes) -> None:
    """Any text of a proxy has a meaning, and it is an address or none: never more than one host."""
    texts = data.decode("latin-1").split("\n")
    reports = Reports(*(texts + [""] * 4)[:4])
    for trusted in _TRUSTED:
        client = trusted.client(reports)
        assert client == trusted.client(reports)
        assert len(client.address) <= 45
        assert re.fullmatch(r"[a-z0-9._~:\[\]-]*", client.host)
        assert client.scheme in ("", "http", "https")


_TRUSTED = (Proxies(), Proxies(["127.0.0.0/8", "10.0.0.0/8", "2001:db8::/32", "unix"]))


def cookies(data: bytes) -> None:
    """A cookie is read by its whole name, and cookies beside it change nothing."""
    name, _, text = data.partition(b"\n")
    value = _cookie(name, text)
    if value is None:
        return
    assert b";" not in value
    assert not value or (name in text and value in text)
    if name.strip() != b"other":
        assert _cookie(name, text + b"; other=1") == _cookie(name, b"other=1;" + text) == value
    if re.fullmatch(rb"[\w.-]+", name):
        assert _cookie(name, name + b"=first; " + text) == b"first"


def _cookie(name: bytes, text: bytes) -> bytes | None:
    """None: the head was refused, or has other fields too."""
    if b"\n" in text or b"\r" in text:
        return None
    try:
        return cookie(parse_head(b"GET /channels/a HTTP/1.1\r\nHost: a\r\nCookie: " + text + HEAD_END), name)
    except RequestError as refused:
        _check_sentence(refused.detail)
        return None


def tls(data: bytes) -> None:
    """Whatever comes before or in a handshake is waited for, answered or refused, however it arrives."""
    whole, parts = pieces(data)
    assert _handshake([whole]) == _handshake(parts)


def _handshake(parts: Sequence[bytes]) -> str:
    """How it ends, as far as it comes."""
    ours, client = socket.socketpair()
    with client, _CERTIFICATE.wrap(ours) as server:
        for part in parts:
            client.sendall(part)
            try:
                server.do_handshake()
            except BLOCKED:
                continue
            except OSError:  # SSLError too; which of two faults is found first depends on how they arrive
                return "refused"
            raise AssertionError("complete")
    return "waits"


_CERTIFICATE = Certificate(Path(__file__).parents[1] / "tls.pem")


def rules(data: bytes) -> None:
    """A pattern matches as its regular expression does, and covers only what it matches."""
    first, second, name, sub = (data.decode("latin-1").split("\n") + [""] * 4)[:4]
    pattern, other = _pattern(first), _pattern(second)
    if pattern is None:
        return
    if NAME.fullmatch(name):
        assert pattern.matches(name) == bool(_regex(pattern.text).fullmatch(name))
        if pattern.matches_for(name, sub):
            assert pattern.matches(name)
            assert not pattern.uses_sub or sub in name
        if other is not None and pattern.covers(other) and other.matches(name):
            assert pattern.matches(name)


def _pattern(text: str) -> Pattern | None:
    try:
        return Pattern(text)
    except ValueError as error:
        _check_sentence(str(error))
        return None


def _regex(text: str) -> re.Pattern[str]:
    return re.compile(re.escape(text.replace("{sub}", "*")).replace(r"\*", "[A-Za-z0-9._:~@-]+"))


def token(data: bytes) -> None:
    """A token without a signature of ours is refused, by a sentence that does not have it."""
    for verifier in _VERIFIERS:
        try:
            verifier.verify(data, time.time())
        except Unauthorized as refused:
            _check_sentence(refused.detail, without=data.decode("latin-1"))
            continue
        raise AssertionError("accepted")


_SECRETS = ["a secret of at least thirty-two bytes, for tests", "another secret of at least thirty-two bytes, too"]
_VERIFIERS = (Verifier(load_token_keys([], _SECRETS[0])), Verifier(load_token_keys([], _SECRETS[1])))


def webhook(data: bytes) -> None:
    """A request that its sender has not signed is refused, by a sentence that does not say why."""
    fields, _, body = data.partition(b"\n\n")
    lines = [line.partition(b":") for line in fields.split(b"\n")]
    headers = {name.decode("latin-1"): value.strip().decode("latin-1") for name, _, value in lines}
    for provider in PROVIDERS.values():
        try:
            provider.verify(headers, body, [b"k" * 32], 1_700_000_000.0)
        except Unverified:
            continue
        raise AssertionError(f"{provider.name}: accepted")


def template(data: bytes) -> None:
    """A template is refused or rendered, from any document."""
    text, _, document = data.decode("latin-1").partition("\n")
    try:
        Template(text).render(json.loads(document))
    except (ValueError, Missing) as error:
        _check_sentence(str(error))
    except RecursionError:
        pass  # of the document, which this test decodes


def cursor(data: bytes) -> None:
    """A cursor is read as it is written, or not at all."""
    text = data.decode("latin-1")
    found = parse_cursor(text)
    if found is not None:
        epoch, sequence = found
        assert f"{epoch}-{sequence:015}" == text
        assert text != EARLIEST


def events(data: bytes) -> None:
    """An event stream is the same however it arrives at the client."""
    whole, parts = pieces(data)
    assert list(_events([whole])) == list(_events(parts))


def _events(parts: Sequence[bytes]) -> Iterator[bytes]:
    parser = EventParser()
    for part in parts:
        if part:
            yield from parser.feed(part)


TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        head, chunked, websocket, publish, forwarded, cookies, tls, rules, token, webhook, template, cursor, events
    )
}  # fmt: skip
