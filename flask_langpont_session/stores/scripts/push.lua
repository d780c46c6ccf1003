-- Puts what the database says of a session into its auth hash, by compare-and-set.
--   KEYS[1]  the auth hash
--   ARGV     version, stamp (ms), life (ms), then field, value, field, value, …
-- A tombstone absorbs everything; else the higher version wins; same version: the newer stamp.
-- Returns 'pushed', 'dead' or 'older'.
local now = redis.pcall('HMGET', KEYS[1], '@live', '@v', '@at')
if not now.err then
  if now[1] == '0' then
    return 'dead'
  end
  local version, stamp = tonumber(now[2]), tonumber(now[3]) or 0
  local new = tonumber(ARGV[1])
  if version and (version > new or (version == new and stamp > tonumber(ARGV[2]))) then
    return 'older'
  end
end
redis.call('DEL', KEYS[1])
for i = 4, #ARGV, 1000 do  -- Lua passes some thousand arguments to one call, not more
  redis.call('HSET', KEYS[1], unpack(ARGV, i, math.min(i + 999, #ARGV)))
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 'pushed'
