"""The report of a siege."""

from __future__ import annotations

from .world import Outcome


def report(outcome: Outcome) -> str:
    lines = ["| good subscribers | deliveries | p50 | p99 | worst |", "| --- | --- | --- | --- | --- |"]
    for name, figures in (("alone", outcome.calm), ("besieged", outcome.siege)):
        times = " | ".join(f"{figures[key]} ms" for key in ("p50_ms", "p99_ms", "worst_ms"))
        lines.append(f"| {name} | {figures['delivered']:,} | {times} |")
    lines += ["", "| hostile clients | connections at the end | actions |", "| --- | --- | --- |"]
    lines += [f"| {name} | {outcome.held[name]:,} | {count:,} |" for name, count in sorted(outcome.done.items())]
    refused = ", ".join(f"{count:,} × {status}" for status, count in sorted(outcome.refused.items()))
    memory, bound = (f"{size / 2**20:,.0f} MiB" for size in (outcome.memory_bytes, outcome.bound_bytes))
    lines += ["", f"Refused: {refused or 'none'}. Memory: {memory}, bound: {bound}."]
    return "\n".join([*lines, *(f"PROBLEM: {problem}" for problem in outcome.problems[:20])])
