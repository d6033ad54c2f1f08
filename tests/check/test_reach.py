from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pushcompat.address import Address
from pushcompat.check.reach import public_addresses

from .configs import config


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.0.1", "::1", "localhost"])
def test_loopback_is_not_public(host: str) -> None:
    assert public_addresses(config(host=host)) == ("", "")


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.0.2.1", "fe80::1", "no-such-host.invalid", "x" * 70 + ".invalid"]
)
def test_all_other_hosts_are_public(host: str) -> None:
    assert public_addresses(config(host=host, port=1)) == (f"{host} port 1",) * 2


@pytest.mark.parametrize(
    ("fields", "addresses"),
    [
        ({"host": "0.0.0.0", "unix_socket": Path("/tmp/x.sock")}, ("", "")),
        ({"host": "0.0.0.0", "admin_listen": Address("127.0.0.1", 1)}, ("0.0.0.0 port 8888", "")),
        ({"host": "0.0.0.0", "admin_listen": Address("", 0, Path("/tmp/x.sock"))}, ("0.0.0.0 port 8888", "")),
        ({"admin_listen": Address("::", 1)}, ("", ":: port 1")),
    ],
)
def test_publishing_may_have_an_address_of_its_own(fields: dict[str, Any], addresses: tuple[str, str]) -> None:
    assert public_addresses(config(**fields)) == addresses
