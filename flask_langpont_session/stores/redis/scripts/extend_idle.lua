-- Moves the idle expiry of a session in use while the database, whose task it is, does not answer.
--   KEYS[1]  the auth hash
--   ARGV     idle time (ms)
-- Never past the absolute expiry, never of a tombstone or of what has run out already. Returns the expiry (ms); 0:
-- nothing there that could be moved.
local found = redis.pcall('HMGET', KEYS[1], '@live', '@i', '@x', '@d')
if found.err and not string.find(found.err, '^WRONGTYPE') then
  return found
end
if found[1] ~= '1' or found[4] ~= string.match(KEYS[1], '{(.*)}') then
  return 0
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local idle, absolute = tonumber(found[2]), tonumber(found[3])
if not idle or not absolute or idle <= now then
  return 0
end
local later = math.min(now + tonumber(ARGV[1]), absolute)
if later > idle then
  redis.call('HSET', KEYS[1], '@i', string.format('%.0f', later))
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', later - now))
  return later
end
return idle
