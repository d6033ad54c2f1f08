"""``retain``, the rules of retention that all stores share, held to a model that does it step by step."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from pushcompat.limits import Retention
from pushcompat.message import ACCESS_LOG, Message
from pushcompat.store.base import fold, retain, weight

from ..by_channel import ByChannel
from ..harness import EXAMPLES

NOW_MS = 1_000_000

attributes = st.fixed_dictionaries(
    {
        "channel": st.sampled_from(["a", "b", "c", ACCESS_LOG]),
        "data": st.binary(max_size=40),
        "key": st.sampled_from([None, None, "", "k", "l"]),
        "ttl_s": st.sampled_from([None, None, 1.0, 30.0, 500.0]),
        "time_ms": st.integers(NOW_MS - 200_000, NOW_MS),
    }
)
logs = st.lists(attributes, max_size=25).map(
    lambda made: [Message(**each, sequence=2 * number + 1) for number, each in enumerate(made)]
)
rules = st.dictionaries(
    st.sampled_from("abc"),
    st.tuples(st.sampled_from([None, 1, 4]), st.sampled_from([None, 50.0, 7200.0])),
    max_size=2,
)
retentions = st.builds(
    Retention,
    by_channel=st.one_of(st.none(), rules.map(ByChannel)),
    count=st.sampled_from([1, 1, 2, 3, 6]),
    age_s=st.sampled_from([10.0, 100.0, 3600.0, 3600.0]),
    bytes=st.sampled_from([300, 1000, 3000, 1 << 20]),
)


def model(log: list[Message], retention: Retention, floors: dict[str, int]) -> tuple[list[Message], dict[str, int]]:
    window: list[Message] = []
    for message in log:  # a key replaces what came before
        window = [m for m in window if m.key is None or (m.channel, m.key) != (message.channel, message.key)]
        window.append(message)
    window = [m for m in window if m.ttl_s is None or m.time_ms + m.ttl_s * 1000 > NOW_MS]

    floors = floors.copy()

    def evict(message: Message) -> None:
        window.remove(message)
        floors[message.channel] = max(floors.get(message.channel, 0), message.sequence)

    for message in window.copy():
        if message.channel == ACCESS_LOG:
            continue
        count, age_s = retention.of(message.channel)
        of_channel = [m for m in window if m.channel == message.channel]
        later = of_channel[of_channel.index(message) :]
        if len(later) > count or any(m.time_ms < NOW_MS - age_s * 1000 for m in later):
            evict(message)
    while sum(map(weight, users := [m for m in window if m.channel != ACCESS_LOG])) > retention.bytes:
        evict(users[0])
    return window, floors


earlier_floors = st.dictionaries(st.sampled_from("abd"), st.integers(1, 20))


@settings(max_examples=1000 * EXAMPLES)
@given(logs, retentions, earlier_floors)
def test_retain_keeps_what_the_model_keeps_and_moves_the_floors_as_far(
    log: list[Message], retention: Retention, floors: dict[str, int]
) -> None:
    kept = retain(log, retention, NOW_MS, 0, floors)
    assert (kept.messages, kept.floors) == model(log, retention, floors)
    assert kept.floor == 0


@given(logs, retentions, st.integers(0, 50), earlier_floors)
def test_floors_under_the_global_one_are_left_out(
    log: list[Message], retention: Retention, floor: int, floors: dict[str, int]
) -> None:
    all_floors = model(log, retention, floors)[1]
    kept = retain(log, retention, NOW_MS, floor, floors)
    assert kept.floor == floor
    assert kept.floors == {channel: own for channel, own in all_floors.items() if own > floor}


@given(st.dictionaries(st.text(max_size=2), st.integers(1, 30)), st.integers(0, 10), st.integers(0, 8))
def test_the_lowest_of_too_many_floors_are_folded(floors: dict[str, int], floor: int, most: int) -> None:
    folded, left = fold(floors, floor, most)
    assert len(left) <= most
    assert all(max(folded, left.get(channel, 0)) >= own for channel, own in floors.items())
    assert all(own > folded for own in left.values())
    if len([own for own in floors.values() if own > floor]) <= most:
        assert folded == floor


@given(logs, retentions, st.integers(0, 30))
def test_the_highest_number_evicted_is_the_highest_floor(log: list[Message], retention: Retention, before: int) -> None:
    kept = retain(log, retention, NOW_MS, evicted=before)
    assert kept.evicted == max([before, *kept.floors.values()])


def test_nothing_but_its_keys_and_ttl_takes_from_the_access_log() -> None:
    def entry(number: int, key: str, ttl_s: float | None = None) -> Message:
        return Message(ACCESS_LOG, b"x" * 99, key=key, ttl_s=ttl_s, sequence=number, time_ms=0)

    log = [entry(1, "a"), entry(2, "b"), entry(3, "a"), entry(4, "c", 999.0), entry(5, "d", 1001.0)]
    log += [Message("busy", b"x", sequence=number, time_ms=NOW_MS) for number in range(6, 12)]
    kept = retain(log, Retention(count=1, age_s=1.0, bytes=weight(log[-1])), NOW_MS)
    assert [message.sequence for message in kept.messages] == [2, 3, 5, 11]
    assert kept.floors == {"busy": 10}


def test_messages_beyond_a_channels_count_use_up_no_budget() -> None:
    log = [Message("quiet", b"x", sequence=1, time_ms=NOW_MS)]
    log += [Message("busy", b"x", sequence=number, time_ms=NOW_MS) for number in range(2, 9)]
    kept = retain(log, Retention(count=1, bytes=2 * weight(log[0])), NOW_MS)
    assert [message.sequence for message in kept.messages] == [1, 8]
    assert kept.floors == {"busy": 7}


@given(logs, retentions, st.integers(0, 25))
def test_trimmed_in_two_steps_what_is_missing_is_below_its_channels_floor(
    log: list[Message], retention: Retention, cut: int
) -> None:
    at_once = retain(log, retention, NOW_MS)
    first = retain(log[:cut], retention, NOW_MS)
    in_steps = retain([*first.messages, *log[cut:]], retention, NOW_MS, first.floor, first.floors)
    assert set(in_steps.messages) <= set(at_once.messages)
    for message in set(at_once.messages) - set(in_steps.messages):
        assert message.sequence <= in_steps.floors[message.channel]


@given(logs, retentions)
def test_in_each_channel_what_is_evicted_is_older_than_what_stays(log: list[Message], retention: Retention) -> None:
    log = [replace(message, key=None, ttl_s=None) for message in log]
    kept = retain(log, retention, NOW_MS).messages
    for name in "abc":
        of_channel = [message for message in log if message.channel == name]
        stays = [message for message in kept if message.channel == name]
        assert stays == of_channel[len(of_channel) - len(stays) :]
