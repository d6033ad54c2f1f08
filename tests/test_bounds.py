"""The bound of memory, and its table in the documentation."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from pushcompat.bounds import memory_bound
from pushcompat.limits import Limits, Retention

MIB = 1024 * 1024
OPERATIONS = (Path(__file__).parent.parent / "docs" / "operations.md").read_text()
LIMITS = Limits(max_connections=16_000)
SMALL = replace(LIMITS, head_bytes=4096, websocket_message_bytes=1024, max_channels=8)


def total(limits: Limits, *, tls: bool = False) -> int:
    return round(sum(memory_bound(limits, tls=tls).values()) / MIB)


def test_the_documentation_has_the_bound_of_its_examples() -> None:
    rows = re.findall(r"^\| 16,000 connections(.*?) \| ([\d,]+) MiB \|$", OPERATIONS, re.MULTILINE)
    assert [int(size.replace(",", "")) for _, size in rows] == [
        total(LIMITS),
        total(LIMITS, tls=True),
        total(SMALL),
        total(SMALL, tls=True),
    ]


def test_the_documentation_has_every_part_of_the_bound() -> None:
    section = OPERATIONS.partition("### How much memory in all")[2].partition("\n#")[0]
    assert re.findall(r"^- \*\*(.*?)\*\*", section, re.MULTILINE) == list(memory_bound(LIMITS))


@pytest.mark.parametrize(
    "change",
    [
        {"max_connections": 17_000},
        {"head_bytes": 100 * 1024},
        {"websocket_message_bytes": 65 * 1024, "head_bytes": 128 * 1024},
        {"max_channels": 65},
        {"batch_bytes": 2 * MIB},
        {"unsent_budget_bytes": 128 * MIB},
        {"send_bytes": MIB * 4},
        {"hook_budget_bytes": 128 * MIB},
        {"retention": Retention(bytes=128 * MIB)},
        {"retention": Retention(idempotency_bytes=128 * MIB)},
    ],
)
def test_each_option_that_bounds_memory_is_in_it(change: dict[str, object]) -> None:
    assert total(replace(LIMITS, **change)) > total(LIMITS)  # type: ignore[arg-type]


@pytest.mark.parametrize(("tls", "kib"), [(False, 44), (True, 80)], ids=["plain", "TLS"])
def test_incomplete_requests_to_pages_and_handshakes_are_in_it_however_small_heads_and_messages_are(
    tls: bool, kib: int
) -> None:
    """As measured; an incomplete handshake takes 64 KiB."""
    assert memory_bound(SMALL, tls=tls)["incomplete requests and frames"] >= 16_000 * kib * 1024
