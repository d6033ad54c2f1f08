"""The board of processes that share a log on a Redis or Valkey server: one script for each exchange."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..base import StoreError
from ..presence import KEPT_NOTES, Exchanged
from .link import AWAY, Link, Server
from .scripts import Script

# KEYS   notes (stream), beats (hash), number of the last note
# ARGV   process, note, after, how many notes are kept, for how many s all of this lives; processes that are gone, with
#        their beats
# Returns number of the last note, of the own one (0: none), of the oldest, beats, notes.
EXCHANGE = Script("""
redis.call('HINCRBY', KEYS[2], ARGV[1], 1)
for i = 6, #ARGV, 2 do
  if redis.call('HGET', KEYS[2], ARGV[i]) == ARGV[i + 1] then redis.call('HDEL', KEYS[2], ARGV[i]) end
end
local number, own = tonumber(redis.call('GET', KEYS[3]) or '0'), 0
if ARGV[2] ~= '' then
  number = redis.call('INCR', KEYS[3])
  own = number
  redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[4], string.format('%.0f-0', number), 'p', ARGV[1], 't', ARGV[2])
end
for i = 1, 3 do redis.call('EXPIRE', KEYS[i], ARGV[5]) end
local first, oldest = number + 1, redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)
if oldest[1] then first = tonumber(string.match(oldest[1][1], '^%d+')) end
local notes = {}
if tonumber(ARGV[3]) < number then notes = redis.call('XRANGE', KEYS[1], string.format('%.0f-0', ARGV[3] + 1), '+') end
return {number, own, first, redis.call('HGETALL', KEYS[2]), notes}
""")
_LIVES_S = 86400


class RedisBoard:
    def __init__(self, server: Server) -> None:
        self._server = server
        self._link: Link | None = None
        self._keys = [server.keys(f"presence:{name}") for name in ("notes", "beats", "number")]

    async def open(self) -> None:
        """The connection is made when it is needed."""

    async def exchange(self, process: str, note: bytes, after: int, gone: Mapping[str, int]) -> Exchanged:
        try:
            if self._link is None:
                self._link = await self._server.connect()
            ended = [part for name_and_beat in gone.items() for part in name_and_beat]
            own = process, note, after, KEPT_NOTES, _LIVES_S
            (reply,) = await self._link.run(EXCHANGE, self._keys, *own, *ended)
        except AWAY as error:
            await self._hang_up()
            raise StoreError(f"{self._server.address.shown}: {error or 'no answer'}") from error
        return _exchanged(reply)

    async def close(self, process: str) -> None:
        if self._link is not None:
            try:
                await self._link.call(("HDEL", self._keys[1], process), timeout_s=0.5)
            except AWAY:
                pass  # its lease ends
        await self._hang_up()

    async def _hang_up(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()


def _exchanged(reply: Any) -> Exchanged:
    number, own, first, beats, notes = reply
    return Exchanged(
        number,
        own,
        first,
        {name.decode(): int(beat) for name, beat in zip(beats[::2], beats[1::2], strict=True)},
        [(int(at.partition(b"-")[0]), fields[1].decode(), fields[3]) for at, fields in notes],
    )
