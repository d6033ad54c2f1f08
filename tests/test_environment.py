from __future__ import annotations

import pytest

from pushcompat.environment import unknown

KNOWN = ["PUSHCOMPAT_PORT", "PUSHCOMPAT_HISTORY", "PUSHCOMPAT_PUBLISH_KEY"]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("PUSHCOMPAT_PROT", "did you mean PUSHCOMPAT_PORT?"),
        ("PUSHCOMPAT_PUBLISHKEY", "did you mean PUSHCOMPAT_PUBLISH_KEY?"),
        ("PUSHCOMPAT_SOMETHING_ELSE", "see pushcompat --help for all options"),
    ],
)
def test_a_variable_that_is_no_option_is_told_what_it_may_mean(name: str, advice: str) -> None:
    assert unknown({name: "1", "PORT": "1", "PUSHCOMPAT_PORT": "1"}, KNOWN) == {
        name: f"no option has this name; {advice}"
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SERVICE_HOST", "10.96.0.7"),
        ("SERVICE_PORT", "8888"),
        ("SERVICE_PORT_HTTP", "8888"),
        ("PORT_8888_TCP", "tcp://10.96.0.7:8888"),
        ("PORT_8888_TCP_PROTO", "tcp"),
        ("PORT_8888_TCP_ADDR", "10.96.0.7"),
        ("ADMIN_SERVICE_HOST", "10.96.0.8"),
        ("ADMIN_PORT", "tcp://10.96.0.8:8889"),
        ("ADMIN_PORT_8889_UDP_PORT", "8889"),
    ],
)
def test_what_kubernetes_sets_for_a_service_is_no_mistake(name: str, value: str) -> None:
    assert unknown({f"PUSHCOMPAT_{name}": value}, KNOWN) == {}
