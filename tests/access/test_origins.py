from __future__ import annotations

import pytest

from pushcompat.access.origins import Origins
from pushcompat.errors import Forbidden
from pushcompat.wire.request import Request, parse_head


def request(*lines: str, target: str = "/channels/chat", host: str = "push.example") -> Request:
    return parse_head("\r\n".join([f"GET {target} HTTP/1.1", f"Host: {host}", *lines, "", ""]).encode("latin-1"))


EXPOSED = b"Access-Control-Expose-Headers: Retry-After\r\n"
PAGE = "https://page.example"


@pytest.mark.parametrize(
    ("lines", "allowed"),
    [
        ([], ()),
        ([f"Origin: {PAGE}"], ("*",)),
        ([f"Origin: {PAGE}"], ("https://other.example", PAGE)),
        (["Origin: http://push.example"], ()),
        (["Origin: https://push.example"], ()),
        (["Origin: https://public.example", "X-Forwarded-Host: public.example"], ()),
        (["Origin: https://public.example", "Sec-Fetch-Site: same-origin"], ()),
        (["Origin: null"], ("null",)),
    ],
)
def test_a_page_comes_in_from_the_same_origin_or_where_it_was_named(lines: list[str], allowed: tuple[str, ...]) -> None:
    Origins(allowed, loopback=False).check(request(*lines))  # does not raise


@pytest.mark.parametrize(
    "origin",
    [
        PAGE,
        "null",
        "http://push.example.evil.example",
        "http://push.example:81",
        "http://evil.example/push.example",
        "http://user@push.example",
        "push.example",
        "http://[",
        "http://[::1",
        "://",
        "http://",
        "http://\xbd",
        "http://a, http://push.example",
    ],
)
def test_any_other_page_stays_out(origin: str) -> None:
    with pytest.raises(Forbidden, match="--cors-origin"):
        Origins(("https://other.example",), loopback=False).check(
            request(f"Origin: {origin}", "Sec-Fetch-Site: cross-site")
        )


def test_an_origin_with_a_port_is_the_same_with_that_port_alone() -> None:
    Origins((), loopback=False).check(request("Origin: http://push.example:8888", host="push.example:8888"))
    with pytest.raises(Forbidden):
        Origins((), loopback=False).check(request("Origin: http://push.example", host="push.example:8888"))


@pytest.mark.parametrize(
    ("origin", "allowed", "lines"),
    [
        (PAGE, (), b""),
        (None, ("*",), b""),
        (PAGE, ("*",), b"Access-Control-Allow-Origin: *\r\n" + EXPOSED),
        (PAGE, (PAGE,), b"Access-Control-Allow-Origin: https://page.example\r\n" + EXPOSED + b"Vary: Origin\r\n"),
        ("https://other.example", (PAGE,), b"Vary: Origin\r\n"),
        (None, (PAGE,), b"Vary: Origin\r\n"),
    ],
)
def test_the_answer_names_the_origin_that_may_read_it(
    origin: str | None, allowed: tuple[str, ...], lines: bytes
) -> None:
    assert Origins(allowed, loopback=False).cors(request(*([f"Origin: {origin}"] if origin else []))) == lines


@pytest.mark.parametrize(
    "origin", ["http://localhost:5173", "http://127.0.0.1:3000", "https://[::1]:8080", "http://localhost"]
)
def test_pages_of_this_machine_may_use_a_server_that_listens_on_loopback(origin: str) -> None:
    origins = Origins((), loopback=True)
    origins.check(request(f"Origin: {origin}"))
    assert origins.cors(request(f"Origin: {origin}")).startswith(
        b"Access-Control-Allow-Origin: %b\r\n" % origin.encode()
    )
    with pytest.raises(Forbidden):
        Origins((), loopback=False).check(request(f"Origin: {origin}"))


@pytest.mark.parametrize(
    "origin",
    ["http://localhost.evil.example", "http://evil.example:80", "http://127.0.0.1.evil.example", "http://localhost:x",
     "ftp://localhost", "http://127.0.0.2", "null"],
)  # fmt: skip
def test_pages_of_other_machines_may_not(origin: str) -> None:
    with pytest.raises(Forbidden):
        Origins((), loopback=True).check(request(f"Origin: {origin}"))
    assert Origins((), loopback=True).cors(request(f"Origin: {origin}")) == b""
