-- Leaves a tombstone for a dead session and removes its data. A tombstone is never deleted, it expires.
--   KEYS  the auth hash, then the other categories' hashes
--   ARGV  how it is described, see auth.lua; its life (ms)
-- What the session had goes first, whatever is refused after that: it is dead. Besides, a script that has written may
-- go on although the server is out of memory.
-- The auth hash is replaced field by field, not deleted and made again, unless that is refused: see push.lua.
for i = 2, #KEYS do
  redis.call('DEL', KEYS[i])
end
local old, gone = redis.pcall('HGETALL', KEYS[1]), {}
for i = 1, #old, 2 do
  gone[#gone + 1] = old[i] ~= '@m' and old[i] or nil
end
local refused = old.err or type(redis.pcall('HSET', KEYS[1], '@m', ARGV[1])) == 'table'
for i = 1, refused and 0 or #gone, 1000 do  -- Lua passes some thousand arguments to one call, not more
  refused = refused or type(redis.pcall('HDEL', KEYS[1], unpack(gone, i, math.min(i + 999, #gone)))) == 'table'
end
if refused then
  redis.call('DEL', KEYS[1])
  redis.call('HSET', KEYS[1], '@m', ARGV[1])
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 'buried'
