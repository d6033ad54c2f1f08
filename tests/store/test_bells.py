"""Doorbells: heard at once, never waited for, and gone with their process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pushcompat.store.sqlite.bells import Bell, Bells

from ..harness import PATIENCE_S


@pytest.fixture
def bell(tmp_path: Path) -> Iterator[Bell]:
    bell = Bell(tmp_path)
    yield bell
    bell.close()


@pytest.fixture
def bells(tmp_path: Path) -> Iterator[Bells]:
    bells = Bells(tmp_path)
    yield bells
    bells.close()


def has_rung(bell: Bell) -> bool:
    try:
        return bool(os.read(bell._read_end, 65536))
    except BlockingIOError:
        return False


def test_a_waiting_follower_is_woken_at_once(bell: Bell, bells: Bells) -> None:
    bells.ring()
    bell.wait(PATIENCE_S * 1000)
    assert not has_rung(bell)


def test_a_bell_that_came_after_the_first_ring_is_rung_too(tmp_path: Path, bell: Bell, bells: Bells) -> None:
    bells.ring()
    other = Bell(tmp_path)
    bells.ring()
    assert has_rung(bell)
    assert has_rung(other)
    other.close()
    bells.ring()
    assert has_rung(bell)


def test_ones_own_bells_are_not_rung(bell: Bell, bells: Bells) -> None:
    bells.own = frozenset([bell.name])
    bells.ring()
    assert not has_rung(bell)
    bell.ring()
    assert has_rung(bell)


def test_a_full_bell_holds_nobody_up(bell: Bell, bells: Bells) -> None:
    for _ in range(70_000):
        bells.ring()
    assert has_rung(bell)


@pytest.mark.parametrize("known", [True, False], ids=["rung before", "never rung before"])
def test_the_bell_of_a_dead_process_is_removed(tmp_path: Path, bell: Bell, bells: Bells, known: bool) -> None:
    dead = Bell(tmp_path)
    if known:
        bells.ring()
    os.close(dead._read_end)
    os.close(dead._write_end)  # and nobody removes its file
    bells.ring()
    assert [file.name for file in tmp_path.iterdir()] == [bell.name]
    assert has_rung(bell)


def test_a_bell_that_is_being_made_is_left_alone(tmp_path: Path, bells: Bells) -> None:
    os.mkfifo(tmp_path / ".new")
    bells.ring()
    assert (tmp_path / ".new").exists()


def test_a_directory_that_is_gone_holds_nobody_up(tmp_path: Path) -> None:
    bells = Bells(tmp_path / "no")
    bells.ring()
    bells.close()
