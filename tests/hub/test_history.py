"""The retained window: what goes when, what stays for a pass, and that memory is bounded whatever comes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest

from pushcompat.access.patterns import Pattern
from pushcompat.access.rules import Rule, Rules
from pushcompat.hub.channel import Channel
from pushcompat.hub.history import History
from pushcompat.limits import Retention
from pushcompat.message import Message
from pushcompat.store.base import MOST_FLOORS, Retained, weight

from ..by_channel import ByChannel


class Log:
    """A history that is appended to, with a clock of the test's own. Nobody subscribes: each pass is over at once."""

    def __init__(self, retention: Retention) -> None:
        self.now = 1000.0
        self.history = History(retention, clock=lambda: self.now)
        self.sequence = 0

    def append(self, name: str, data: bytes = b"x", *, key: str | None = None, ttl_s: float | None = None) -> Channel:
        self.sequence += 1
        message = Message(name, data, key=key, ttl_s=ttl_s, sequence=self.sequence)
        return self.history.append(message)

    def publish(self, name: str, data: bytes = b"x", *, key: str | None = None, ttl_s: float | None = None) -> Channel:
        """Appends, and ends the pass."""
        channel = self.append(name, data, key=key, ttl_s=ttl_s)
        channel.served_up_to = channel.head
        self.history.trim(channel)
        self.history.shrink()
        return channel

    def wait(self, seconds: int) -> None:
        """Lets time pass as it does: what is over is looked for once a second."""
        for _ in range(seconds):
            self.now += 1
            self.history.expire()

    def held(self, name: str) -> list[int]:
        channel = self.history.find(name)
        return [] if channel is None else [message.sequence for message in channel.after(0)]


MakeLog = Callable[..., Log]


@pytest.fixture
def make_log() -> MakeLog:
    return lambda **retention: Log(Retention(**retention))


# Count


def test_beyond_a_channels_count_the_oldest_go_and_the_floor_follows_them(make_log: MakeLog) -> None:
    log = make_log(count=3)
    for _ in range(5):
        channel = log.publish("a")
    assert log.held("a") == [3, 4, 5]
    assert channel.floor == 2


def test_messages_that_a_pass_has_yet_to_deliver_stay(make_log: MakeLog) -> None:
    log = make_log(count=2)
    for _ in range(5):
        channel = log.append("a")
        log.history.trim(channel)
    assert log.held("a") == [1, 2, 3, 4, 5]
    channel.served_up_to = 2
    log.history.trim(channel)
    assert log.held("a") == [3, 4, 5]
    assert channel.floor == 2
    channel.served_up_to = 5
    log.history.trim(channel)
    assert log.held("a") == [4, 5]


def test_a_channel_is_full_when_it_holds_twice_its_count_for_a_pass(make_log: MakeLog) -> None:
    log = make_log(count=2)
    for _ in range(3):
        channel = log.append("a")
    channel.dirty = True
    assert not log.history.needs_backpressure(channel)
    log.append("a")
    assert log.history.needs_backpressure(channel)
    channel.dirty = False
    assert not log.history.needs_backpressure(channel)


# Bytes


def test_beyond_the_byte_budget_the_oldest_of_all_channels_go(make_log: MakeLog) -> None:
    log = make_log(bytes=3 * weight(Message("a", b"x" * 100)))
    for name in "abcd":
        log.publish(name, b"x" * 100)
    log.publish("b", b"x" * 100)
    assert [log.held(name) for name in "abcd"] == [[], [5], [3], [4]]
    b = log.history.find("b")
    assert b is not None
    assert b.floor == 2
    assert log.history.channel("a").floor == 1
    assert log.history.bytes == 3 * weight(Message("a", b"x" * 100))


def test_the_byte_budget_does_not_take_what_a_pass_owes_and_is_crowded_at_twice_its_size(make_log: MakeLog) -> None:
    log = make_log(bytes=2 * weight(Message("a", b"x" * 100)))
    for name in "abc":
        channel = log.append(name, b"x" * 100)
        log.history.shrink()
    assert [log.held(name) for name in "abc"] == [[1], [2], [3]]
    assert not log.history.over_budget
    channel.dirty = True
    assert not log.history.needs_backpressure(channel)
    log.append("d", b"x" * 100)
    assert log.history.over_budget
    assert log.history.needs_backpressure(channel)


# Age


def test_messages_that_are_too_old_are_evicted_once_a_second(make_log: MakeLog) -> None:
    log = make_log(age_s=60.0)
    log.publish("a")
    log.wait(30)
    log.publish("a")
    log.wait(31)
    assert log.held("a") == [2]
    log.wait(30)
    assert log.held("a") == []
    assert log.history.channel("a").floor == 2


@pytest.mark.parametrize("ttl_s", [None, 1.0])
def test_a_channel_that_was_empty_for_a_while_is_looked_after_as_before(make_log: MakeLog, ttl_s: float | None) -> None:
    log = make_log(age_s=60.0, bytes=4 * weight(Message("a", b"x")))
    log.history.channel("a").subscribers.add("somebody")  # so that it is not forgotten
    log.publish("a", ttl_s=ttl_s)
    log.wait(62)
    assert log.held("a") == []
    for _ in range(6):
        log.publish("a")
    assert log.held("a") == [4, 5, 6, 7]
    log.wait(62)
    assert log.held("a") == []


def test_messages_that_are_too_old_wait_for_their_pass(make_log: MakeLog) -> None:
    log = make_log(age_s=60.0)
    channel = log.append("a")
    log.wait(61)
    assert log.held("a") == [1]
    channel.served_up_to = 1
    log.history.expire()
    assert log.held("a") == []


# Channels with rules of their own


by_channel = ByChannel({"tokens": (5, 10.0), "long": (None, 200.0), "few": (1, None)})


def test_channels_keep_as_many_messages_as_their_rules_say(make_log: MakeLog) -> None:
    log = make_log(count=2, by_channel=by_channel)
    for name in ("tokens", "plain", "few") * 7:
        log.publish(name)
    assert {name: len(log.held(name)) for name in ("tokens", "plain", "few")} == {"tokens": 5, "plain": 2, "few": 1}


def test_channels_keep_messages_for_as_long_as_their_rules_say_whatever_is_older_in_others(make_log: MakeLog) -> None:
    log = make_log(age_s=60.0, by_channel=by_channel)
    for name in ("long", "plain", "tokens"):
        log.publish(name)
    log.wait(9)
    assert [log.held(name) for name in ("long", "plain", "tokens")] == [[1], [2], [3]]
    log.wait(2)
    assert [log.held(name) for name in ("long", "plain", "tokens")] == [[1], [2], []]
    log.wait(51)
    assert [log.held(name) for name in ("long", "plain", "tokens")] == [[1], [], []]
    log.wait(140)
    assert log.held("long") == []
    assert log.history.channel("long").floor == 1


def test_the_byte_budget_takes_the_oldest_of_all_whatever_their_rules(make_log: MakeLog) -> None:
    log = make_log(bytes=3 * weight(Message("a", b"x" * 100)), by_channel=by_channel)
    for name in ("plain", "long", "tokens", "few"):
        log.publish(name, b"x" * 100)
    assert [log.held(name) for name in ("plain", "long", "tokens", "few")] == [[], [2], [3], [4]]
    log.publish("tokens", b"x" * 100)
    assert [log.held(name) for name in ("long", "tokens", "few")] == [[], [3, 5], [4]]


def test_a_channel_with_more_history_takes_more_before_its_publishers_wait(make_log: MakeLog) -> None:
    log = make_log(count=2, by_channel=by_channel)
    for _ in range(9):
        tokens = log.append("tokens")
    for _ in range(2):
        few = log.append("few")
    tokens.dirty = few.dirty = True
    assert not log.history.needs_backpressure(tokens)
    assert log.history.needs_backpressure(few)
    log.append("tokens")
    assert log.history.needs_backpressure(tokens)


def test_a_load_gives_each_channel_its_own_age(make_log: MakeLog) -> None:
    log = make_log(age_s=60.0, by_channel=by_channel)
    load(log, [stored("long", 1, age_s=150.0), stored("plain", 2, age_s=50.0), stored("tokens", 3, age_s=5.0)], 0)
    log.wait(6)
    assert [log.held(name) for name in ("long", "plain", "tokens")] == [[1], [2], []]
    log.wait(6)
    assert [log.held(name) for name in ("long", "plain")] == [[1], []]
    log.wait(40)
    assert log.held("long") == []


def test_rules_that_change_apply_to_what_is_there(make_log: MakeLog) -> None:
    rules: dict[str, tuple[int | None, float | None]] = {"a": (5, 300.0)}
    log = make_log(count=4, age_s=100.0, by_channel=ByChannel(rules))
    for _ in range(4):
        log.publish("a")
        log.publish("b")
    log.wait(50)
    log.publish("a")
    rules.update(a=(3, 60.0), b=(None, 20.0))
    log.history.follow_rules(Rules((Rule(Pattern("a")),)))
    assert (log.held("a"), log.held("b")) == ([5, 7, 9], [2, 4, 6, 8])
    log.wait(1)
    assert log.held("b") == []
    log.wait(11)
    assert log.held("a") == [9]
    assert log.history.channel("a").floor == 7
    for _ in range(4):
        log.publish("a")
    assert log.held("a") == [11, 12, 13]


def test_a_long_maximum_age_needs_no_more_notes_than_a_short_one(make_log: MakeLog) -> None:
    log = make_log(age_s=86_400.0 * 30)
    for _ in range(30_000):
        log.publish("a", key="k")
        log.now += 60.0
        log.history.expire()
    (ages,) = log.history._ages.values()
    assert len(ages._notes) <= 10_001


# The access log


def test_a_message_that_is_not_for_subscribers_moves_the_head_and_nothing_else(make_log: MakeLog) -> None:
    log = make_log()
    log.publish("a")
    log.history.skip(Message("!access", b"{}", key="k", sequence=2))
    assert (log.history.head, log.history.count, list(log.history.names)) == (2, 1, ["a"])


# Keys and time to live


def test_a_key_that_comes_again_replaces_the_earlier_one_and_moves_no_floor(make_log: MakeLog) -> None:
    log = make_log(count=3)
    for _ in range(50):
        log.publish("a", key="k")
        channel = log.publish("a", key="l")
    log.publish("b", key="k")
    assert log.held("a") == [99, 100]
    assert log.held("b") == [101]
    assert channel.floor == 0
    assert log.history.count == 3


def test_a_key_replaces_what_a_pass_still_owes(make_log: MakeLog) -> None:
    log = make_log()
    log.append("a", key="k")
    log.append("a", key="k")
    assert log.held("a") == [2]


def test_a_key_is_free_again_when_its_message_was_evicted(make_log: MakeLog) -> None:
    log = make_log(count=1)
    log.publish("a", key="k")
    log.publish("a")
    log.publish("a", key="k")
    assert log.held("a") == [3]
    assert log.history.channel("a").floor == 2


def test_a_message_past_its_ttl_goes_and_moves_no_floor(make_log: MakeLog) -> None:
    log = make_log()
    log.publish("a", ttl_s=5.0)
    channel = log.publish("a", ttl_s=50.0)
    log.append("b", ttl_s=5.0)  # a pass owes this one to somebody, for whom it is of no use any more
    log.wait(5)
    assert (log.held("a"), log.held("b")) == ([2], [])
    assert channel.floor == 0
    assert log.history.count == 1


# Floors of channels that are forgotten


def test_a_channel_made_anew_starts_at_the_global_floor(make_log: MakeLog) -> None:
    log = make_log()
    assert log.history.channel("a").floor == 0
    log.history.floor = 7
    fresh = log.history.channel("b")
    assert (fresh.floor, fresh.head) == (7, 7)


def test_a_channel_that_lost_nothing_is_forgotten_at_once(make_log: MakeLog) -> None:
    log = make_log()
    log.history.discard_if_idle(log.history.channel("a"))
    assert len(log.history) == 0
    assert log.history.floor == 0


def test_floors_of_discarded_channels_are_folded_into_one(make_log: MakeLog) -> None:
    log = make_log(age_s=60.0)
    many = MOST_FLOORS + 5000
    for number in range(many):
        log.publish(f"c{number}")
    assert len(log.history) == many
    log.wait(61)
    assert log.history.count == log.history.bytes == 0
    assert len(log.history) <= MOST_FLOORS
    assert log.history.floor >= many - MOST_FLOORS
    for number in range(many):  # the floor of none sank
        assert log.history.channel(f"c{number}").floor >= number + 1


def test_a_channel_that_is_used_again_is_not_among_the_forgotten(make_log: MakeLog) -> None:
    log = make_log(age_s=60.0)
    log.publish("used")
    log.wait(61)
    used = log.history.channel("used")  # by a subscriber, who has not released it yet
    for number in range(MOST_FLOORS + 10):
        log.publish(f"c{number}")
    log.wait(61)
    assert log.history.floor > 0
    assert log.history.find("used") is used


def test_a_message_that_is_gone_before_its_ttl_is_freed(make_log: MakeLog) -> None:
    """Else a day's ttl would make a channel with a count of ten hold a day's messages."""
    log = make_log(count=10)
    for number in range(20_000):
        log.publish("a", ttl_s=86_400.0)
        log.publish("b", ttl_s=86_400.0, key=str(number % 3))
    assert log.history.count == 13
    assert len(log.history._ending) < 2000
    assert sum(len(ages.oldest) for ages in log.history._ages.values()) < 2000


def test_a_message_among_many_that_are_gone_still_ends_with_its_ttl(make_log: MakeLog) -> None:
    log = make_log(count=10)
    log.publish("kept", ttl_s=100.0)
    for _ in range(5000):
        log.publish("a", ttl_s=86_400.0)
    assert len(log.history._ending) < 2000
    log.wait(99)
    assert log.held("kept") == [1]
    log.wait(1)
    assert log.held("kept") == []


def test_evicted_messages_are_not_held_until_their_ttl_ends(make_log: MakeLog) -> None:
    log = make_log(age_s=60.0)
    for _ in range(5000):
        log.publish(f"c{log.sequence % 50}", ttl_s=86_400.0)
    log.wait(62)
    assert log.history.count == 0
    assert len(log.history._ending) <= 1024


def test_the_counted_bytes_are_those_that_are_held(make_log: MakeLog) -> None:
    log = make_log(count=3, bytes=8000, age_s=60.0)
    for number in range(500):
        log.publish(
            "abcde"[number % 5],
            b"x" * (number % 90),
            key=str(number % 4) if number % 3 else None,
            ttl_s=7.0 if number % 7 == 0 else None,
        )
        log.wait(1 + number % 3)
        held = [message for channel in log.history for message in channel.after(0)]
        assert log.history.count == len(held)
        assert log.history.bytes == sum(map(weight, held))


# Loading


def load(
    log: Log, messages: list[Message], floor: int, head: int | None = None, floors: dict[str, int] | None = None
) -> None:
    head = messages[-1].sequence if head is None else head
    log.history.load(Retained(messages, floor, head, "aaaaaaaa", floors or {}), wall_s=5000.0)


def stored(name: str, sequence: int, *, age_s: float = 0.0, ttl_s: float | None = None) -> Message:
    return Message(name, b"x", ttl_s=ttl_s, time_ms=int((5000 - age_s) * 1000), sequence=sequence)


def test_a_load_brings_back_what_the_store_has_kept(make_log: MakeLog) -> None:
    log = make_log()
    load(log, [stored("a", 4), stored("b", 5), stored("a", 9)], 3)
    assert (log.held("a"), log.held("b")) == ([4, 9], [5])
    assert (log.history.head, log.history.floor, log.history.count) == (9, 3, 3)
    assert log.history.channel("new").floor == 3


def test_a_channel_is_not_reset_for_what_the_store_evicted_from_others(make_log: MakeLog) -> None:
    log = make_log()
    load(log, [stored("quiet", 5), stored("busy", 1000)], 999)
    quiet, busy = log.history.channel("quiet"), log.history.channel("busy")
    assert (quiet.floor, quiet.head) == (4, 5)
    assert (busy.floor, busy.head) == (999, 1000)
    assert log.history.channel("without").floor == 999


def test_each_channel_starts_at_its_own_floor_with_messages_or_without(make_log: MakeLog) -> None:
    log = make_log()
    log.history.channel("known")
    load(log, [stored("busy", 100), stored("folded", 8)], 5, floors={"busy": 99, "known": 7, "unknown": 6})
    floors = {name: log.history.channel(name).floor for name in ("busy", "folded", "known", "unknown", "quiet")}
    assert floors == {"busy": 99, "folded": 5, "known": 7, "unknown": 6, "quiet": 5}


def test_a_busy_channel_and_a_reload_make_no_gap_in_a_quiet_one(make_log: MakeLog) -> None:
    log = make_log()
    load(log, [stored("busy", 150)], 0, floors={"busy": 149})
    quiet = log.history.channel("quiet")
    assert (quiet.floor, quiet.head) == (0, 0)


def test_floors_that_are_loaded_are_folded_as_others_are(make_log: MakeLog) -> None:
    log = make_log(count=1)
    load(log, [], 0, head=50_000, floors={f"c{n}": n for n in range(1, MOST_FLOORS + 1)})
    assert log.history.floor == 0
    log.sequence = 50_000
    for name in ("more", "more"):
        log.publish(name, ttl_s=1.0)
    log.wait(2)
    assert 0 < log.history.floor < MOST_FLOORS / 2, "the lowest were folded"
    for n in range(1, MOST_FLOORS + 1):
        assert log.history.channel(f"c{n}").floor >= n


def test_the_head_is_the_logs_though_its_last_messages_are_gone(make_log: MakeLog) -> None:
    log = make_log()
    load(log, [stored("a", 1)], 2, head=7)
    assert (log.history.head, log.history.channel("a").head) == (7, 1)


def test_ages_and_times_to_live_go_on_where_they_were(make_log: MakeLog) -> None:
    log = make_log(age_s=60.0)
    load(log, [stored("a", 1, age_s=50.0), stored("a", 2, age_s=20.0, ttl_s=30.0), stored("a", 3)], 0)
    log.wait(9)
    assert log.held("a") == [1, 2, 3]
    log.wait(2)
    assert log.held("a") == [3]
    assert log.history.channel("a").floor == 1


def test_a_message_from_a_clock_that_is_ahead_is_as_old_as_one_of_now(make_log: MakeLog) -> None:
    log = make_log(age_s=60.0)
    load(log, [stored("a", 1, age_s=-500.0), stored("b", 2, age_s=-500.0, ttl_s=30.0)], 0)
    log.wait(30)
    assert (log.held("a"), log.held("b")) == ([1], [])
    log.wait(31)
    assert log.held("a") == []


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.9])
def test_a_message_is_never_evicted_before_its_age_and_at_most_two_seconds_after_it(
    make_log: MakeLog, fraction: float
) -> None:
    log = make_log(age_s=60.0)
    log.wait(5)
    log.now += fraction
    log.publish("a")
    log.now -= fraction
    log.wait(60)
    assert log.held("a") == [1]
    log.wait(2)
    assert log.held("a") == []


def test_starting_over_forgets_what_was_and_makes_passes_visit_everyone_again(make_log: MakeLog) -> None:
    log = make_log(age_s=60.0)
    channel = log.append("a", ttl_s=1.0)
    log.publish("gone")
    channel.dirty, channel.pass_head, channel.to_visit = True, 1, deque()
    load(log, [stored("a", 7)], 6)
    assert (channel.floor, channel.head, channel.served_up_to, channel.to_visit) == (6, 7, 7, None)
    assert log.history.count == 1
    assert log.history.find("gone") is None
    log.wait(59)
    assert log.held("a") == [7]


def test_a_channel_that_is_made_anew_inherits_no_place_in_the_order_of_age(make_log: MakeLog) -> None:
    log = make_log(age_s=60.0)
    log.publish("older")  # stays the oldest, so that the place of what follows does not come up
    log.publish("a", ttl_s=1.0)
    log.wait(2)
    assert log.history.find("a") is None
    successor = log.history.channel("a")
    log.wait(61)
    assert log.history.find("a") is successor
