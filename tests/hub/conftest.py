from __future__ import annotations

from collections.abc import Iterator

import pytest

from pushcompat.limits import Limits, Retention

from .rig import MakeRig, Rig


@pytest.fixture
def make_rig() -> Iterator[MakeRig]:
    rigs: list[Rig] = []

    def make(*, retention: Retention | None = None, **limits: float) -> Rig:
        rigs.append(Rig(Limits(retention=retention or Retention(), **limits)))  # type: ignore[arg-type]
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()


@pytest.fixture
def rig(make_rig: MakeRig) -> Rig:
    return make_rig()
