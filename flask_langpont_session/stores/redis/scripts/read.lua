-- Reads whole categories of one session, and extends their life when a quarter of it has passed.
--   KEYS  the categories' hashes
--   ARGV  for each key the life to extend to, in milliseconds (0: do not touch); then, for each key of which the reader
--         has the content already, how that is described ('@m'). '' or left out: it has none.
-- Whatever changes in a record, its description changes too: that of a category names the latest writes by their ids; that
-- of a signed-in session has version, stamp and idle expiry. See record.lua and auth.lua.
-- Returns {server time in ms, hash or error text, …, the longest life that was extended to, or 0, milliseconds until
-- the next of them is to be extended, or -1: none is}. In the place of a hash that is what the reader has there is its
-- description, by which the reader knows that it is the answer to its question.
-- The touch comes first, so that a copy tracked by the client is not invalidated right after it was read. It is a
-- pcall: a server that refuses writes (read-only, out of memory, no replicas) still answers this read. A tombstone
-- is never touched: it lives for the time it was given.
local time = redis.call('TIME')
local reply, keys, moved, due = {time[1] * 1000 + math.floor(time[2] / 1000)}, #KEYS, 0, -1
for i = 1, keys do
  local key, life, known = KEYS[i], tonumber(ARGV[i]), ARGV[keys + i] or ''
  if life > 0 then
    local left, latest = redis.call('PTTL', key), life * 0.75
    if left >= 0 and left < latest then
      local said = redis.pcall('HMGET', key, '@m')[1]
      if said and string.sub(said, 12, 12) ~= 'D' and redis.pcall('PEXPIRE', key, life) == 1 then
        moved, left = math.max(moved, life), life
      end
    end
    if left >= 0 and (due < 0 or left - latest < due) then
      due = math.max(0, left - latest)
    end
  end
  if known ~= '' and redis.pcall('HMGET', key, '@m')[1] == known then
    reply[i + 1] = known
  else
    local hash = redis.pcall('HGETALL', key)
    if hash.err and not string.find(hash.err, '^WRONGTYPE') then
      return hash  -- what this server does not let its user do says nothing of the record
    end
    reply[i + 1] = hash.err or hash
  end
end
reply[keys + 2], reply[keys + 3] = moved, math.floor(due)
return reply
