"""``retain``, the rules of retention that all stores share, held to a model that does it step by step."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pushcompat.limits import Retention
from pushcompat.message import Message
from pushcompat.store.base import retain, weight

NOW_MS = 1_000_000

attributes = st.fixed_dictionaries(
    {
        "channel": st.sampled_from("abc"),
        "data": st.binary(max_size=40),
        "key": st.sampled_from([None, None, "", "k", "l"]),
        "ttl_s": st.sampled_from([None, None, 1.0, 30.0, 500.0]),
        "time_ms": st.integers(NOW_MS - 200_000, NOW_MS),
    }
)
logs = st.lists(attributes, max_size=25).map(
    lambda made: [Message(**each, sequence=2 * number + 1) for number, each in enumerate(made)]
)
retentions = st.builds(
    Retention,
    count=st.sampled_from([1, 1, 2, 3, 6]),
    age_s=st.sampled_from([10.0, 100.0, 3600.0, 3600.0]),
    bytes=st.sampled_from([300, 1000, 3000, 1 << 20]),
)


def model(log: list[Message], retention: Retention, floor: int) -> tuple[list[Message], int]:
    window: list[Message] = []
    for message in log:  # a key replaces what came before
        window = [m for m in window if m.key is None or (m.channel, m.key) != (message.channel, message.key)]
        window.append(message)
    window = [m for m in window if m.ttl_s is None or m.time_ms + m.ttl_s * 1000 > NOW_MS]

    evicted = [floor]
    for message in window.copy():
        if len([m for m in window if m.channel == message.channel]) > retention.count:
            window.remove(message)
            evicted.append(message.sequence)
    oldest_ms = NOW_MS - retention.age_s * 1000
    while any(m.time_ms < oldest_ms for m in window) or sum(map(weight, window)) > retention.bytes:
        evicted.append(window.pop(0).sequence)
    return window, max(evicted)


@settings(max_examples=1000)
@given(logs, retentions, st.integers(0, 20))
def test_retain_keeps_what_the_model_keeps_and_moves_the_floor_as_far(
    log: list[Message], retention: Retention, floor: int
) -> None:
    assert retain(log, retention, NOW_MS, floor) == model(log, retention, floor)


def test_messages_beyond_a_channels_count_use_up_no_budget() -> None:
    log = [Message("quiet", b"x", sequence=1, time_ms=NOW_MS)]
    log += [Message("busy", b"x", sequence=number, time_ms=NOW_MS) for number in range(2, 9)]
    kept, floor = retain(log, Retention(count=1, bytes=2 * weight(log[0])), NOW_MS, 0)
    assert ([message.sequence for message in kept], floor) == ([1, 8], 7)


@given(logs, retentions, st.integers(0, 25))
def test_trimmed_in_two_steps_what_is_missing_is_below_the_floor(
    log: list[Message], retention: Retention, cut: int
) -> None:
    at_once, _ = retain(log, retention, NOW_MS, 0)
    first, floor = retain(log[:cut], retention, NOW_MS, 0)
    in_steps, floor = retain([*first, *log[cut:]], retention, NOW_MS, floor)
    assert set(in_steps) <= set(at_once)
    assert all(message.sequence <= floor for message in set(at_once) - set(in_steps))


@given(logs, retentions)
def test_in_each_channel_what_is_evicted_is_older_than_what_stays(log: list[Message], retention: Retention) -> None:
    log = [replace(message, key=None, ttl_s=None) for message in log]
    kept, _ = retain(log, retention, NOW_MS, 0)
    for name in "abc":
        of_channel = [message for message in log if message.channel == name]
        stays = [message for message in kept if message.channel == name]
        assert stays == of_channel[len(of_channel) - len(stays) :]
