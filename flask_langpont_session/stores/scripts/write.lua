-- Writes the changed fields of a session's categories, all of them or none.
--   KEYS  the auth hash (only its liveness is read here), then one hash per category written
--   ARGV  guard, digest, fields allowed per category, bytes allowed per category, then for each category:
--         life (ms), wipe (1: begin from nothing), number of sets, field, value, …,
--         number of deletions, field, …, number of increments, field, delta, …
-- guard 'free': kind a, or data that nobody else can have an id for; 'alive': the auth hash must exist and live;
-- 'new': it must not be a tombstone.
-- Returns {'written', version, …} or {'dead'} | {'gone'} | {'large', category number} | {'no number', category number}.
-- '@b' counts the bytes of the fields, so that the limit holds without looking at every one of them.
local guard, digest = ARGV[1], ARGV[2]
local max_fields, max_bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
local META = 4  -- @d @v @t @b
if guard ~= 'free' then
  local auth = redis.pcall('HMGET', KEYS[1], '@live', '@d')
  if auth.err and not string.find(auth.err, '^WRONGTYPE') then
    return auth
  end
  local live = auth[2] == digest and auth[1]  -- a foreign record or type under the auth key says nothing of ours
  if live == '0' then
    return {'dead'}
  end
  if guard == 'alive' and not live then
    return {'gone'}
  end
end

local at = 5
local function take(count)
  local taken = {}
  for i = 1, count do
    taken[i] = ARGV[at]
    at = at + 1
  end
  return taken
end

-- Lua passes some thousand arguments to one call, not more.
local function in_parts(command, key, list)
  for i = 1, #list, 1000 do
    redis.call(command, key, unpack(list, i, math.min(i + 999, #list)))
  end
end

-- The fields and bytes a category will have. A record without '@b' is counted once, field by field.
local function measure(plan, bytes)
  local fields = redis.call('HLEN', plan.key)
  if not bytes then
    bytes = 0
    for _, field in ipairs(redis.call('HKEYS', plan.key)) do
      if string.sub(field, 1, 1) == '@' then
        fields = fields - 1
      else
        bytes = bytes + #field + redis.call('HSTRLEN', plan.key, field)
      end
    end
  else
    fields = fields - META
  end
  return fields, bytes
end

local function change(plan, field, size, fields, bytes)
  local old = plan.wipe and 0 or redis.call('HSTRLEN', plan.key, field)
  if old > 0 then
    fields, bytes = fields - 1, bytes - #field - old
  end
  if size then
    fields, bytes = fields + 1, bytes + #field + size
  end
  return fields, bytes
end

-- Limits and numbers are checked before anything is written: a script cannot be taken back half way.
local plans = {}
for number = 1, #KEYS - 1 do
  local plan = {key = KEYS[number + 1], life = ARGV[at], wipe = ARGV[at + 1] == '1'}
  at = at + 3
  plan.sets = take(2 * tonumber(ARGV[at - 1]))
  at = at + 1
  plan.dels = take(tonumber(ARGV[at - 1]))
  at = at + 1
  plan.incs = take(2 * tonumber(ARGV[at - 1]))
  local meta = redis.pcall('HMGET', plan.key, '@d', '@v', '@b')
  if meta.err and not string.find(meta.err, '^WRONGTYPE') then
    return meta
  end
  plan.is_own = meta[1] == digest
  if not plan.is_own then
    plan.wipe, meta = true, {}  -- there is nothing, or a foreign record or type: it holds nothing of ours
  end
  plan.version = (tonumber(meta[2] or 0) or 0) + 1
  local fields, bytes = 0, 0
  if not plan.wipe then
    fields, bytes = measure(plan, tonumber(meta[3]))
  end
  for i = 1, #plan.sets, 2 do
    fields, bytes = change(plan, plan.sets[i], #plan.sets[i + 1], fields, bytes)
  end
  for _, field in ipairs(plan.dels) do
    fields, bytes = change(plan, field, nil, fields, bytes)
  end
  for i = 1, #plan.incs, 2 do
    local value = not plan.wipe and redis.call('HGET', plan.key, plan.incs[i])
    if value and (#value > 18 or not string.match(value, '^-?%d+$')) then  -- what HINCRBY could refuse half way
      return {'no number', number}
    end
    if not value then
      fields, bytes = fields + 1, bytes + #plan.incs[i]
    end
  end
  if fields > max_fields or bytes > max_bytes then
    return {'large', number}
  end
  plan.bytes = bytes
  plans[number] = plan
end

local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local reply = {'written'}
for number, plan in ipairs(plans) do
  -- A script that has written, were it a DEL of nothing, may go on although the server is out of memory.
  if plan.wipe and redis.call('EXISTS', plan.key) == 1 then
    if plan.is_own and #plan.sets + #plan.incs > 0 then
      -- A script is not taken back: what its user may have no right to is tried on the record as it is.
      redis.call('PEXPIRE', plan.key, plan.life)
      redis.call('HSET', plan.key, '@d', digest)
    end
    redis.call('DEL', plan.key)
  end
  if plan.wipe and #plan.sets + #plan.incs == 0 then
    plan.version = 0
  else
    local fields = plan.sets
    for _, item in ipairs({'@d', digest, '@v', plan.version, '@t', now, '@b', plan.bytes}) do
      fields[#fields + 1] = item
    end
    in_parts('HSET', plan.key, fields)
    in_parts('HDEL', plan.key, plan.dels)
    redis.call('PEXPIRE', plan.key, plan.life)
  end
  reply[number + 1] = plan.version
end
-- Last: what was refused half way is written again later, and only additions must not happen twice.
for _, plan in ipairs(plans) do
  for i = 1, #plan.incs, 2 do
    local field = plan.incs[i]
    local before = redis.call('HSTRLEN', plan.key, field)
    redis.call('HINCRBY', plan.key, field, plan.incs[i + 1])
    plan.bytes = plan.bytes + redis.call('HSTRLEN', plan.key, field) - before
  end
  if #plan.incs > 0 then
    redis.call('HSET', plan.key, '@b', plan.bytes)
  end
end
return reply
