"""The registry of processes that share a log on a Redis or Valkey server: one script for each exchange."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ..base import StoreError
from ..presence import KEPT_NOTES, Exchanged
from .link import AWAY, Link, Server
from .problems import sentence
from .scripts import Script

# KEYS   notes (stream), beats (hash), number of the last note, whole notes (hash), their numbers (hash), marks (hash)
# ARGV   process, note, whole note, after, how many notes are kept, for how many s all but the marks lives, number of
#        processes that are gone; these, with their beats; channels, with their marks
# Returns number of the last note, of the own one (0: none), of the oldest, beats, notes, whole notes.
EXCHANGE = Script("""
redis.call('HINCRBY', KEYS[2], ARGV[1], 1)
local marks = 8 + 2 * ARGV[7]
for i = 8, marks - 1, 2 do
  if redis.call('HGET', KEYS[2], ARGV[i]) == ARGV[i + 1] then
    for key = 2, 5 do if key ~= 3 then redis.call('HDEL', KEYS[key], ARGV[i]) end end
  end
end
for i = marks, #ARGV, 2 do
  if ARGV[i + 1] ~= '' then redis.call('HSET', KEYS[6], ARGV[i], ARGV[i + 1])
  else redis.call('HDEL', KEYS[6], ARGV[i]) end
end
local number, own = tonumber(redis.call('GET', KEYS[3]) or '0'), 0
if ARGV[2] ~= '' then
  number = redis.call('INCR', KEYS[3])
  own = number
  redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[5], string.format('%.0f-0', number), 'p', ARGV[1], 't', ARGV[2])
end
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[4], ARGV[1], ARGV[3])
  redis.call('HSET', KEYS[5], ARGV[1], string.format('%.0f', number))
end
for i = 1, 5 do redis.call('EXPIRE', KEYS[i], ARGV[6]) end
local first, oldest = number + 1, redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
if oldest[1] then first = tonumber(string.match(oldest[1][1], '^%d+')) end
local after, notes, wholes = tonumber(ARGV[4]), {}, {}
if after < number then
  notes = redis.call('XRANGE', KEYS[1], string.format('%.0f-0', after + 1), '+')
  local numbers = redis.call('HGETALL', KEYS[5])
  for i = 1, #numbers, 2 do
    if tonumber(numbers[i + 1]) > after then
      wholes[#wholes + 1] = {tonumber(numbers[i + 1]), numbers[i], redis.call('HGET', KEYS[4], numbers[i])}
    end
  end
end
return {number, own, first, redis.call('HGETALL', KEYS[2]), notes, wholes}
""")
_NAMES = "notes", "beats", "number", "wholes", "wholes:numbers", "marks"
_LIVES_S = 86400


class RedisRegistry:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._link: Link | None = None
        self._keys = [server.keys(f"presence:{name}") for name in _NAMES]

    async def open(self) -> None:
        """The connection is made when it is needed."""

    async def exchange(
        self, process: str, note: bytes, whole: bytes, after: int, gone: Mapping[str, int], marks: Mapping[str, str]
    ) -> Exchanged:
        own = process, note, whole, after, KEPT_NOTES, _LIVES_S, len(gone)
        more: list[str | int] = []
        for process_and_beat in gone.items():
            more += process_and_beat
        for channel_and_mark in marks.items():
            more += channel_and_mark
        return _exchanged(await self._ask(lambda link: link.run(EXCHANGE, self._keys, *own, *more)))

    async def marks(self) -> Mapping[str, str]:
        found = await self._ask(lambda link: link.call(("HGETALL", self._keys[-1])))
        return {name.decode(): mark.decode() for name, mark in zip(found[::2], found[1::2], strict=True)}

    async def _ask(self, question: Callable[[Link], Awaitable[list[Any]]]) -> Any:
        try:
            if self._link is None:
                self._link = await self._server.connect()
            (reply,) = await question(self._link)
        except AWAY as error:
            await self._hang_up()
            raise StoreError(f"{self._server.address.shown}: {sentence(error)}") from error
        return reply

    async def close(self, process: str) -> None:
        if self._link is not None:
            try:
                await self._link.call(*(("HDEL", self._keys[n], process) for n in (1, 3, 4)), timeout_s=0.5)
            except AWAY:
                pass  # its lease ends
        await self._hang_up()

    async def _hang_up(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()


def _exchanged(reply: Any) -> Exchanged:
    number, own, first, beats, notes, wholes = reply
    return Exchanged(
        number,
        own,
        first,
        {name.decode(): int(beat) for name, beat in zip(beats[::2], beats[1::2], strict=True)},
        [
            *((int(at.partition(b"-")[0]), fields[1].decode(), fields[3]) for at, fields in notes),
            *((number, process.decode(), text) for number, process, text in wholes),
        ],
    )
