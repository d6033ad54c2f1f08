"""A channel's window, held to a model: a plain list, and the highest number that was evicted from it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pushcompat.hub.channel import Channel
from pushcompat.message import Message


def message(sequence: int, key: str | None = None) -> Message:
    return Message("a", b"x", key=key, sequence=sequence)


actions = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.sampled_from([None, None, "", "k", "l"])),
        st.tuples(st.just("evict"), st.none()),
        st.tuples(st.just("drop"), st.integers(0, 40)),
    ),
    max_size=40,
)


@given(actions)
def test_a_window_holds_what_came_less_what_was_taken(steps: list[tuple[str, str | int | None]]) -> None:
    channel, window, floor, head = Channel("a", 10), list[Message](), 10, 10
    for action, value in steps:
        if action == "append":
            head += 2
            new = message(head, value)  # type: ignore[arg-type]
            earlier = [m for m in window if value is not None and m.key == value]
            assert channel.append(new) is (earlier[0] if earlier else None)
            window = [*(m for m in window if m not in earlier), new]
        elif action == "evict" and window:
            channel.served_up_to = head
            assert channel.evict_to(len(window) - 1) == (1, 1)
            floor = window.pop(0).sequence
        elif action == "drop":
            gone = [m for m in window if m.sequence == value]
            assert channel.drop(message(value)) is bool(gone)  # type: ignore[arg-type]
            window = [m for m in window if m not in gone]
        assert list(channel.after(0)) == window
        assert (len(channel), channel.oldest) == (len(window), window[0] if window else None)
        assert (channel.floor, channel.head) == (floor, head)
        for sequence in range(9, head + 3):
            assert list(channel.after(sequence)) == [m for m in window if m.sequence > sequence]
            assert channel.holds(message(sequence)) is any(m.sequence == sequence for m in window)


def test_messages_that_a_pass_has_yet_to_deliver_are_not_evicted() -> None:
    channel = Channel("a", 0)
    for sequence in (3, 5, 7):
        channel.append(message(sequence))
    channel.served_up_to = 5
    assert channel.evict_to(0) == (2, 2)
    assert (channel.floor, len(channel)) == (5, 1)
    assert channel.evict_to(0) == (0, 0)


def test_a_long_window_that_moves_on_takes_no_more_memory() -> None:
    channel = Channel("a", 0)
    for sequence in range(1, 10_001):
        channel.append(message(sequence, str(sequence)))
        channel.served_up_to = sequence
        channel.evict_to(10)
    assert [m.sequence for m in channel.after(0)] == list(range(9_991, 10_001))
    assert len(channel._messages) == len(channel._sequences) < 200
    assert len(channel._keyed or {}) == 10


def test_a_channel_is_idle_when_nothing_but_its_floor_would_be_lost() -> None:
    channel = Channel("a", 4)
    assert channel.idle
    channel.append(message(5))
    assert not channel.idle
    channel.served_up_to = 5
    channel.evict_to(0)
    assert channel.idle
    channel.dirty = True
    assert not channel.idle


def test_starting_over_forgets_messages_and_keys() -> None:
    channel = Channel("a", 0)
    channel.append(message(5, "k"))
    channel.start_over(2)
    assert (len(channel), channel.floor, channel.head, channel.served_up_to) == (0, 2, 2, 2)
    assert channel.append(message(3, "k")) is None
    assert channel.oldest is not None
