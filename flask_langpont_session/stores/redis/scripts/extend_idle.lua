-- Moves the idle expiry of a session in use while the database, whose task it is, does not answer. auth.lua stands before
-- this.
--   KEYS[1]  the auth hash
--   ARGV     idle time (ms)
-- Never past the absolute expiry, never of a tombstone or of what has run out already. Returns the expiry (ms); 0:
-- nothing there that could be moved.
local found = redis.pcall('HMGET', KEYS[1], '@m')
if found.err and not string.find(found.err, '^WRONGTYPE') then
  return found
end
local live, _, idle, absolute = described(found[1])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if live ~= 'L' or idle <= now then
  return 0
end
local later = math.min(now + tonumber(ARGV[1]), absolute)
if later > idle then
  local text, left = '', later
  for _ = 1, 9 do
    local digit = left % 36
    text = string.sub('0123456789abcdefghijklmnopqrstuvwxyz', digit + 1, digit + 1) .. text
    left = (left - digit) / 36
  end
  redis.call('HSET', KEYS[1], '@m', with_idle(found[1], text))
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', later - now))
  return later
end
return idle
