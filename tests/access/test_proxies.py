from __future__ import annotations

import pytest

from pushcompat.access.proxies import UNIX, Client, Proxies
from pushcompat.wire.forwarded import UNREADABLE, Reports


@pytest.mark.parametrize(
    ("trusted", "address", "expected"),
    [
        (("loopback", "unix"), "127.0.0.1", True),
        (("loopback", "unix"), "127.9.9.9", True),
        (("loopback", "unix"), "::1", True),
        (("loopback", "unix"), UNIX, True),
        (("loopback", "unix"), "10.0.0.1", False),
        (("loopback",), UNIX, False),
        (("none",), "127.0.0.1", False),
        (("none",), UNIX, False),
        (("private",), "172.20.0.3", True),
        (("private",), "fd00::1", True),
        (("private",), "172.32.0.1", False),
        (("192.0.2.7",), "192.0.2.7", True),
        (("192.0.2.7",), "192.0.2.8", False),
        (("2001:db8::/32", "10.0.0.0/8"), "2001:db8:1::1", True),
        (("2001:db8::/32", "10.0.0.0/8"), "10.1.2.3", True),
        (("2001:db8::/32", "10.0.0.0/8"), "2001:db9::1", False),
        (("0.0.0.0/0",), UNREADABLE, False),
    ],
)
def test_a_proxy_is_trusted_by_its_address(trusted: tuple[str, ...], address: str, expected: bool) -> None:
    proxies = Proxies(trusted)
    assert [proxies.trusts(address) for _ in range(2)] == [expected] * 2


def test_the_proxies_of_this_machine_are_trusted_by_default() -> None:
    proxies = Proxies()
    assert [proxies.trusts(address) for address in ("127.0.0.1", "::1", UNIX, "192.168.1.1")] == [True] * 3 + [False]


@pytest.mark.parametrize("text", ["localhost", "10.1.2.3/16", "10.0.0.0/33", "", "Private", "*"])
def test_what_is_no_proxy_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(ValueError, match=r"not an address, a network like 10\.1\.0\.0/16, or one of loopback"):
        Proxies((text,))


def test_none_is_not_combined_with_others() -> None:
    with pytest.raises(ValueError, match="none cannot be combined"):
        Proxies(("none", "unix"))


@pytest.mark.parametrize(
    ("reports", "client"),
    [
        (Reports(), Client()),
        (Reports(x_for="192.0.2.1"), Client("192.0.2.1")),
        # Hops are read from the end, past trusted proxies, and no further
        (Reports(x_for="6.6.6.6, 192.0.2.1, 10.0.0.2, 10.0.0.1"), Client("192.0.2.1")),
        (
            Reports("for=6.6.6.6, for=192.0.2.1;host=a;proto=https, for=10.0.0.1;host=b"),
            Client("192.0.2.1", "a", "https"),
        ),
        (Reports(x_for="6.6.6.6, junk, 10.0.0.1"), Client(UNREADABLE)),
        (Reports(x_for="6.6.6.6, unknown"), Client("")),
        (Reports("for=6.6.6.6, for=_hidden"), Client("")),
        (Reports(x_for="10.0.0.3, 10.0.0.2"), Client("10.0.0.3")),  # the client is one of the proxies' machines
        (Reports(x_for="192.0.2.1, 10.0.0.2", x_host="push.example, inner", x_proto="https"),
         Client("192.0.2.1", "push.example", "https")),
        # Of both kinds
        (Reports("for=192.0.2.1", "192.0.2.1"), Client("192.0.2.1")),
        (Reports("for=6.6.6.6", "192.0.2.1"), Client(UNREADABLE)),
        (Reports("for=192.0.2.1", "6.6.6.6"), Client(UNREADABLE)),
        (Reports('for="', "192.0.2.1"), Client(UNREADABLE)),
        (Reports("for=192.0.2.1", x_host="push.example", x_proto="https"),
         Client("192.0.2.1", "push.example", "https")),
    ],
)  # fmt: skip
def test_the_client_is_the_last_address_that_is_not_a_trusted_proxys(reports: Reports, client: Client) -> None:
    assert Proxies(("10.0.0.0/8",)).client(reports) == client


def test_what_is_remembered_of_addresses_is_bounded() -> None:
    proxies = Proxies()
    for number in range(5000):
        proxies.trusts(f"10.0.{number // 256}.{number % 256}")
    assert len(proxies._known) <= 1024
