-- A category's record, for the scripts that change one: this text stands before theirs.
--
-- The field '@m' describes the record:
--   1–11   the first characters of the digest: whose record it is
--   12–27  stamp: when it was written last, in microseconds by this server's clock, and more than any stamp before
--   28–40  horizon, as the distance from the stamp: a field that is not named behind was written at it or before
--   41–46  lag of the horizon, see below
--   47–53  author: the id of the write that began the record from nothing, or BEGUN (likewise, and later writes are not
--          named behind any more), WIPED, RESTORED (from a copy as of the horizon), or TRIMMED (one of these two, likewise)
--   54–60  bytes of the fields, names included, and 61–64 their number, both hexadecimal
--   then   the latest additions, each with its id (7) and the server's clock (13, milliseconds)
--   then   what was written lately, the oldest first: for each field \1 name \1 id of the write (7) stamp (16) lag (6);
--          a \1 in a name stands there as \2
-- What a host kept during an outage has a stamp of when it was merged; its lag (milliseconds, hexadecimal) says how
-- much earlier it was acknowledged. A value that was made from a version has to know all that came to the record
-- since; a wipe, or a value that was made from nothing, is held against what was acknowledged later.
-- A wipe leaves '@m' behind, so that stamps never begin anew and an older copy elsewhere is known to be older.
local WIPED, RESTORED, BEGUN, TRIMMED = '*wiped*', '*copied', '*begun*', '-------'
local LATELY_BYTES = 400            -- enough for ten fields or so; what is dropped raises the horizon
local LATELY_US = 3600 * 1000000    -- an hour: what a host has kept for longer is merged with less precision
local ADDITIONS = 6

local clock = redis.call('TIME')
local now_ms = clock[1] * 1000 + math.floor(clock[2] / 1000)
local now = clock[1] * 1000000 + clock[2]

-- What a script has to answer instead of writing: the time for it is over, or the session is not what it must be.
-- guard 'free': kind a, or data that no other request can have an id for; 'alive': the auth hash must exist and live;
-- 'new': it must not be a tombstone. deadline: milliseconds by this server's clock, 0: none. A command that was stuck
-- in a socket while its sender gave up must not undo what was written since.
local function refusal(auth_key, digest, guard, deadline)
  if deadline > 0 and now_ms > deadline then
    return {'late', now_ms}
  end
  if guard == 'free' then
    return nil
  end
  local auth = redis.pcall('HMGET', auth_key, '@live', '@d')
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

-- What '@m' says, but for the digest. Whether it can be understood.
local function describe(record, meta)
  local stamp, distance = tonumber(string.sub(meta, 12, 27)), tonumber(string.sub(meta, 28, 40))
  local lag, bytes = tonumber(string.sub(meta, 41, 46), 16), tonumber(string.sub(meta, 54, 60), 16)
  local count = tonumber(string.sub(meta, 61, 64), 16)
  if not (stamp and distance and lag and bytes and count) then
    return false
  end
  record.stamp, record.horizon = stamp, stamp - distance
  record.lag, record.author, record.bytes, record.count = lag, string.sub(meta, 47, 53), bytes, count
  record.additions = string.match(meta, '^[^\1]*', 65)
  record.lately = string.sub(meta, 65 + #record.additions)
  return true
end

-- names: the fields that are to be looked at; nil: all of them.
local function open_record(key, digest, names)
  local record = {
    key = key, digest = string.sub(digest, 1, 11), is_own = false, notes = false, is_wiped = false, stamp = 0,
    horizon = 0, lag = 0, author = '', bytes = 0, count = 0, additions = '', lately = '', old = {}, changed = {},
    order = {}, noted = {}, note_order = {}, note_at = {},
  }
  local meta = false
  if names then
    for first = 1, math.max(1, #names), 1000 do  -- Lua passes some thousand arguments to one call, not more
      local found = redis.pcall('HMGET', key, '@m', unpack(names, first, math.min(first + 999, #names)))
      if found.err then
        record.refusal = not string.find(found.err, '^WRONGTYPE') and found or nil
        return record
      end
      meta = found[1]
      for i = 2, #found do
        record.old[names[first + i - 2]] = found[i]
      end
    end
  else
    local found = redis.pcall('HGETALL', key)
    if found.err then
      record.refusal = not string.find(found.err, '^WRONGTYPE') and found or nil
      return record
    end
    for i = 1, #found, 2 do
      if found[i] == '@m' then
        meta = found[i + 1]
      else
        record.old[found[i]] = found[i + 1]
      end
    end
  end
  if not meta or string.sub(meta, 1, 11) ~= record.digest or not describe(record, meta) then
    record.old = {}  -- there is nothing, or a foreign or damaged record, which holds nothing of ours
    return record
  end
  record.is_own, record.notes, record.meta = true, true, meta
  return record
end

local function next_stamp(record)
  return math.max(record.stamp + 1, now)
end

-- The lag of what was acknowledged at a moment (0: just now) and has this stamp.
local function lag_of(acknowledged, stamp)
  return acknowledged > 0 and math.max(0, math.min(16777215, math.floor((stamp - acknowledged) / 1000))) or 0
end

local function as_noted(name)
  return '\1' .. string.gsub(name, '\1', '\2') .. '\1'
end

-- The id, stamp and lag of a field's last write; nil: it is not noted. And where that is, unless it was in this script.
local function written_lately(record, name)
  local note, from, to = record.noted[name], nil, nil
  if not note then
    from, to = string.find(record.lately, as_noted(name), 1, true)
    if not from then
      return nil
    end
    note = string.sub(record.lately, to + 1, to + 29)
  end
  local stamp, lag = tonumber(string.sub(note, 8, 23)), tonumber(string.sub(note, 24), 16)
  if stamp and lag then
    return string.sub(note, 1, 7), stamp, lag, from, to
  end
end

local function forget_lately(record, name)
  record.noted[name] = nil
  local _, _, _, from, to = written_lately(record, name)
  if from then
    record.lately = string.sub(record.lately, 1, from - 1) .. string.sub(record.lately, to + 30)
  end
end

-- Has a field this value from now on (false: none). acknowledged: when its user was told so, 0: just now.
-- It is noted, but for a record that a direct write begins: there the horizon says it of all fields.
local function put(record, name, value, id, acknowledged)
  local old = record.old[name]
  if old then
    record.bytes, record.count = record.bytes - #name - #old, record.count - 1
  end
  if value then
    record.bytes, record.count = record.bytes + #name + #value, record.count + 1
  end
  record.old[name] = value
  if record.changed[name] == nil then
    record.order[#record.order + 1] = name
  end
  record.changed[name] = value
  if record.notes then
    forget_lately(record, name)
    local stamp = next_stamp(record)
    record.noted[name] = id .. string.format('%016.0f%06x', stamp, lag_of(acknowledged, stamp))
    record.note_order[#record.note_order + 1] = name
    record.note_at[name] = #record.note_order
  end
end

-- All fields are gone, but for those that are put from here on.
local function wipe(record)
  record.notes, record.is_wiped = true, true
  record.bytes, record.count, record.old, record.lately = 0, 0, {}, ''
  record.horizon, record.lag, record.author = next_stamp(record), 0, WIPED
end

-- Count what is there and what was put. A command past these scripts (an operator's HSET, HDEL) changes fields, but not
-- the numbers in '@m'. It is done once in a script, and only for a record that seems to be over its limits, or to hold
-- less than nothing.
local function count_anew(record)
  if record.is_counted then
    return
  end
  record.is_counted, record.bytes, record.count = true, 0, 0
  local function count(name, value)
    record.bytes, record.count = record.bytes + #name + #value, record.count + 1
  end
  if record.is_own and not record.is_wiped then
    local found = redis.call('HGETALL', record.key)
    for i = 1, #found, 2 do
      if found[i] ~= '@m' and record.changed[found[i]] == nil then
        count(found[i], found[i + 1])
      end
    end
  end
  for name, value in pairs(record.changed) do
    if value then
      count(name, value)
    end
  end
end

-- Whether a record is within its limits when a field (nil: none) gets this value.
local function fits(record, name, value, max_fields, max_bytes)
  local function is_within()
    local bytes, count = record.bytes, record.count
    if name then
      local old = record.old[name]
      bytes, count = bytes + #name + #value - (old and #name + #old or 0), count + (old and 0 or 1)
    end
    return record.bytes >= 0 and bytes <= max_bytes and count <= max_fields
  end
  if not is_within() then
    count_anew(record)
  end
  return is_within()
end

-- The sum of two whole numbers as text; nil: one is none, or it has more than 18 digits. Lua's numbers have 15.
local function halves(text)
  local sign, digits = string.match(text, '^(-?)(%d+)$')
  if not digits or #digits > 18 then
    return nil
  end
  local unit = sign == '-' and -1 or 1
  return unit * (tonumber(string.sub(digits, 1, -10)) or 0), unit * tonumber(string.sub(digits, -9))
end

local function sum(a, b)
  local a_high, a_low = halves(a)
  local b_high, b_low = halves(b)
  if not a_high or not b_high then
    return nil
  end
  local carry = math.floor((a_low + b_low) / 1000000000)
  local high, low, sign = a_high + b_high + carry, a_low + b_low - carry * 1000000000, ''
  if high < 0 then
    high, low, sign = -high, -low, '-'
    if low < 0 then
      high, low = high - 1, low + 1000000000
    end
  end
  if high > 999999999 then
    return nil
  end
  return sign .. (high > 0 and string.format('%.0f%09.0f', high, low) or string.format('%.0f', low))
end

-- Add to a field. Whether it could be done.
local function add(record, name, by, id, acknowledged)
  local total = sum(record.old[name] or '0', by)
  if total then
    put(record, name, total, id, acknowledged)
    record.adds = true
  end
  return total ~= nil
end

-- Whether an addition of this id is among these.
local function is_counted(additions, id)
  for i = 1, #additions, 20 do
    if string.sub(additions, i, i + 6) == id then
      return true
    end
  end
  return false
end

-- The id of one of the additions (1, 2, …) that a write makes; see addition_id in redis_records.py.
local function addition_id(id, number)
  number = math.min(number, ADDITIONS) - 1
  return number > 0 and string.sub('ghijk', number, number) .. string.sub(id, 2) or id
end

local function note_addition(record, id)
  record.additions = string.sub(record.additions .. id .. string.format('%013.0f', now_ms), -20 * ADDITIONS)
end

-- Note what was put as written lately, and drop what is too much or too old.
local function note_lately(record)
  local parts, at = {record.lately}, 1
  for i, name in ipairs(record.note_order) do
    if record.noted[name] and record.note_at[name] == i then
      parts[#parts + 1] = as_noted(name) .. record.noted[name]
    end
  end
  local lately = table.concat(parts)
  while at <= #lately do
    local name_ends = string.find(lately, '\1', at + 1, true)
    local stamp = name_ends and tonumber(string.sub(lately, name_ends + 8, name_ends + 23))
    if not stamp then
      at = #lately + 1  -- damaged: what is behind it says nothing
      break
    end
    if #lately - at < LATELY_BYTES and stamp > now - LATELY_US then
      break
    end
    if stamp > record.horizon then
      local knows_of_older = record.author == WIPED or record.author == RESTORED or record.author == TRIMMED
      record.horizon, record.lag, record.author = stamp, 0, knows_of_older and TRIMMED or BEGUN
    end
    at = name_ends + 30
  end
  record.lately = string.sub(lately, at)
end

-- Lua passes some thousand arguments to one call, not more.
local function in_parts(command, key, list)
  for i = 1, #list, 1000 do
    redis.call(command, key, unpack(list, i, math.min(i + 999, #list)))
  end
end

-- A script is not taken back. What its user may have no right to is tried on the record as it is, before anything is
-- done that must be done as a whole or not at all. HSET first: a script that has written, were it a DEL of nothing, may
-- go on although the server is out of memory.
local function try_rights(record, life)
  if not record.meta then
    return
  end
  local deletes = false
  for _, name in ipairs(record.order) do
    deletes = deletes or not record.changed[name]
  end
  if deletes or record.is_wiped or record.adds then
    redis.call('HSET', record.key, '@m', record.meta)
    redis.call('PEXPIRE', record.key, life)
  end
  if deletes and not record.is_wiped then
    redis.call('HDEL', record.key, '@')  -- which no field is called
  end
end

-- Write what was put. Returns the new stamp.
local function save_record(record, life, id)
  local stamp = next_stamp(record)
  if record.author == '' then
    record.horizon, record.author = stamp, id
  end
  note_lately(record)
  if record.bytes < 0 or record.count < 0 then
    count_anew(record)
  end
  local distance = math.min(stamp - record.horizon, 9999999999999)
  local meta = record.digest .. string.format('%016.0f%013.0f%06x', stamp, distance, record.lag) .. record.author
    .. string.format('%07x%04x', record.bytes, record.count) .. record.additions .. record.lately
  local sets, dels = {'@m', meta}, {}
  for _, name in ipairs(record.order) do
    local value = record.changed[name]
    if value then
      sets[#sets + 1], sets[#sets + 2] = name, value
    else
      dels[#dels + 1] = name
    end
  end
  local begins = record.is_wiped or not record.is_own
  if begins and redis.call('EXISTS', record.key) == 1 then
    redis.call('DEL', record.key)
  end
  in_parts('HSET', record.key, sets)
  if not begins then
    in_parts('HDEL', record.key, dels)
  end
  if not record.is_own and type(redis.pcall('PEXPIRE', record.key, life)) == 'table' then
    redis.call('DEL', record.key)  -- it is refused: nothing of ours lies here for ever
  end
  redis.call('PEXPIRE', record.key, life)
  return stamp
end
