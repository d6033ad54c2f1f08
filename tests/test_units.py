from __future__ import annotations

import pytest

from pushcompat.units import BYTES, COUNT, SECONDS


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("1.5m", 90), ("1h", 3600), ("2 d", 172800), ("250ms", 0.25), ("5MIN", 300)],
)
def test_durations_have_units(text: str, seconds: float) -> None:
    assert SECONDS.parse(text, 0) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "count"),
    [("65536", 65536), ("64KiB", 65536), ("64k", 65536), ("64kB", 64000), ("1.5MiB", 1572864), ("1GiB", 2**30)],
)
def test_sizes_have_units(text: str, count: int) -> None:
    assert BYTES.parse(text, 0) == count


def test_a_quantity_that_no_number_holds_is_refused() -> None:
    with pytest.raises(ValueError, match="the count is too large"):
        COUNT.parse("9" * 400, 1)
