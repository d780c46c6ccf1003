-- Gives one category back what a host has of it, after this server may have lost it. guard.lua, record.lua
-- and kept.lua stand before this.
--   KEYS  the auth hash, the category's hash
--   ARGV  the head, then the record's life (see life_of), version of the copy, 1: it is of a record that began from nothing when this
--         server may have lost data already, and says nothing of what was there before; the ids of the additions that are
--         part of the copy, each with its time, as in @m; then field, value, …
-- Fields that were written since that version stay; the others become as in the copy. Several hosts may do so in any order:
-- what the newest copy says remains. A copy without fields is one of a category that was wiped.
-- What a record knows of a field that is not there and was not written lately depends on what it began from: RESTORED or WIPED,
-- that it was not there at the horizon; nothing (an id, BEGUN, PART), nothing of older times; TRIMMED: it may have been deleted.
-- Returns {'merged', stamp} or {'dead'} | {'gone'} | {'late', server's clock (ms)}.
local record = open_record(KEYS[2])
if record.refusal then
  return record.refusal
end

local version, is_partial, copy, names = string.format('%016.0f', tonumber(ARGV[3])), ARGV[4] == '1', {}, {}
for i = 6, #ARGV, 2 do
  copy[ARGV[i]] = ARGV[i + 1]
  names[#names + 1] = ARGV[i]
end
for name in pairs(record.old) do
  if not copy[name] and not is_partial then
    names[#names + 1] = name
  end
end
local is_newer = record.horizon <= version
local author = record.author
local began_from_nothing = not is_newer and author ~= WIPED and author ~= TRIMMED and author ~= RESTORED

local changes, is_put = record.stamp < version and not is_partial, false

-- From here on the record knows what the copy knows. The fields it began with were written at its horizon, after that.
if began_from_nothing and not is_partial then
  local began = {}
  for _, name in ipairs(names) do
    if record.old[name] and not written_lately(record, name) then
      began[#began + 1] = noted_as(name) .. author .. record.horizon .. record.lag
    end
  end
  local lately = table.concat(began) .. record.lately
  if author ~= BEGUN and #lately <= 400 then
    record.lately, record.horizon, record.lag, record.author = lately, version, NO_LAG, RESTORED
    changes = true
  elseif #ARGV < 6 then
    record.author = TRIMMED  -- it was wiped: nothing older may come back
    changes = true
  end
end

local function stays(name)
  local _, stamp = written_lately(record, name)
  if stamp then
    return stamp > tonumber(version)
  end
  return not is_newer and (record.old[name] or not began_from_nothing)
end

for _, name in ipairs(names) do
  local value = copy[name] or false
  if not stays(name) and (record.old[name] or false) ~= value and (not value or fits(record, name, value)) then
    put(record, name, value, nil)
    if is_partial and record.meta and is_newer then
      record.lately = record.lately .. noted_as(name) .. write_id .. version .. NO_LAG
    end
    changes, is_put = true, true
  end
end
if is_put then
  -- What waits in a journal under one of these ids is part of what was put.
  for i = 1, #ARGV[5], 20 do
    local addition = string.sub(ARGV[5], i, i + 19)
    if not is_counted(record.additions, string.sub(addition, 1, 7)) then
      record.additions = string.sub(record.additions .. addition, -20 * ADDITIONS)
    end
  end
end
if not changes then
  return {'merged', tonumber(record.stamp)}
end
if is_newer then
  if not is_partial then
    record.horizon, record.lag, record.author = version, NO_LAG, RESTORED
  elseif not record.meta then
    record.horizon, record.lag, record.author = version, NO_LAG, PART
  end
  if record.meta and record.next <= version then
    record.next = string.format('%016.0f', version + 1)
  end
end
local stamp = save_record(record, life_of(ARGV[2]))
return {'merged', tonumber(stamp)}
