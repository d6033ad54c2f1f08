from __future__ import annotations

from pushcompat.contrib.messages import Message, fold


def test_only_signals_and_equal_keys_of_a_channel_fold() -> None:
    given = [
        Message("a"), Message("a", "x"), Message("a", "1", "k"), Message("b", "1", "k"),
        Message("a", ""), Message("a", "x"), Message("a", "2", "k"),
    ]  # fmt: skip
    assert fold(given) == [
        Message("a", "x"), Message("b", "1", "k"), Message("a", ""), Message("a", "x"), Message("a", "2", "k"),
    ]  # fmt: skip
