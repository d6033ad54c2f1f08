from __future__ import annotations

import pytest

from pushcompat.errors import BadRequest
from pushcompat.wire.names import channel_names, label, seconds


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("chat", ("chat",)),
        ("b,a,b", ("b", "a")),
        ("A-Z.a_z:0~9@x", ("A-Z.a_z:0~9@x",)),
        ("x" * 128, ("x" * 128,)),
    ],
)
def test_a_list_of_channels_keeps_its_order_and_drops_duplicates(text: str, names: tuple[str, ...]) -> None:
    assert channel_names(text, 64) == names


@pytest.mark.parametrize("text", ["", "a,", ",a", "a b", "a/b", "ü", "x" * 129, "a\n", "a%20b", "*", "\u0661"])
def test_anything_else_is_no_name(text: str) -> None:
    with pytest.raises(BadRequest, match="invalid channel name"):
        channel_names(text, 64)


def test_duplicates_do_not_count_against_the_limit() -> None:
    names = [f"c{index}" for index in range(64)]
    assert len(channel_names(",".join(names + names), 64)) == 64
    with pytest.raises(BadRequest, match="too many channels: 65, maximum 64"):
        channel_names(",".join([*names, "one-more"]), 64)


def test_a_refused_name_is_shown_harmlessly_and_shortened() -> None:
    with pytest.raises(BadRequest) as refused:
        channel_names("\x1b[31m" + "y" * 500, 64)
    assert "\x1b" not in refused.value.detail
    assert len(refused.value.detail) < 200


@pytest.mark.parametrize("text", ["control", "control-x", "controlled"])
def test_a_type_cannot_pass_for_the_servers_own_events(text: str) -> None:
    assert label("key", text) == text
    with pytest.raises(BadRequest, match="control"):
        label("type", text)


@pytest.mark.parametrize("text", ["", "a\nb", "a b", "x" * 129])
def test_keys_and_types_have_the_alphabet_of_names(text: str) -> None:
    with pytest.raises(BadRequest, match="key="):
        label("key", text)


@pytest.mark.parametrize(("text", "value"), [("0", 0.0), ("2.5", 2.5), ("1e2", 100.0)])
def test_seconds_are_a_number(text: str, value: float) -> None:
    assert seconds("wait", text) == value


@pytest.mark.parametrize("text", ["", "x", "-1", "nan", "inf", "1e999", "5s"])
def test_other_seconds_are_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="wait="):
        seconds("wait", text)
