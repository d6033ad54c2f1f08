"""The Lua scripts that run in the server; each is one transaction.

``redis.call`` fails if the server is out of memory, unless the script has written before. Appending must then be
refused as a whole, so its first write is an XADD, which also fails if the number was given before. What frees memory
must not be refused: these scripts begin with a write that needs no memory.

Keys: state (hash), log (stream), then those that only one script needs. Numbers are formatted with ``%.0f``, because
Lua writes 1e14 for 100000000000000.
"""

from __future__ import annotations

from hashlib import sha1


class Script:
    """``sha`` identifies ``text`` on a server that has loaded it."""

    def __init__(self, text: str) -> None:
        self.text = text.encode()
        self.sha = sha1(self.text).hexdigest().encode()


# KEYS   state, log, writer's fence, receipts, receipts by age
# ARGV   epoch, ident, group number, nonce, lease of the fence in s, time in ms, window of keys in ms, their budget in
#        bytes, number of publishes with a key, field of the state that has the size of their receipts, whether to
#        refuse the group beyond the budget, instead of dropping receipts early; how many of the keys, the last ones,
#        are ids of items (the group is then one batch); for each publish with a key, and each item with an id: key,
#        receipt, number of its first message, of its last; then the messages.
# The items that are found are skipped, unless one has another receipt: then all are. The receipt of the batch ends with
# the numbers of those that were skipped.
# Returns the epoch that the log has instead, as {"epoch", it}; {"unregistered"}; {"late"}; {"full"}; or {"stored",
# answer} with
# answer = head before the group, number of keys, age of the youngest key dropped early or -1; and for each publish
# that was found: its index, length of its receipt, its receipt; each followed by a blank. A receipt is the last number,
# the time, the epoch and what the caller gave, with blanks between.
APPEND = Script("""
local state = redis.call('HMGET', KEYS[1], 'epoch', 'ident', 'head', 'nonce', 'size', ARGV[10])
if state[1] ~= ARGV[1] or state[2] ~= ARGV[2] then return {'epoch', state[1] or ''} end
local fence = redis.call('GET', KEYS[3])
if not fence then return {'unregistered'} end
local blank = string.find(fence, ' ', 1, true)
local done = tonumber(string.sub(fence, 1, blank - 1))
if done > tonumber(ARGV[3]) then return {'late'} end
if done == tonumber(ARGV[3]) then
  redis.call('EXPIRE', KEYS[3], ARGV[5])  -- a write, for the WAIT behind it
  return {'stored', string.sub(fence, blank + 1)}
end

local now, window, keyed = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[9])
local items, first = tonumber(ARGV[12]), 12 + 4 * keyed
local found, known, skipped, again, refused = {}, {}, {}, {}, false
local latest, latest_epoch = 0, ''
for publish = 0, keyed - 1 do
  local at = 13 + 4 * publish
  local receipt = redis.call('HGET', KEYS[4], ARGV[at])
  if receipt and tonumber(string.match(receipt, '^%d+ (%d+)')) + window > now then
    found[#found + 1] = string.format('%d %d ', publish, #receipt) .. receipt .. ' '
    known[publish] = true
    if publish >= keyed - items then
      local last, epoch, own = string.match(receipt, '^(%d+) %d+ (%S+) (.*)$')
      if own ~= ARGV[at + 1] then refused = true end
      if tonumber(last) > latest then latest, latest_epoch = tonumber(last), epoch end
      again[#again + 1] = ARGV[at + 2]
    end
    for message = tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]) do skipped[message] = true end
  end
end

if refused then
  for message = 1, #ARGV - first do skipped[message] = true end
end

local held, budget, refuse, shortened = tonumber(state[6] or '0'), tonumber(ARGV[8]), ARGV[11] == '1', -1
if refuse and held > budget then
  local oldest = redis.call('HGET', KEYS[4], redis.call('LINDEX', KEYS[5], 0) or '')
  if oldest and tonumber(string.match(oldest, '^%d+ (%d+)')) + window > now then return {'full'} end
end

local head, previous, size = tonumber(state[3]), state[4], tonumber(state[5])
local given = {}
for message = 1, #ARGV - first do
  if not skipped[message] then
    head = head + 1
    redis.call('XADD', KEYS[2], string.format('%.0f-0', head), 'd', previous .. ARGV[4] .. ARGV[first + message])
    previous = ARGV[4]
    size = size + #ARGV[first + message]
    given[message] = string.format('%.0f', head)
  end
end

local function weight(key, receipt) return 512 + #key + #receipt end
local function drop_oldest(room)
  for _ = 1, 64 do
    local key = redis.call('LINDEX', KEYS[5], 0)
    if not key then return end
    local receipt = redis.call('HGET', KEYS[4], key)
    if receipt then
      local age = now - tonumber(string.match(receipt, '^%d+ (%d+)'))
      if age < window and (refuse or held + room <= budget) then return end
      if age < window then shortened = age end
      held = held - weight(key, receipt)
      redis.call('HDEL', KEYS[4], key)
    end
    redis.call('LPOP', KEYS[5])
  end
end
for publish = 0, keyed - 1 do
  local at = 13 + 4 * publish
  local last, epoch, answer = given[tonumber(ARGV[at + 3])], ARGV[1], ARGV[at + 1]
  if publish == 0 and items > 0 and items < keyed then
    last = head
    if head == tonumber(state[3]) then last, epoch = latest, latest_epoch end
    last = not (known[0] or refused) and string.format('%.0f', last)
    answer = answer .. cmsgpack.pack(table.concat(again, ' '))
  end
  if last then
    local receipt = last .. ' ' .. ARGV[6] .. ' ' .. epoch .. ' ' .. answer
    local own = weight(ARGV[at], receipt)
    drop_oldest(own)
    redis.call('HSET', KEYS[4], ARGV[at], receipt)
    redis.call('RPUSH', KEYS[5], ARGV[at])
    held = held + own
  end
end

local keys = keyed > 0 and redis.call('HLEN', KEYS[4]) or 0
local answer = string.format('%s %d %.0f ', state[3], keys, shortened) .. table.concat(found)
redis.call('HSET', KEYS[1], 'head', string.format('%.0f', head), 'nonce', previous,
  'size', string.format('%.0f', size), ARGV[10], string.format('%.0f', held))
redis.call('SET', KEYS[3], ARGV[3] .. ' ' .. answer, 'EX', ARGV[5])
return {'stored', answer}
""")

# Starts a new epoch, if the log still has the one that the caller has seen ('' for none): so one of many callers does.
# Every follower reads the entry without a message. If the state is missing or older than the log, the contents are
# unknown: the log starts empty, but gives no number twice.
# KEYS   state, log
# ARGV   epoch seen, ident, new epoch, nonce, whether to discard what is there, version of what is written
RENEW = Script("""
local state = redis.call('HMGET', KEYS[1], 'epoch', 'head', 'nonce', 'snapshot_key')
if (state[1] or '') ~= ARGV[1] then return state[1] or '' end
redis.call('HDEL', KEYS[1], 'ident')
local head, last, sub = tonumber(state[2] or '0'), 0, 0
if redis.call('EXISTS', KEYS[2]) == 1 then
  local about = redis.call('XINFO', 'STREAM', KEYS[2])
  for i = 1, #about, 2 do
    if about[i] == 'last-generated-id' then
      local a, b = string.match(about[i + 1], '^(%d+)-(%d+)$')
      last, sub = tonumber(a), tonumber(b)
    end
  end
end
local discard = ARGV[5] == '1' or not state[1] or last > head
head = math.max(head, last)
if last ~= head then sub = 0 end
local place = string.format('%.0f-%.0f', head, sub + 1)
if discard then
  redis.call('XTRIM', KEYS[2], 'MAXLEN', 0)
  if state[4] and state[4] ~= '' then redis.call('UNLINK', state[4]) end
end
redis.call('XADD', KEYS[2], place, 'd', (state[3] or ARGV[4]) .. ARGV[4])
if discard then
  redis.call('HSET', KEYS[1], 'version', ARGV[6], 'head', string.format('%.0f', head), 'size', '0',
    'receipt_bytes', '0', 'lasting_bytes', '0', 'snapshot', place, 'snapshot_nonce', ARGV[4], 'snapshot_key', '',
    'snapshot_chunks', '0', 'snapshot_count', '0', 'snapshot_size', '0', 'floor', string.format('%.0f', head))
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[3], 'ident', ARGV[2], 'nonce', ARGV[4])
return ARGV[3]
""")

# Replaces the identity and keeps the epoch, if the state still has the identity that the caller has seen.
# KEYS   state
# ARGV   epoch seen, ident seen, ident
MOVE = Script("""
local state = redis.call('HMGET', KEYS[1], 'epoch', 'ident')
if state[1] == ARGV[1] and state[2] == ARGV[2] then redis.call('HSET', KEYS[1], 'ident', ARGV[3]) end
""")

# KEYS   lease
# ARGV   token, ms
TAKE_LEASE = Script("""
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
""")

# KEYS   lease
# ARGV   token
RELEASE = Script("""
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
""")

# KEYS   lease, chunks
# ARGV   token, ms that both live from now on, chunk
PUSH = Script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('RPUSH', KEYS[2], ARGV[3])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return 1
""")

# Makes the chunks the snapshot, and trims the log, if nothing has changed since they were made.
# KEYS   state, log, lease, chunks, chunks of the snapshot before
# ARGV   epoch, ident, token, number of chunks, place (id), sequence number of it, nonce there, messages, size of log,
#        first id that stays in the log, key of the chunks, key of those before, ms that these live on
SWITCH = Script("""
local state = redis.call('HMGET', KEYS[1], 'epoch', 'ident', 'snapshot', 'snapshot_key')
if state[1] ~= ARGV[1] or state[2] ~= ARGV[2] then return 'the epoch has changed' end
if redis.call('GET', KEYS[3]) ~= ARGV[3] then return 'the lease has expired' end
if tonumber(string.match(state[3], '^%d+')) >= tonumber(ARGV[6]) then return 'there is a newer one' end
if state[4] ~= ARGV[12] then return 'the snapshot has changed' end
if redis.call('LLEN', KEYS[4]) ~= tonumber(ARGV[4]) then return 'chunks are missing' end
redis.call('PERSIST', KEYS[4])
if ARGV[12] ~= '' then redis.call('PEXPIRE', KEYS[5], ARGV[13]) end
redis.call('HSET', KEYS[1], 'snapshot', ARGV[5], 'snapshot_nonce', ARGV[7], 'snapshot_key', ARGV[11],
  'snapshot_chunks', ARGV[4], 'snapshot_count', ARGV[8], 'snapshot_size', ARGV[9])
redis.call('XTRIM', KEYS[2], 'MINID', ARGV[10])
return ''
""")
