"""The networks, and the expected result on each. Times are scaled down from minutes to seconds.

A network is the initial setting of the relay, and a play: the events at relay, server and browser while updates are
published. After it the page has some time to catch up and to return to the best transport that the network allows; from
then on updates arrive without delay.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .relay import EVENTSOURCE, LONGPOLL, TRANSPORTS, WEBSOCKET

if TYPE_CHECKING:
    from .stage import Stage

Play = Callable[["Stage"], Awaitable[None]]

WAIT_S = 20  # how long anything may take that a play waits for


async def _pass(stage: Stage) -> None:
    await asyncio.sleep(1)


@dataclass(frozen=True, eq=False)
class Network:
    name: str
    must: str
    play: Play = _pass
    refused: tuple[str, ...] = ()
    held: tuple[str, ...] = ()
    cap_s: float | None = None
    options: tuple[str, ...] = ()  # of the server
    settings: Mapping[str, Any] = field(default_factory=dict)  # of the page
    about: tuple[str, ...] = ()  # transports that must get through what stands between, or this network is nothing new
    lets: tuple[str, ...] = TRANSPORTS  # what works in the end
    pause_s: float = 0  # of the publisher, so that polls are held for that long
    interrupts: bool = False  # the play stops updates for a while, and all of them come later
    stops_server: bool = False  # it stops the server, and with it publishing
    history_lost: bool = False  # it stops updates, and some of them never come
    returns: bool = False  # needs a browser with a history


async def _die_and_recover(stage: Stage) -> None:
    stage.relay.lose()
    await asyncio.sleep(6)
    stage.relay.find()


async def _restart(stage: Stage) -> None:
    await stage.stop_server(signal.SIGTERM)
    await stage.start_server(stage.server.port)


async def _crash(stage: Stage) -> None:
    await stage.stop_server(signal.SIGKILL)
    await asyncio.sleep(6)
    await stage.start_server(stage.server.port)


async def _be_away(stage: Stage) -> None:
    stage.relay.close()
    await asyncio.sleep(6)
    await stage.relay.listen()


async def _answer_502(stage: Stage) -> None:
    stage.relay.refuse(TRANSPORTS, 502)
    stage.relay.hang_up()
    await asyncio.sleep(6)
    stage.relay.refuse(())


async def _allow_websocket(stage: Stage) -> None:
    await asyncio.sleep(1)
    assert WEBSOCKET not in stage.transports()
    stage.relay.refuse(())


async def _sleep(stage: Stage) -> None:
    stage.browser.signal(signal.SIGSTOP)
    stage.relay.lose()
    await asyncio.sleep(6)
    stage.relay.find()
    stage.browser.signal(signal.SIGCONT)


async def _freeze(stage: Stage) -> None:
    stage.browser.signal(signal.SIGSTOP)
    await asyncio.sleep(6)
    stage.browser.signal(signal.SIGCONT)


async def _leave_and_return(stage: Stage) -> None:
    stage.lab.order = "leave"
    assert await stage.lab.until(lambda: len(stage.lab.seen("show")) == 2, WAIT_S), "the page was not returned to"


async def _jump(stage: Stage) -> None:
    assert stage.lab.seen("subscribe")[0].value < 1000 * (time.time() - 1e8), "the clock is right"
    stage.lab.order = "jump"
    await asyncio.sleep(3)


async def _be_cut(stage: Stage) -> None:
    await asyncio.sleep(12)
    assert stage.relay.cuts > 1, "nothing was cut"


async def _rotate(stage: Stage) -> None:
    await asyncio.sleep(12)
    assert stage.relay.cuts == 0, "something was cut"


_YEARS = 10 * 365 * 86_400_000
_WATCHFUL = ("--heartbeat", "1")  # a stream is dead after two of them, a poll after 35 s

NETWORKS = (
    Network("nothing special", "the best transport that gets through, at once"),
    Network(
        "WebSocket opens, then delivers nothing",
        "next transport within the budget",
        held=(WEBSOCKET,), about=(WEBSOCKET,), lets=(EVENTSOURCE, LONGPOLL),
    ),
    Network(
        "event stream held back, WebSocket refused",
        "long-poll within the budget",
        refused=(WEBSOCKET,), held=(EVENTSOURCE,), about=(EVENTSOURCE,), lets=(LONGPOLL,),
    ),
    Network(
        "both open and deliver nothing",
        "long-poll within the budget",
        held=(WEBSOCKET, EVENTSOURCE), about=(WEBSOCKET, EVENTSOURCE), lets=(LONGPOLL,),
    ),
    Network(
        "all but plain XHR refused",
        "long-poll",
        refused=(WEBSOCKET, EVENTSOURCE), lets=(LONGPOLL,),
    ),
    Network(
        "every request cut after 3 s",
        "no loss, no repeat, no growing delay",
        play=_be_cut, cap_s=3, pause_s=4,
    ),
    Network(
        "every request cut after 7 s, and the server knows",
        "no request is cut: all rotate in time",
        play=_rotate, cap_s=7, options=("--request-cap", "7"),
    ),
    Network(
        "link dies silently for 6 s",
        "detected by the watchdog, resumed, nothing lost",
        play=_die_and_recover, interrupts=True, options=_WATCHFUL,
    ),
    Network(
        "server restarted",
        "`rotate`, reconnects, nothing lost",
        play=_restart, options=("--drain-timeout", "2"), stops_server=True,
    ),
    Network(
        "server killed, down for 6 s",
        "reconnects, nothing lost",
        play=_crash, stops_server=True,
    ),
    Network(
        "connections refused for 6 s",
        "reconnects, nothing lost",
        play=_be_away, interrupts=True,
    ),
    Network(
        "502 pages for 6 s",
        "resumed when they end, nothing lost",
        play=_answer_502, interrupts=True,
    ),
    Network(
        "WebSocket blocked first, allowed later",
        "back on WebSocket without a reload",
        play=_allow_websocket, refused=(WEBSOCKET,), about=(WEBSOCKET,), settings={"options": {"upgradeAfter": [3000]}},
    ),
    Network(
        "laptop asleep for 6 s",
        "resumed, nothing lost",
        play=_sleep, interrupts=True, options=_WATCHFUL,
    ),
    Network(
        "laptop asleep for longer than the history",
        "`reset`",
        play=_sleep, options=(*_WATCHFUL, "--history", "10"), history_lost=True,
    ),
    Network(
        "browser frozen for 6 s",
        "continues, nothing lost",
        play=_freeze, interrupts=True,
    ),
    Network(
        "page left, and returned to by the back button",
        "resumed from the back-forward cache, nothing lost (Firefox loads a new page)",
        play=_leave_and_return, interrupts=True, returns=True,
    ),
    Network(
        "clock ten years slow, then ten years fast",
        "no effect",
        play=_jump, settings={"clock": -_YEARS},
    ),
)  # fmt: skip
