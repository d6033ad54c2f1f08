from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from pushcompat.contrib.endings import EndOfRequest, has_threads
from pushcompat.contrib.options import Options


@pytest.mark.parametrize(
    ("given", "expected"), [({}, False), ({"enable-threads": True}, True), ({"threads": b"4"}, True)]
)
def test_uwsgi_has_threads_only_if_it_was_told_so(
    given: dict[str, object], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(opt=given))  # type: ignore[arg-type]
    assert has_threads() == expected
    assert Options().mode == ("later" if expected else "request")
    assert Options(mode="now").mode == "now"


def test_a_function_that_is_frozen_has_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert has_threads()
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "orders")
    assert not has_threads()


def test_a_queue_that_is_stuck_is_not_waited_for_by_each_request() -> None:
    waited: list[float] = []

    def flush(seconds: float) -> bool:
        waited.append(seconds)
        return len(waited) < 3

    end = EndOfRequest(flush, 2.0)
    for _ in range(10):
        end()
    assert waited == [2.0, 2.0, 2.0]
