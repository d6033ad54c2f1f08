"""What was acknowledged, what each subscriber received, and the judgement.

A subscriber is a cursor, as the protocol says: a message at or behind it is a repeat, and what it passes over was lost,
unless a ``reset`` said so. It is judged at the end, since a message may be delivered before its publisher is answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pushcompat.message import EARLIEST, parse_cursor

from ..parity.wires import Event

Position = tuple[str, int]  # epoch, sequence number


class Span(NamedTuple):
    """A stretch of one epoch's log that a subscriber has received: all after the one number, up to the other."""

    epoch: str
    after: int
    through: int


class Skip(NamedTuple):
    """What a reset told a subscriber that it cannot have."""

    before: Position
    now: Position


@dataclass
class Record:
    """One subscriber's."""

    channels: Sequence[str]
    position: Position | None = None
    received: dict[Position, str] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)
    skips: list[Skip] = field(default_factory=list)
    repeated: int = 0
    disordered: int = 0

    @property
    def cursor(self) -> str:
        return "" if self.position is None else f"{self.position[0]}-{self.position[1]:015d}"

    def take(self, event: Event) -> None:
        """Raises ValueError where the event is against the protocol."""
        if event.cursor is None or event.cursor == EARLIEST or event.kind == "closed":
            return
        to = parse_cursor(event.cursor)
        if to is None:
            raise ValueError(f"not a cursor: {event}")
        if event.kind == "reset":
            if self.position is not None:
                self.skips.append(Skip(self.position, to))
            self.position = to
        elif event.kind == "message":
            self._message(to, event)
        elif self.position is None or (to[0] == self.position[0] and to[1] > self.position[1]):
            self._move(to)

    def _message(self, to: Position, event: Event) -> None:
        if event.channel not in self.channels:
            raise ValueError(f"of a channel that was not asked for: {event}")
        if to in self.received:
            self.repeated += 1
        elif self.position is not None and to[0] == self.position[0] and to[1] <= self.position[1]:
            self.disordered += 1
        self.received[to] = event.data
        self._move(to)

    def _move(self, to: Position) -> None:
        if self.position is not None and to[0] == self.position[0]:
            self.spans.append(Span(to[0], self.position[1], max(to[1], self.position[1])))
        self.position = to


@dataclass
class Verdict:
    published: int = 0
    delivered: int = 0
    lost: int = 0
    repeated: int = 0
    disordered: int = 0
    resets: int = 0
    needless_resets: int = 0
    silent: int = 0  # subscribers that did not get to the end of the log
    examples: list[str] = field(default_factory=list)

    @property
    def faults(self) -> int:
        return self.lost + self.repeated + self.disordered + self.needless_resets + self.silent


class Ledger:
    def __init__(self) -> None:
        self.acknowledged: dict[Position, tuple[str, str]] = {}  # channel and data
        self._last: dict[str, Position] = {}  # by channel

    def acknowledge(self, cursor: str, channel: str, data: str) -> None:
        position = parse_cursor(cursor)
        assert position is not None
        self.acknowledged[position] = channel, data
        self._last[channel] = position

    def is_served(self, record: Record) -> bool:
        """Whether the subscriber has got to the end of its channels, as far as publishers know. (Behind that there may
        be another epoch, in which nothing was published yet.)
        """
        position = record.position
        lasts = [last for channel in record.channels if (last := self._last.get(channel)) is not None]
        return all(position is not None and (position[0] != last[0] or position >= last) for last in lasts)

    def judge(self, records: Sequence[Record], *, loses: bool) -> Verdict:
        """``loses``: what was run may lose the log, or its tail, and then says so under another epoch."""
        verdict = Verdict(published=len(self.acknowledged))
        by_channel: dict[tuple[str, str], list[tuple[int, str]]] = {}
        for (epoch, sequence), (channel, data) in sorted(self.acknowledged.items()):
            by_channel.setdefault((epoch, channel), []).append((sequence, data))
        for number, record in enumerate(records):
            self._judge(f"subscriber {number}", record, by_channel, loses, verdict)
        return verdict

    def _judge(
        self,
        name: str,
        record: Record,
        by_channel: dict[tuple[str, str], list[tuple[int, str]]],
        loses: bool,
        verdict: Verdict,
    ) -> None:
        verdict.delivered += len(record.received)
        verdict.repeated += record.repeated
        verdict.disordered += record.disordered
        # With its tail the log loses the keys too: a publish that is sent again is then in the next epoch as well
        logs = Counter((epoch if loses else "", data) for (epoch, _), data in record.received.items())
        doubled = [data for (_, data), times in logs.items() if times > 1]
        verdict.repeated += len(doubled)
        for data in doubled[:3]:
            verdict.examples.append(f"{name}: {data} under two ids")
        for span in _joined(record.spans):
            for channel in record.channels:
                for sequence, data in by_channel.get((span.epoch, channel), ()):
                    if span.after < sequence <= span.through:
                        got = record.received.get((span.epoch, sequence))
                        if got != data:
                            verdict.lost += 1
                            verdict.examples.append(f"{name}: {span.epoch}-{sequence} of {channel}, got {got!r}")
        for skip in record.skips:
            verdict.resets += 1
            if skip.before[0] == skip.now[0] and not self._passes_over(skip, record, by_channel):
                verdict.needless_resets += 1
                verdict.examples.append(f"{name}: a needless reset {skip}")
            elif skip.before[0] != skip.now[0] and not loses:
                verdict.needless_resets += 1
                verdict.examples.append(f"{name}: another log {skip}")
        if not self.is_served(record):
            verdict.silent += 1
            verdict.examples.append(f"{name}: stands at {record.position}, not at the end")

    def _passes_over(
        self, skip: Skip, record: Record, by_channel: dict[tuple[str, str], list[tuple[int, str]]]
    ) -> bool:
        epoch, after = skip.before
        return any(
            after < sequence <= skip.now[1] and (epoch, sequence) not in record.received
            for channel in record.channels
            for sequence, _ in by_channel.get((epoch, channel), ())
        )


def _joined(spans: Sequence[Span]) -> list[Span]:
    joined: list[Span] = []
    for span in sorted(spans):
        if joined and joined[-1].epoch == span.epoch and span.after <= joined[-1].through:
            joined[-1] = Span(span.epoch, joined[-1].after, max(joined[-1].through, span.through))
        else:
            joined.append(span)
    return joined
