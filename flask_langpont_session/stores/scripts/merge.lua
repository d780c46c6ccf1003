-- Brings what a host wrote during an outage into one category, without undoing what others wrote since.
--   KEYS  the auth hash, the category's hash
--   ARGV  guard ('free' or 'alive'), digest, life (ms), then for each field:
--         operation ('set', 'del', 'add'), field, value or delta, base version ('' unknown), base known (1/0), base value
-- A field is applied when the category is as the host last saw it (same version, or lost with everything else), or
-- when the field itself still has the value it had then. Additions always apply.
-- Returns {'merged', applied, conflicts, version} or {'dead'} | {'gone'}.
if ARGV[1] ~= 'free' then
  local live = redis.call('HGET', KEYS[1], '@live')
  if live == '0' then
    return {'dead'}
  end
  if not live then
    return {'gone'}
  end
end
local kind = redis.call('TYPE', KEYS[2]).ok
if kind ~= 'hash' and kind ~= 'none' then
  redis.call('DEL', KEYS[2])
end
local version = redis.call('HGET', KEYS[2], '@v')
local applied, conflicts = 0, 0
for i = 4, #ARGV, 6 do
  local operation, field, value = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local now = redis.call('HGET', KEYS[2], field)
  local base = ARGV[i + 4] == '1' and ARGV[i + 5]
  if operation == 'add' then
    if not now or string.match(now, '^-?%d+$') then
      redis.call('HINCRBY', KEYS[2], field, value)
      applied = applied + 1
    else
      conflicts = conflicts + 1
    end
  elseif not version or version == ARGV[i + 3] or now == base or now == value then
    if operation == 'set' then
      redis.call('HSET', KEYS[2], field, value)
    else
      redis.call('HDEL', KEYS[2], field)
    end
    applied = applied + 1
  else
    conflicts = conflicts + 1
  end
end
local after = (tonumber(version or 0) or 0)
if applied > 0 then
  after = after + 1
  redis.call('HSET', KEYS[2], '@d', ARGV[2], '@v', after)
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
end
return {'merged', applied, conflicts, after}
