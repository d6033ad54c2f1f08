"""The table of docs/soak.md."""

from __future__ import annotations

from collections.abc import Mapping

from .world import Outcome

_HEADS = (
    "log", "published", "delivered", "connections", "lost", "repeated", "out of order", "needless resets", "silent",
    "resets", "memory", "descriptors", "what was done",
)  # fmt: skip


def table(outcomes: Mapping[str, Outcome], seconds: float) -> str:
    rows = [_HEADS, ("---",) * len(_HEADS)]
    for name, outcome in outcomes.items():
        verdict = outcome.verdict
        storms = ", ".join(f"{times} × {what}" for what, times in sorted(outcome.storms.items()))
        rows.append((
            name, f"{verdict.published:,}", f"{verdict.delivered:,}", f"{outcome.connections:,}", str(verdict.lost),
            str(verdict.repeated), str(verdict.disordered), str(verdict.needless_resets), str(verdict.silent),
            str(verdict.resets), f"× {outcome.memory_growth:.2f}", f"{outcome.descriptor_growth:+d}", storms,
        ))  # fmt: skip
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([*lines, "", f"Each for {seconds:.0f} s.", ""])
