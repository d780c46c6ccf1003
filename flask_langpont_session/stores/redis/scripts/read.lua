-- Reads whole categories of one session, and slides their life when a quarter of it has passed.
--   KEYS  the categories' hashes
--   ARGV  for each key the life to slide to, in milliseconds; 0: do not touch
-- Returns {server time in ms, hash or error text, …, the longest life that was slid to, or 0}.
-- The touch comes first, so that a copy tracked by the client is not invalidated right after it was read. It is a
-- pcall: a server that refuses writes (read-only, out of memory, no replicas) still answers this read. A tombstone
-- is never touched: it lives for the time it was given.
local time = redis.call('TIME')
local reply = {time[1] * 1000 + math.floor(time[2] / 1000)}
local moved = 0
for i = 1, #KEYS do
  local life = tonumber(ARGV[i])
  if life > 0 then
    local left = redis.call('PTTL', KEYS[i])
    if left >= 0 and left < life * 0.75 then
      local live = redis.pcall('HMGET', KEYS[i], '@live')
      if not live.err and live[1] ~= '0' then
        if redis.pcall('PEXPIRE', KEYS[i], life) == 1 then
          moved = math.max(moved, life)
        end
      end
    end
  end
  local hash = redis.pcall('HGETALL', KEYS[i])
  if hash.err and not string.find(hash.err, '^WRONGTYPE') then
    return hash  -- what this server does not let its user do says nothing of the record
  elseif hash.err then
    reply[i + 1] = hash.err
  else
    reply[i + 1] = hash
  end
end
reply[#KEYS + 2] = moved
return reply
