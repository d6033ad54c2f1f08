from __future__ import annotations

import pytest

from pushcompat.config import Config
from pushcompat.limits import Limits
from pushcompat.platforms import PLATFORMS


@pytest.mark.parametrize("name", PLATFORMS)
def test_two_heartbeats_fit_into_the_longest_silence(name: str) -> None:
    platform = PLATFORMS[name]
    assert 0 < 2 * platform.heartbeat_s <= platform.idle_s


@pytest.mark.parametrize("name", PLATFORMS)
def test_a_preset_is_a_configuration_that_the_server_accepts(name: str) -> None:
    platform = PLATFORMS[name]
    limits = Limits(request_cap_s=platform.request_cap_s, heartbeat_s=platform.heartbeat_s)
    Config(publish_key="k", limits=limits)
    assert limits.poll_s >= 5


@pytest.mark.parametrize("name", PLATFORMS)
def test_a_poll_ends_before_silence_would_end_it(name: str) -> None:
    platform = PLATFORMS[name]
    assert Limits(request_cap_s=platform.request_cap_s).poll_s < platform.idle_s


@pytest.mark.parametrize(
    ("name", "request_cap_s"),
    [
        ("google-lb", 30),
        ("api-gateway", 29),
        ("cloud-run", 300),
        ("heroku", None),
        ("nginx", None),
        ("envoy", 15),
        ("trafficserver", 900),
    ],
)
def test_only_what_cuts_a_talking_connection_is_a_request_cap(name: str, request_cap_s: float | None) -> None:
    assert PLATFORMS[name].request_cap_s == request_cap_s
