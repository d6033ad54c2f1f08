"""The seeds, and mutations of them: bounded, and the same in each run."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from .targets import TARGETS

SEEDS = Path(__file__).parent / "seeds"
_EXAMPLES = 300


def seeds(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((SEEDS / name).iterdir())]


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_has_seeds(name: str) -> None:
    assert len(seeds(name)) >= 3
    assert {path.name for path in SEEDS.iterdir()} == set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_what_has_found_something_finds_nothing_any_more(name: str) -> None:
    for data in seeds(name):
        TARGETS[name](data)


@st.composite
def mutations(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """An original with parts that are cut out, repeated, overwritten, or taken from another one."""
    data = draw(st.sampled_from(originals))
    for _ in range(draw(st.integers(0, 4))):
        at, size = draw(st.integers(0, len(data))), draw(st.integers(0, 12))
        other = draw(st.sampled_from(originals))
        start = draw(st.integers(0, len(other)))
        new = draw(st.sampled_from([b"", data[at : at + size] * 2, other[start : start + 20]]) | st.binary(max_size=6))
        data = data[:at] + new + data[at + size :]
    return data


@pytest.mark.parametrize("name", TARGETS)
def test_it_holds_for_mutations_of_the_seeds(name: str) -> None:
    @seed(1)
    @settings(max_examples=_EXAMPLES, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(mutations(seeds(name)))
    def check(data: bytes) -> None:
        TARGETS[name](data)

    check()
