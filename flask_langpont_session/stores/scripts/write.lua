-- Writes the changed fields of a session's categories, all of them or none.
--   KEYS  the auth hash (only its liveness is read here), then one hash per category written
--   ARGV  guard, digest, fields allowed per category, bytes allowed per category, then for each category:
--         life (ms), wipe (1: begin from nothing), number of sets, field, value, …,
--         number of deletions, field, …, number of increments, field, delta, …
-- guard 'free': kind a, or data that nobody else can have an id for; 'alive': the auth hash must exist and live;
-- 'new': it must not be a tombstone.
-- Returns {'written', version, …} or {'dead'} | {'gone'} | {'large', category number} | {'no number', category number}.
local guard, digest = ARGV[1], ARGV[2]
local max_fields, max_bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
if guard ~= 'free' then
  local live = redis.call('HGET', KEYS[1], '@live')
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

local plans = {}
for k = 2, #KEYS do
  local plan = {key = KEYS[k], life = ARGV[at], wipe = ARGV[at + 1] == '1'}
  at = at + 2
  at = at + 1
  plan.sets = take(2 * tonumber(ARGV[at - 1]))
  at = at + 1
  plan.dels = take(tonumber(ARGV[at - 1]))
  at = at + 1
  plan.incs = take(2 * tonumber(ARGV[at - 1]))
  plans[k - 1] = plan
end

-- Someone else's type under our key holds nothing of ours: the category begins from nothing.
for _, plan in ipairs(plans) do
  local kind = redis.call('TYPE', plan.key).ok
  plan.wipe = plan.wipe or (kind ~= 'hash' and kind ~= 'none')
end

-- Limits and numbers are checked before anything is written: a script cannot be taken back half way.
for number, plan in ipairs(plans) do
  local sizes, fields, bytes = {}, 0, 0
  if not plan.wipe then
    for _, field in ipairs(redis.call('HKEYS', plan.key)) do
      if string.sub(field, 1, 1) ~= '@' then
        sizes[field] = #field + redis.call('HSTRLEN', plan.key, field)
      end
    end
  end
  for i = 1, #plan.sets, 2 do
    sizes[plan.sets[i]] = #plan.sets[i] + #plan.sets[i + 1]
  end
  for _, field in ipairs(plan.dels) do
    sizes[field] = nil
  end
  for i = 1, #plan.incs, 2 do
    local field = plan.incs[i]
    local value = not plan.wipe and redis.call('HGET', plan.key, field)
    if value and not string.match(value, '^-?%d+$') then
      return {'no number', number}
    end
    sizes[field] = sizes[field] or #field + 20
  end
  for _, size in pairs(sizes) do
    fields = fields + 1
    bytes = bytes + size
  end
  if fields > max_fields or bytes > max_bytes then
    return {'large', number}
  end
end

local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local reply = {'written'}
for number, plan in ipairs(plans) do
  local version = redis.call('TYPE', plan.key).ok == 'hash' and redis.call('HGET', plan.key, '@v')
  if plan.wipe then
    redis.call('DEL', plan.key)
  end
  version = (tonumber(version or 0) or 0) + 1
  if plan.wipe and #plan.sets + #plan.incs == 0 then
    version = 0
  else
    redis.call('HSET', plan.key, '@d', digest, '@v', version, '@t', now)
    in_parts('HSET', plan.key, plan.sets)
    in_parts('HDEL', plan.key, plan.dels)
    for i = 1, #plan.incs, 2 do
      redis.call('HINCRBY', plan.key, plan.incs[i], plan.incs[i + 1])
    end
    redis.call('PEXPIRE', plan.key, plan.life)
  end
  reply[number + 1] = version
end
return reply
