-- Reads whole categories of one session, and extends their life when a quarter of it has passed.
--   KEYS  the categories' hashes
--   ARGV  for each key the life to extend to, in milliseconds (0: do not touch); then, for each key of which the reader
--         has the content already, the mark of that: 11 characters of the digest and 16 of the SHA-1 of what describes
--         the record. '' or left out: it has none.
-- Returns {server time in ms, hash or error text, …, the longest life that was extended to, or 0, milliseconds until
-- the next of them is to be extended, or -1: none is}. In the place of a hash that is what the reader has there are the 11 characters, by which it knows that it is the answer to its question.
-- The touch comes first, so that a copy tracked by the client is not invalidated right after it was read. It is a
-- pcall: a server that refuses writes (read-only, out of memory, no replicas) still answers this read. A tombstone
-- is never touched: it lives for the time it was given.
local time = redis.call('TIME')
local reply = {time[1] * 1000 + math.floor(time[2] / 1000)}
local moved, due, hashed = 0, -1, redis.sha1hex  -- fakeredis has none

-- Of a signed-in session's auth hash nothing changes without one of these; of any other record '@m' changes with each
-- write: it names the latest ones by their ids.
local function description(key)
  local found = redis.pcall('HMGET', key, '@m', '@live', '@v', '@at', '@i')
  if found.err then
    return ''
  end
  return found[1] or (table.concat({found[2] or '', found[3] or '', found[4] or '', found[5] or ''}, ' '))
end

for i = 1, #KEYS do
  local life, mark = tonumber(ARGV[i]), ARGV[#KEYS + i] or ''
  if life > 0 then
    local left = redis.call('PTTL', KEYS[i])
    if left >= 0 and left < life * 0.75 then
      local live = redis.pcall('HMGET', KEYS[i], '@live')
      if not live.err and live[1] ~= '0' then
        if redis.pcall('PEXPIRE', KEYS[i], life) == 1 then
          moved, left = math.max(moved, life), life
        end
      end
    end
    if left >= 0 then
      local rest = math.max(0, math.floor(left - life * 0.75))
      due = due < 0 and rest or math.min(due, rest)
    end
  end
  if mark ~= '' and hashed and string.sub(hashed(description(KEYS[i])), 1, 16) == string.sub(mark, 12) then
    reply[i + 1] = string.sub(mark, 1, 11)
  else
    local hash = redis.pcall('HGETALL', KEYS[i])
    if hash.err and not string.find(hash.err, '^WRONGTYPE') then
      return hash  -- what this server does not let its user do says nothing of the record
    elseif hash.err then
      reply[i + 1] = hash.err
    else
      reply[i + 1] = hash
    end
  end
end
reply[#KEYS + 2], reply[#KEYS + 3] = moved, due
return reply
