from __future__ import annotations

import pytest

from pushcompat.access.origins import Origins, may_read_credentialed
from pushcompat.errors import Forbidden
from pushcompat.wire.request import Request, parse_head


def request(*lines: str, target: str = "/channels/chat", host: str = "push.example") -> Request:
    return parse_head("\r\n".join([f"GET {target} HTTP/1.1", f"Host: {host}", *lines, "", ""]).encode("latin-1"))


CREDENTIALS = b"Access-Control-Allow-Credentials: true\r\n"
EXPOSED = b"Access-Control-Expose-Headers: Retry-After\r\n"
PAGE = "https://page.example"


CROSS_SITE = "Sec-Fetch-Site: cross-site"


@pytest.mark.parametrize(
    ("lines", "allowed", "admitted"),
    [
        ([], (), True),
        ([f"Origin: {PAGE}"], ("*",), True),
        ([f"Origin: {PAGE}"], ("https://other.example", PAGE), True),
        ([f"Origin: {PAGE}"], ("https://other.example",), False),
        ([f"Origin: {PAGE}"], (), False),
        ([f"Origin: {PAGE}", CROSS_SITE], (PAGE,), True),
        (["Origin: http://push.example"], (), True),
        (["Origin: https://push.example"], (), True),
        (["Origin: https://public.example", "X-Forwarded-Host: public.example"], (), False),
        (["Origin: https://public.example", "Sec-Fetch-Site: same-origin"], (), False),
        (["Origin: https://public.example", CROSS_SITE], (), False),
        (["Origin: null"], ("null",), True),
        (["Origin: null"], ("https://null",), False),
    ],
)
def test_a_page_is_admitted_from_the_same_origin_or_if_it_is_named(
    lines: list[str], allowed: tuple[str, ...], admitted: bool
) -> None:
    assert is_admitted(Origins(allowed, loopback=False), request(*lines)) is admitted


def test_the_host_of_a_target_in_absolute_form_is_the_servers() -> None:
    page = request("Origin: http://push.example", target="http://push.example/channels/chat", host="inside.example")
    assert is_admitted(Origins((), loopback=False), page)


@pytest.mark.parametrize(
    ("lines", "admitted"),
    [
        (["X-Forwarded-Host: public.example"], True),
        (["X-Forwarded-Host: Public.Example:443"], True),
        (["X-Forwarded-Host: public.example:80"], False),
        (["X-Forwarded-Host: other.example"], False),
        (["X-Forwarded-Host: public.example, other.example"], False),
        (['Forwarded: for=192.0.2.1;host="PUBLIC.example";proto=https'], True),
        (["Forwarded: host=public.example, host=other.example"], False),
        (["Sec-Fetch-Site: same-origin"], True),
        (["Sec-Fetch-Site: same-site"], False),
        ([CROSS_SITE], False),
        ([], False),
    ],
)
def test_only_a_trusted_proxy_can_tell_that_a_page_is_of_this_server(lines: list[str], admitted: bool) -> None:
    asked = request("Origin: https://public.example", *lines)
    assert not is_admitted(Origins((), loopback=False), asked)
    asked.proxied = True
    assert is_admitted(Origins((), loopback=False), asked) is admitted


def test_a_refusal_names_the_option_that_would_believe_the_proxy() -> None:
    for line in ("X-Forwarded-Host: page.example", "Sec-Fetch-Site: same-origin"):
        with pytest.raises(Forbidden, match="or name the proxy that has changed Host with --trusted-proxies"):
            Origins((), loopback=False).check(request(f"Origin: {PAGE}", line))


def test_a_page_of_the_schemes_default_port_is_of_this_server_although_host_names_it() -> None:
    origins = Origins((), loopback=False)
    origins.check(request("Origin: https://push.example", host="Push.Example:443"))
    origins.check(request("Origin: http://push.example", host="push.example:80"))
    assert not is_admitted(origins, request("Origin: http://push.example", host="push.example:443"))


def is_admitted(origins: Origins, asked: Request) -> bool:
    try:
        origins.check(asked)
    except Forbidden:
        return False
    return True


def test_a_refusal_names_the_option_that_would_admit_the_page() -> None:
    with pytest.raises(Forbidden, match=f"--cors-origin {PAGE}"):
        Origins((), loopback=False).check(request(f"Origin: {PAGE}"))


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
    origins = Origins(("https://other.example",), loopback=False)
    assert not is_admitted(origins, request(f"Origin: {origin}", CROSS_SITE))
    assert is_admitted(origins, request("Origin: https://other.example", CROSS_SITE))


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
        (
            PAGE,
            (PAGE,),
            b"Access-Control-Allow-Origin: https://page.example\r\n" + CREDENTIALS + EXPOSED + b"Vary: Origin\r\n",
        ),
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


@pytest.mark.parametrize(
    ("origin", "allowed", "credentialed", "lines"),
    [
        (PAGE, ("*", PAGE), True, b"https://page.example\r\n" + CREDENTIALS + EXPOSED + b"Vary: Origin\r\n"),
        ("https://other.example", ("*", PAGE), False, b"*\r\n" + EXPOSED + b"Vary: Origin\r\n"),
        (PAGE, ("*",), False, b"*\r\n" + EXPOSED),
        ("null", ("*",), False, b"*\r\n" + EXPOSED),
        ("null", ("null",), False, b"null\r\n" + EXPOSED + b"Vary: Origin\r\n"),
        (PAGE, (PAGE,), True, b"https://page.example\r\n" + CREDENTIALS + EXPOSED + b"Vary: Origin\r\n"),
    ],
)
def test_credentials_count_only_of_pages_whose_very_origin_is_allowed(
    origin: str, allowed: tuple[str, ...], credentialed: bool, lines: bytes
) -> None:
    """Any page can have the origin ``null``, in a frame with ``sandbox``."""
    origins, asked = Origins(allowed, loopback=False), request(f"Origin: {origin}")
    assert is_admitted(origins, asked)
    assert origins.credentialed(asked) is credentialed
    assert origins.cors(asked) == b"Access-Control-Allow-Origin: " + lines
    assert may_read_credentialed(lines) is credentialed


def test_credentials_count_of_the_servers_own_pages_and_of_what_is_no_page() -> None:
    origins = Origins(("*",), loopback=False)
    assert origins.credentialed(request())
    assert origins.credentialed(request("Origin: http://push.example"))
    by_proxy = request("Origin: https://public.example", "Sec-Fetch-Site: same-origin")
    by_proxy.proxied = True
    assert origins.credentialed(by_proxy)
    assert not origins.credentialed(request("Origin: https://public.example", "Sec-Fetch-Site: same-origin"))
