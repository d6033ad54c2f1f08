"""Heads are fed whole, because the hub sees to that; bodies whole, byte by byte, and with more behind them."""

from __future__ import annotations

import contextlib
import gc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushcompat.errors import (
    BadRequest,
    HeadTooLarge,
    HttpVersion,
    NotImplementedMethod,
    PayloadTooLarge,
    RequestError,
)
from pushcompat.wire.request import MAX_FIELD_LINES, MAX_PARAMETERS, Request, cut_keys, parse_head, parse_target


def head(*lines: str, method: str = "GET", target: str = "/", version: str = "HTTP/1.1") -> bytes:
    return "\r\n".join([f"{method} {target} {version}", "Host: test", *lines, "", ""]).encode("latin-1")


def post(*lines: str) -> Request:
    return parse_head(head(*lines, method="POST", target="/channels/chat"))


# Heads


def test_a_head_becomes_a_request() -> None:
    request = parse_head(head("Accept: text/html", target="/channels/a,b?cursor=x&wait=5"))
    assert (request.method, request.path, request.fields.version) == ("GET", "/channels/a,b", "1.1")
    assert request.params == {"cursor": "x", "wait": "5"}
    assert request.header(b"accept") == "text/html"
    assert request.header(b"absent") == ""
    assert request.keep_alive
    assert not request.has_body
    assert request.reusable


@pytest.mark.parametrize("name", ["content-length", "CONTENT-LENGTH", "Content-Length"])
def test_header_names_may_be_in_any_case(name: str) -> None:
    assert post(f"{name}: 5").fields.content_length == 5


@pytest.mark.parametrize("line", ["X:a", "X:  a  ", "X:\ta\t"])
def test_blanks_around_a_value_are_not_part_of_it(line: str) -> None:
    assert parse_head(head(line)).header(b"x") == "a"


def test_values_of_a_repeated_header_are_joined() -> None:
    assert parse_head(head("X: a", "x: b")).header(b"x") == "a, b"


def test_the_absolute_form_is_understood() -> None:
    request = parse_head(head(target="http://push.example:80/channels/chat?wait=5"))
    assert (request.path, request.params) == ("/channels/chat", {"wait": "5"})


@pytest.mark.parametrize(
    ("target", "path", "params"),
    [
        (b"/a%2Fb%20c", "/a/b c", {}),
        (b"/%C3%BC", "/ü", {}),
        (b"/a+b?c+d=e+f", "/a+b", {"c d": "e f"}),
        (b"/?a=1&a=2", "/", {"a": "2"}),
        (b"/?a&b=&=c&&", "/", {"a": "", "b": ""}),
        (b"/?a=b=c", "/", {"a": "b=c"}),
        (b"/?a=%26%3D", "/", {"a": "&="}),
        (b"/?a?b=c", "/", {"a?b": "c"}),
        (b"/%zz%4", "/%zz%4", {}),
        (b"wss://host/a?b=c", "/a", {"b": "c"}),
        (b"HTTP://host/a?b=c", "/a", {"b": "c"}),
        (b"https://user:secret@host:1/a", "/a", {}),
        (b"http://host", "/", {}),
        (b"http://host?a=b", "/", {"a": "b"}),
        (b"ftp://host/a", "ftp://host/a", {}),
        (b"*", "*", {}),
    ],
)
def test_a_target_is_taken_apart(target: bytes, path: str, params: dict[str, str]) -> None:
    assert parse_target(target) == (path, params)


def test_a_long_target_is_taken_apart_like_a_short_one() -> None:
    value = "x" * 5000
    assert parse_target(b"/a?b=" + value.encode()) == ("/a", {"b": value})


def test_a_path_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(BadRequest, match="UTF-8"):
        parse_head(head(target="/channels/%ff"))


def test_a_parameter_that_is_not_utf8_is_a_value_like_any_other() -> None:
    assert parse_target(b"/?cursor=%ff") == ("/", {"cursor": "\ufffd"})


@pytest.mark.parametrize(
    "data",
    [
        head("X: a", " folded"),
        head("Content-Length: 1", " 2"),
        head("X : blank before the colon"),
        head(": no name"),
        head("no colon"),
        head("X: nul \0"),
        head("X: bare \r return"),
        head("Host: twice"),
        head().replace(b"Host: test", b"Host: a, b"),
        head().replace(b"Host: test\r\n", b""),
        head().replace(b"\r\n", b"\n"),
        head().replace(b"\r\n", b"\n", 1),
        head().replace(b"\r\n", b"\r"),
        head()[:-2] + b"\n",
        head(version="HTTP/1.2"),
        head(version="HTTP/3.0"),
        head(version="HTTP/11"),
        head(version="HTTP/"),
        head(version="ICY/1.1"),
        head(target="no-slash"),
        head(target="/a b"),
        head(target="/\xff"),
        head(target=""),
        head("Content-Length: -1"),
        head("Content-Length: +1"),
        head("Content-Length: 1e3"),
        head("Content-Length: 0x10"),
        head("Content-Length: 1, 1"),
        head("Content-Length: "),
        head("Content-Length: 1", "Content-Length: 1"),
        head("Content-Length: 1", "Content-Length: 2"),
        head("Content-Length: " + "9" * 5000),
        head("Content-Length: 5", "Transfer-Encoding: chunked"),
        head("Transfer-Encoding: chunked", "Content-Length: 5", method="POST"),
        head("Transfer-Encoding: gzip"),
        head("Transfer-Encoding: gzip, chunked", method="POST"),
        head("Transfer-Encoding: chunked, identity", method="POST"),
        head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked", method="POST"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"\0\r\n\r\n",
        b"{}\r\n\r\n",
    ],
)
def test_a_malformed_head_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequest):
        parse_head(data)


@pytest.mark.parametrize("host", ["a b", "user@host", "x/y", "a?b", "[::1", "::1", "a:b", "a:80:80", "bücher.example"])
def test_a_host_that_is_none_is_refused_with_its_form(host: str) -> None:
    with pytest.raises(BadRequest, match="HOST:PORT"):
        parse_head(head().replace(b"Host: test", b"Host: " + host.encode()))


@pytest.mark.parametrize(
    "host", ["", "a", "a_b.example:", "127.0.0.1:8888", "[::1]:80", "[fe80::1%25eth0]", "xn--a-b~c%20"]
)
def test_any_other_host_is_taken(host: str) -> None:
    assert parse_head(head().replace(b"Host: test", b"Host: " + host.encode())).host == host


def test_the_host_of_a_target_in_absolute_form_counts() -> None:
    assert parse_head(head(target="HTTP://push.example:80?wait=5")).host == "push.example:80"


@pytest.mark.parametrize(
    "line", [b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", b"PROXY UNKNOWN\r\n", b"\0\r\nQUIT\n!\x11\0\x0c"]
)
def test_the_proxy_protocol_is_refused_with_what_to_switch_off(line: bytes) -> None:
    with pytest.raises(BadRequest, match="PROXY protocol is not supported; switch it off"):
        parse_head(line + head())


@pytest.mark.parametrize(
    "data",
    [
        b"PRI * HTTP/2.0\r\n\r\n",
        b"GET /\r\n\r\n",
        head(version="HTTP/0.9"),
        head(version="HTTP/2.0"),
    ],
)
def test_another_version_of_http_is_named_in_the_refusal(data: bytes) -> None:
    with pytest.raises(HttpVersion, match=r"HTTP/1\.1"):
        parse_head(data)


@pytest.mark.parametrize("method", ["FOO", "get", "GETT"])
def test_an_unknown_method_is_not_implemented(method: str) -> None:
    with pytest.raises(NotImplementedMethod):
        parse_head(head(method=method))


@pytest.mark.parametrize(
    ("version", "lines", "keep_alive"),
    [
        ("HTTP/1.1", [], True),
        ("HTTP/1.1", ["Connection: close"], False),
        ("HTTP/1.1", ["connection: CLOSE"], False),
        ("HTTP/1.0", [], False),
        ("HTTP/1.0", ["Connection: keep-alive"], True),
        ("HTTP/1.1", ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "Content-Length: 3"], True),
    ],
)
def test_the_client_chooses_whether_the_connection_is_kept(version: str, lines: list[str], keep_alive: bool) -> None:
    assert parse_head(head(*lines, method="POST", version=version)).keep_alive is keep_alive


def test_http_1_0_needs_no_host() -> None:
    request = parse_head(b"GET /channels/chat HTTP/1.0\r\n\r\n")
    assert (request.fields.version, request.path) == ("1.0", "/channels/chat")


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        (["Upgrade: websocket", "Connection: Upgrade"], True),
        (["Upgrade: WebSocket", "Connection: keep-alive, upgrade"], True),
        (["Upgrade: websocket"], False),
        (["Connection: Upgrade"], False),
        (["Upgrade: h2c", "Connection: Upgrade"], False),
        (["Upgrade: h2c, websocket", "Connection: Upgrade"], True),
        (["Upgrade: websocket", "Connection: no-upgrade"], False),
    ],
)
def test_an_upgrade_takes_both_headers(lines: list[str], wanted: bool) -> None:
    assert parse_head(head(*lines)).fields.wants_upgrade is wanted


def test_only_http_1_1_can_expect_an_interim_answer() -> None:
    assert parse_head(head("Expect: 100-Continue")).expects_continue
    assert not parse_head(head("Expect: 100-continue", version="HTTP/1.0")).expects_continue
    assert not parse_head(head()).expects_continue


@given(st.binary(max_size=200))
def test_a_head_is_parsed_in_one_go_or_refused(noise: bytes) -> None:
    for data in (noise + b"\r\n\r\n", b"GET /" + noise + b"\r\n\r\n", head()[:-2] + noise + b"\r\n\r\n"):
        with contextlib.suppress(RequestError):
            request = parse_head(data)
            assert request.fields.version in ("1.0", "1.1")
            assert request.path


# Bodies


def test_a_body_ends_where_its_length_says() -> None:
    request = post("Content-Length: 5")
    assert not request.reusable
    assert request.feed(b"he") == b""
    assert not request.complete
    assert request.feed(b"lloGET / HTTP/1.1\r\n") == b"GET / HTTP/1.1\r\n"
    assert request.complete
    assert request.reusable
    assert request.body == b"hello"


def test_a_request_without_a_body_is_complete_at_once() -> None:
    request = post()
    assert request.feed(b"next") == b"next"
    assert request.complete
    assert request.body == b""


CHUNKED = b'5\r\nhello\r\n6;name="value"\r\n\n\r\nbye\r\n0\r\n\r\n'
BEHIND = b"GET / HTTP/1.1\r\nHost: test\r\nContent-Type: other\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


@pytest.mark.parametrize("behind", [b"", b"\r\n", BEHIND, b"garbage\n\n\xff", b"0\r\n\r\n"])
def test_bytes_after_a_chunked_body_are_left_alone(behind: bytes) -> None:
    request = post("Transfer-Encoding: chunked", "Content-Type: text/plain")
    headers = dict(request.fields.headers)
    assert request.feed(CHUNKED + behind) == behind
    assert request.complete
    assert request.body == b"hello\n\r\nbye"
    assert request.fields.headers == headers
    assert request.target == b"/channels/chat"


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_chunked_body_may_come_in_any_pieces(size: int) -> None:
    request = post("Transfer-Encoding: chunked")
    data = CHUNKED + BEHIND
    left = b""
    while not request.complete:
        assert not request.reusable
        assert left == b""
        piece, data = data[:size], data[size:]
        left = request.feed(piece)
    assert left + data == BEHIND
    assert request.body == b"hello\n\r\nbye"
    assert request.reusable


def test_a_chunked_body_leaves_nothing_to_the_garbage_collector() -> None:
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(10):
            assert post("Transfer-Encoding: chunked").feed(CHUNKED) == b""
        gc.collect()
        # not what threads of other tests leave meanwhile
        assert [
            thing for thing in gc.garbage if type(thing).__module__.startswith(("pushcompat.wire.", "httptools."))
        ] == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("lines", [["Connection: close"], ["Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings"]])
def test_a_chunked_body_is_read_whatever_the_connection_header_says(lines: list[str]) -> None:
    request = post("Transfer-Encoding: Chunked", *lines)
    assert request.feed(CHUNKED + BEHIND) == BEHIND
    assert request.body == b"hello\n\r\nbye"


def test_trailers_are_not_headers() -> None:
    request = post("Transfer-Encoding: chunked", "Content-Type: text/plain")
    trailers = b"Content-Type: application/json\r\nIdempotency-Key: k\r\n\r\n"
    assert request.feed(b"2\r\nhi\r\n0\r\n" + trailers + b"x") == b"x"
    assert request.header(b"content-type") == "text/plain"
    assert request.header(b"idempotency-key") == ""


@pytest.mark.parametrize(
    "data",
    [
        b"x\r\n",
        b"-1\r\n",
        b"5\nhello\n",
        b"5\r\nhello!\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"fffffffffffffffff\r\n",
        b"0\r\nno colon\r\n\r\n",
        b"\r\n5\r\nhello\r\n0\r\n\r\n",
    ],
)
def test_a_malformed_chunked_body_is_refused(data: bytes) -> None:
    request = post("Transfer-Encoding: chunked")
    with pytest.raises(BadRequest, match="chunked"):
        request.feed(data)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5), st.integers(1, 30), st.binary(max_size=20))
def test_a_chunked_body_comes_out_as_it_went_in(chunks: list[bytes], size: int, behind: bytes) -> None:
    data = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n" + behind
    request, left, at = post("Transfer-Encoding: chunked"), b"", 0
    while not request.complete:
        left = request.feed(data[at : at + size])
        at += size
    assert request.body == b"".join(chunks)
    assert left + data[at:] == behind


def test_a_body_over_the_limit_is_refused_declared_or_not() -> None:
    announced = post("Content-Length: 1000000000")
    with pytest.raises(PayloadTooLarge, match="11 bytes"):
        announced.check_length(11)
    chunked = post("Transfer-Encoding: chunked")
    chunked.check_length(10)
    chunked.feed(CHUNKED)
    chunked.check_length(11)
    with pytest.raises(PayloadTooLarge):
        chunked.check_length(10)


def test_a_handshakes_key_is_read_whatever_else_was_read_before_and_never_twice() -> None:
    head = b"GET /channels/a HTTP/1.1\r\nHost: h\r\nSec-WebSocket-Key: %b\r\nX: y\r\n\r\n"
    keys = [b"AAAAAAAAAAAAAAAAAAAAAA==", b"BBBBBBBBBBBBBBBBBBBBBA=="]
    for key in keys:
        assert parse_head(head % key).websocket_key == key
    twice = head.replace(b"X: y", b"Sec-WebSocket-Key: " + keys[1]) % keys[0]
    assert parse_head(twice).websocket_key == b", ".join(keys)


@pytest.mark.parametrize("name", [b"Idempotency-Key", b"idempotency-key", b"IDEMPOTENCY-KEY"])
def test_an_idempotency_key_is_read_whatever_its_case_and_is_no_part_of_what_is_shared(name: bytes) -> None:
    head = b"POST /channels/a HTTP/1.1\r\nHost: h\r\n%b: %b\r\nX: y\r\n\r\n"
    one, other = (parse_head(head % (name, key)) for key in (b"one", b"other"))
    assert (one.idempotency_key, other.idempotency_key) == (b"one", b"other")
    if name != b"IDEMPOTENCY-KEY":
        assert one.fields is other.fields


def test_two_idempotency_keys_are_one_that_no_publisher_meant() -> None:
    data = head("Idempotency-Key: a", "Idempotency-Key: b", method="POST")
    assert parse_head(data).idempotency_key == b"a, b"


def test_fields_without_a_key_are_left_as_they_are() -> None:
    assert cut_keys(b"Host: h\r\n\r\n") == (b"Host: h\r\n\r\n", None)


def test_a_request_has_so_many_parameters_and_no_more() -> None:
    for parameters in ([f"a{n}={n}" for n in range(MAX_PARAMETERS)], [""] * MAX_PARAMETERS):
        parse_target(b"/?" + "&".join(parameters).encode())
        with pytest.raises(BadRequest, match="parameters"):
            parse_target(b"/?" + "&".join([*parameters, ""]).encode())


def test_a_request_has_so_many_header_fields_and_no_more() -> None:
    lines = [f"X{n}: y" for n in range(MAX_FIELD_LINES - 1)]  # and Host
    assert parse_head(head(*lines)).path == "/"
    with pytest.raises(HeadTooLarge, match="header fields"):
        parse_head(head(*lines, "X: y"))
    with pytest.raises(HeadTooLarge):
        parse_head(head(*["X: y"] * 3700))


def test_after_a_chunked_body_in_http_1_0_the_connection_ends() -> None:
    request = parse_head(
        head("Transfer-Encoding: chunked", "Connection: keep-alive", method="POST", version="HTTP/1.0")
    )
    assert not request.keep_alive
    request.feed(CHUNKED)
    assert not request.reusable
