"""What the programs go through."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from .stage import REFETCH, Stage

SILENCE_S = 40
FIRST_TOKEN_S = 8
MOST_POLLS = 3  # in the silence, each held for 25 s; a stream lasts
SOON_S = 2.0
ODD: tuple[tuple[str, str], ...] = (
    ('{\n  "n": [1.50, null],\r\n  "text": "\\u00e4€😀"\n}', "application/json"),
    ("one\ntwo\r\n\n  three: four\n", "text/plain; charset=utf-8"),
    ('data: "quoted" \\ \u2028 😀', "text/plain; charset=utf-8"),
    ("x" * 60_000, "text/plain; charset=utf-8"),
)
ODD_DATA = ({"n": [1.5, None], "text": "ä€😀"}, *(text for text, _ in ODD[1:]))


@dataclass(frozen=True)
class Situation:
    """``history_lost``: the program has to report that it must refetch. ``token_s``: how long its
    first token is valid.
    """

    name: str
    play: Callable[[Stage], Awaitable[None]]
    options: tuple[str, ...] = ()
    history_lost: bool = False
    token_s: float = 3600

    def __str__(self) -> str:
        return self.name


async def _messages(stage: Stage) -> None:
    for number, (body, content_type) in enumerate(ODD):
        await stage.publish(body, -1 - number, content_type)
        await stage.until_received(ODD_DATA[number], SOON_S)


async def _rotation(stage: Stage) -> None:
    begun = stage.relay.requests
    await asyncio.sleep(15)
    assert stage.relay.requests >= begun + 2, "nothing was rotated"


async def _restart(stage: Stage, number: int = signal.SIGTERM) -> None:
    await asyncio.sleep(2)
    port = await stage.stop(number)
    await asyncio.sleep(4)
    await stage.serve(port)


async def _new_log(stage: Stage) -> None:
    await _restart(stage, signal.SIGKILL)
    await stage.until_received(REFETCH, 30)


async def _bad_gateway(stage: Stage) -> None:
    await asyncio.sleep(2)
    stage.refuse(502)
    await asyncio.sleep(4)
    stage.refuse(None)


async def _idle(stage: Stage) -> None:
    await stage.pause()
    begun = stage.relay.requests
    await asyncio.sleep(SILENCE_S)
    asked = stage.relay.requests - begun
    assert asked <= MOST_POLLS, f"it asked {asked} times while nothing was published"
    stage.go_on()
    await stage.until_received(stage.number + 1, SOON_S)


async def _dead_link(stage: Stage) -> None:
    stage.relay.lose()
    await asyncio.sleep(1)
    stage.relay.find()


async def _token(stage: Stage) -> None:
    await asyncio.sleep(FIRST_TOKEN_S)
    stage.renew(6)
    await asyncio.sleep(9)  # refused for a few seconds
    stage.renew(60)


SITUATIONS = (
    Situation("messages", _messages),
    Situation("rotation", _rotation, ("--request-cap", "7s")),
    Situation("restart", _restart),
    Situation("new log", _new_log, ("--store", "memory:"), history_lost=True),
    Situation("502", _bad_gateway),
    Situation("idle", _idle),
    Situation("dead link", _dead_link, ("--history", "1000")),
    Situation("token", _token, token_s=FIRST_TOKEN_S),
)
