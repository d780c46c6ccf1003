-- Puts what the database says of a session into its auth hash, by compare-and-set.
--   KEYS[1]  the auth hash
--   ARGV     version, stamp (ms), life (ms), idle expiry (ms), exact (1: that idle expiry counts even if an earlier one
--            was later), then field, value, field, value, …
-- A tombstone absorbs everything; else the higher version wins; same version: the newer stamp, unless it lies in the
-- future by more than the tolerance for clocks: readers believe none that does. The later idle expiry is kept whatever
-- the version: while the database was down it was moved here only.
-- Returns 'pushed', 'dead' or 'older'.
local now = redis.pcall('HMGET', KEYS[1], '@live', '@v', '@at', '@i', '@d')
if now.err and not string.find(now.err, '^WRONGTYPE') then
  return now
end
local idle, life = tonumber(ARGV[4]), tonumber(ARGV[3])
local time = redis.call('TIME')
local clock = time[1] * 1000 + math.floor(time[2] / 1000)
local TOLERANCE = 1000
local kept = nil
if now[5] == string.match(KEYS[1], '{(.*)}') then  -- a foreign record or type says nothing of ours
  if now[1] == '0' then
    return 'dead'
  end
  local version, stamp = tonumber(now[2]), tonumber(now[3]) or 0
  local new = tonumber(ARGV[1])
  local later = tonumber(now[4])
  local is_newer = stamp > tonumber(ARGV[2]) and stamp <= clock + TOLERANCE
  if version and (version > new or (version == new and is_newer)) then
    if later and idle > later then
      redis.call('HSET', KEYS[1], '@i', ARGV[4])
    end
    return 'older'
  end
  if ARGV[5] ~= '1' and later and later > idle then
    kept = now[4]
    life = math.max(life, later - clock)
  end
  -- A script is not taken back: what its user may have no right to is tried on the record as it is, before that goes.
  -- The expiry first: then a server that is out of memory takes the new record in the place of the old one.
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', life))
  redis.call('HSET', KEYS[1], '@d', now[5])
end
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('DEL', KEYS[1])
end
for i = 6, #ARGV, 1000 do  -- Lua passes some thousand arguments to one call, not more
  redis.call('HSET', KEYS[1], unpack(ARGV, i, math.min(i + 999, #ARGV)))
end
if kept then
  redis.call('HSET', KEYS[1], '@i', kept)
end
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', life))
return 'pushed'
