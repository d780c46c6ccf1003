-- Brings what a host wrote during an outage into one category, without undoing what others wrote since.
--   KEYS  the auth hash, the category's hash
--   ARGV  guard ('free' or 'alive'), digest, life (ms), then for each field:
--         operation ('set', 'del', 'add'), field, value or delta, base version ('' unknown), base value known (1/0),
--         base value, time of the write by the host's clock (ms)
-- A field is applied when the category is as the host last saw it (same version, or lost with everything else), or
-- when the field itself still has the value it had then. A host that never saw the category cannot know either: its
-- field is applied when it is younger than the category's last write. Additions always apply.
-- Returns {'merged', applied, conflicts, version} or {'dead'} | {'gone'}.
if ARGV[1] ~= 'free' then
  local auth = redis.pcall('HMGET', KEYS[1], '@live', '@d')
  if auth.err and not string.find(auth.err, '^WRONGTYPE') then
    return auth
  end
  local live = auth[2] == ARGV[2] and auth[1]  -- a foreign record or type under the auth key says nothing of ours
  if live == '0' then
    return {'dead'}
  end
  if not live then
    return {'gone'}
  end
end
local own = redis.pcall('HMGET', KEYS[2], '@d')
if own.err and not string.find(own.err, '^WRONGTYPE') then
  return own
end
-- A script that has written, were it a DEL of nothing, may go on although the server is out of memory.
if own[1] ~= ARGV[2] and redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('DEL', KEYS[2])  -- a foreign record or type holds nothing of ours
end
local version = redis.call('HGET', KEYS[2], '@v')
local written = tonumber(redis.call('HGET', KEYS[2], '@t') or 0) or 0
local applied, conflicts = 0, 0
for i = 4, #ARGV, 7 do
  local operation, field, value = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local now = redis.call('HGET', KEYS[2], field)
  local base = ARGV[i + 4] == '1' and ARGV[i + 5]
  if operation == 'add' then
    local total = redis.pcall('HINCRBY', KEYS[2], field, value)
    if type(total) == 'number' then
      applied = applied + 1
    elseif string.find(total.err, 'not an integer') or string.find(total.err, 'overflow') then
      conflicts = conflicts + 1
    else
      return total  -- it is not the value that was no good
    end
  elseif not version or version == ARGV[i + 3] or now == value
      or (ARGV[i + 3] ~= '' and now == base) or (ARGV[i + 3] == '' and tonumber(ARGV[i + 6]) >= written) then
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
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('HDEL', KEYS[2], '@b')  -- the next write counts the bytes anew
  redis.call('HSET', KEYS[2], '@d', ARGV[2], '@v', after, '@t', string.format('%.0f', now))
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
end
return {'merged', applied, conflicts, after}
