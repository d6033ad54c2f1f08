from __future__ import annotations

import random

import pytest

from pushcompat.wire.forwarded import UNREADABLE, Hop, Reports, canonical, older_hops, standard_hops


def standard(text: str) -> list[Hop]:
    return standard_hops(Reports(forwarded=text))


@pytest.mark.parametrize(
    ("text", "hops"),
    [
        # RFC 7239 §4
        ('for="_gazonk"', [Hop()]),
        ('For="[2001:db8:cafe::17]:4711"', [Hop("2001:db8:cafe::17")]),
        ("for=192.0.2.60;proto=http;by=203.0.113.43", [Hop("192.0.2.60", "", "http")]),
        ("for=192.0.2.43, for=198.51.100.17", [Hop("192.0.2.43"), Hop("198.51.100.17")]),
        # §7.1
        ('for=192.0.2.43,for="[2001:db8:cafe::17]",for=unknown', [Hop("192.0.2.43"), Hop("2001:db8:cafe::17"), Hop()]),
        ("for=_hidden, for=_SEVKISEK", [Hop(), Hop()]),
        # Ports, case, quotes, white space
        ('for="192.0.2.43:47011"', [Hop("192.0.2.43")]),
        ('for="[2001:DB8::1]:_port"', [Hop("2001:db8::1")]),
        ('for="unknown:80"', [Hop()]),
        ("for=192.0.2.43:80", [Hop("192.0.2.43")]),
        ('FOR="192.0.2.43" ; HOST="Push.Example:443" ;\tProto=HTTPS', [Hop("192.0.2.43", "push.example:443", "https")]),
        ('host="[2001:db8::1]:80"', [Hop("", "[2001:db8::1]:80")]),
        (r'for="192.0.2\.43"', [Hop("192.0.2.43")]),
        ('for=1.2.3.4;ext="a, b; for=5.6.7.8"', [Hop("1.2.3.4")]),
        ("for=::ffff:192.0.2.43", [Hop("192.0.2.43")]),
        # Empty elements and pairs
        (" , for=192.0.2.43,, ;for=192.0.2.44;;proto=https; ,", [Hop("192.0.2.43"), Hop("192.0.2.44", "", "https")]),
        ("for=", [Hop()]),
        ("", []),
        # What is no address, host or scheme
        ("for=example.com", [Hop(UNREADABLE)]),
        ("for=1.2.3.4.5", [Hop(UNREADABLE)]),
        ('for="[::1"', [Hop(UNREADABLE)]),
        ('for="[::1]80"', [Hop(UNREADABLE)]),
        ('for=1.2.3.4;host="a b";proto=gopher', [Hop("1.2.3.4")]),
    ],
)
def test_forwarded_is_read_as_rfc_7239_says(text: str, hops: list[Hop]) -> None:
    assert standard(text) == hops


@pytest.mark.parametrize(
    "text",
    [
        'for="',
        'for=", for=192.0.2.43',
        'for=1.2.3.4;x=", for="[2001:db8::1]:80"',
        "for=1.2.3.4;for=5.6.7.8",
        "1.2.3.4",
        "for",
        "for 1.2.3.4",
        "for=a b",
        'for="a"b',
        "=x",
        "for=1.2.3.4, " + "x=y;" * 2000,
    ],
)
def test_a_forwarded_that_is_malformed_or_too_long_is_not_read_in_part(text: str) -> None:
    assert standard(text) == [Hop(UNREADABLE)]


@pytest.mark.parametrize(
    ("x_for", "addresses"),
    [
        ("192.0.2.43", ["192.0.2.43"]),
        ("192.0.2.43, 198.51.100.17", ["192.0.2.43", "198.51.100.17"]),
        ("192.0.2.43:4711", ["192.0.2.43"]),  # Azure
        ("2001:DB8::1", ["2001:db8::1"]),
        ("[2001:db8::1]:80", ["2001:db8::1"]),
        ('"2001:db8::1"', ["2001:db8::1"]),
        ("fe80::1%eth0", ["fe80::1"]),
        ("::ffff:192.0.2.43", ["192.0.2.43"]),
        ("unknown", [""]),
        ("a, , 192.0.2.43,", [UNREADABLE, "192.0.2.43"]),
        ("192.0.2.43, x" * 3, ["192.0.2.43", UNREADABLE, UNREADABLE, UNREADABLE]),
        ("", []),
    ],
)
def test_x_forwarded_for_is_a_list_of_addresses(x_for: str, addresses: list[str]) -> None:
    assert [hop.address for hop in older_hops(Reports(x_for=x_for))] == addresses


def test_only_the_last_of_a_long_list_are_read() -> None:
    hops = older_hops(Reports(x_for="192.0.2.1, " * 1000 + "192.0.2.2"))
    assert (len(hops), hops[-1].address) == (32, "192.0.2.2")


@pytest.mark.parametrize(
    ("x_for", "x_host", "hosts"),
    [
        ("192.0.2.1", "Push.Example", ["push.example"]),
        ("", "push.example", ["push.example"]),
        ("192.0.2.1, 192.0.2.2", "push.example, inner", ["push.example", "inner"]),  # Apache appends
        ("192.0.2.1, 192.0.2.2", "push.example", ["push.example", "push.example"]),  # nginx replaces
        ("192.0.2.2", "invented, push.example", ["push.example"]),
        ("192.0.2.1", "", [""]),
        ("192.0.2.1", "a/b", [""]),
    ],
)
def test_hosts_are_matched_with_addresses_from_the_end(x_for: str, x_host: str, hosts: list[str]) -> None:
    assert [hop.host for hop in older_hops(Reports(x_for=x_for, x_host=x_host))] == hosts


@pytest.mark.parametrize(("proto", "scheme"), [("https", "https"), ("HTTP", "http"), ("wss", "https"), ("ftp", "")])
def test_the_scheme_is_that_of_http(proto: str, scheme: str) -> None:
    assert older_hops(Reports(x_proto=proto)) == [Hop("", "", scheme)]


@pytest.mark.parametrize(
    ("text", "address"),
    [("192.0.2.1", "192.0.2.1"), ("2001:DB8:0::1", "2001:db8::1"), ("::FFFF:192.0.2.1", "192.0.2.1"), ("", ""),
     ("192.0.2.01", ""), ("localhost", ""), ("::1::", "")],
)  # fmt: skip
def test_an_address_has_one_form(text: str, address: str) -> None:
    assert canonical(text) == address


def test_junk_is_read_as_something_or_nothing_but_never_raises() -> None:
    chance = random.Random(1)
    alphabet = 'for=;,:[]"\\ \t1.2abcdef_%unknownhostproto=http\xe9\0\n'
    for _ in range(20_000):
        text = "".join(chance.choices(alphabet, k=chance.randrange(40)))
        for hop in [*standard(text), *older_hops(Reports("", text, text, text))]:
            assert hop.address in ("", UNREADABLE) or canonical(hop.address) == hop.address
            assert hop.host.isascii()
            assert hop.scheme in ("", "http", "https")
