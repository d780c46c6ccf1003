-- Puts what the database says of a session into its auth hash, by compare-and-set. auth.lua stands before this.
--   KEYS[1]  the auth hash
--   ARGV     life (ms), exact (1: the idle expiry counts even if an earlier one was later), then field, value, field,
--            value, …, the first of which is '@m'
-- A tombstone absorbs everything; else the higher version wins; same version: the newer stamp, unless it lies in the
-- future by more than the tolerance for clocks: readers believe none that does. The later idle expiry is kept whatever
-- the version: while the database was down it was moved here only.
-- A record is replaced field by field, not deleted and made again: while its slot is moved to another node, a node
-- refuses what a script does with a key that it has no more.
-- Returns 'pushed', 'older', or for a tombstone 'dead'; of one that the database knows of 'ended'.
local now = redis.pcall('HGETALL', KEYS[1])
if now.err and not string.find(now.err, '^WRONGTYPE') then
  return now
end
local meta, life, kept, gone = nil, tonumber(ARGV[1]), {}, {}
for i = 3, #ARGV, 2 do
  kept[ARGV[i]] = true
end
for i = 1, #now, 2 do
  if now[i] == '@m' then
    meta = now[i + 1]
  elseif not kept[now[i]] then
    gone[#gone + 1] = now[i]
  end
end
local live, stamp, later, _, version = described(meta)  -- a foreign record or type says nothing of ours
if live == 'D' then
  return string.sub(meta, 12) == 'D0' and 'dead' or 'ended'
end
if live then
  local time = redis.call('TIME')
  local clock = time[1] * 1000 + math.floor(time[2] / 1000)
  local TOLERANCE = 1000
  local _, new_stamp, idle, _, new = described(ARGV[4])
  local is_newer = stamp > new_stamp and stamp <= clock + TOLERANCE
  if version > new or (version == new and is_newer) then
    if idle > later then
      redis.call('HSET', KEYS[1], '@m', with_idle(meta, string.sub(ARGV[4], 22, 30)))
    end
    return 'older'
  end
  if ARGV[2] ~= '1' and later > idle then
    ARGV[4] = with_idle(ARGV[4], string.sub(meta, 22, 30))
    life = math.max(life, later - clock)
  end
end
if now.err then
  redis.call('DEL', KEYS[1])
elseif #now > 0 then
  -- A script is not taken back: what its user may have no right to is tried on the record as it is, before that changes.
  -- The expiry first: then a server that is out of memory takes the new record in the place of the old one.
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', life))
  redis.call('HSET', KEYS[1], now[1], now[2])
  redis.call('HDEL', KEYS[1], '@')  -- which no field is called
end
for i = 3, #ARGV, 1000 do  -- Lua passes some thousand arguments to one call, not more
  redis.call('HSET', KEYS[1], unpack(ARGV, i, math.min(i + 999, #ARGV)))
end
for i = 1, #gone, 1000 do
  redis.call('HDEL', KEYS[1], unpack(gone, i, math.min(i + 999, #gone)))
end
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', life))
return 'pushed'
