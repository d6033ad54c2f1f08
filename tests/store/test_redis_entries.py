"""Entries of the stream, and what does not follow upon what was read."""

from __future__ import annotations

import pytest
from msgspec.structs import astuple, replace

from pushcompat.message import Message
from pushcompat.store.redis.entries import Broken, Entry, Place, messages, pack, read

A, B, C = b"aaaaaaaa", b"bbbbbbbb", b"cccccccc"
START = Place(b"4-0", A)


def entry(number: str, before: bytes, own: bytes, data: str | None = None) -> Entry:
    packed = b"" if data is None else pack(Message("c", data.encode()), 7)
    return number.encode(), (b"d", before + own + packed)


def test_a_message_comes_back_as_it_was_with_the_number_of_its_entry() -> None:
    said = Message("c", "ü".encode(), True, "k", "t", 1.5, 250)
    page = read([(b"5-0", (b"d", A + B + pack(said, 99)))], START)
    (message,) = messages(page)
    assert astuple(message) == astuple(replace(said, time_ms=99, sequence=5))
    assert isinstance(message, Message)


def test_groups_and_epochs_that_follow_each_other_are_read() -> None:
    entries = [entry("5-0", A, B, "1"), entry("6-0", B, B, "2"), entry("6-1", B, C), entry("7-0", C, A, "3")]
    page = read(entries, START)
    assert [(m.sequence, m.data) for m in messages(page)] == [(5, b"1"), (6, b"2"), (7, b"3")]
    assert (page.place, page.epochs) == (Place(b"7-0", A), True)
    assert not read(entries[:2], START).epochs


@pytest.mark.parametrize(
    "entries",
    [
        pytest.param([entry("5-0", C, B, "x")], id="another group was before it"),
        pytest.param([entry("6-0", A, B, "x")], id="a number is missing"),
        pytest.param([entry("5-0", A, B, "x"), entry("6-0", A, B, "y")], id="the group began again"),
        pytest.param([entry("4-1", B, C)], id="an epoch that began elsewhere"),
    ],
)
def test_an_entry_that_does_not_follow_is_detected(entries: list[Entry]) -> None:
    with pytest.raises(Broken):
        read(entries, START)


def test_places_compare_as_numbers() -> None:
    assert Place(b"9-0", A).order < Place(b"9-1", A).order < Place(b"10-0", A).order
    assert Place(b"10-2", A).sequence == 10
