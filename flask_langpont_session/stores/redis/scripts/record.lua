-- A category's record, and the functions for the scripts that change one: this text stands behind guard.lua.
--
-- The field '@m' describes the record:
--   1–8    the first characters of the digest: whose record it is
--   9–24   stamp: when it was written last, and more than any stamp before
--   25–40  horizon: a field that is not named behind was written then or before
--   41–46  lag of the horizon, see below
--   47–53  author: the id of the write that began the record from nothing, or '*begun*' (likewise, and later writes are
--          not named behind any more) or '*part**' (likewise, restored from a copy as of the horizon that may have begun
--          from nothing itself), '*wiped*', '*copied' (restored from a copy as of the horizon), or '-------' (one of
--          these two, and trimmed likewise)
--   54–60  bytes of the fields, names included, and 61–64 their number, both hexadecimal: with more than 64 bytes a small
--          record would take twice the room, see hash-max-listpack-value
--   then   the latest additions, each with its id (7) and the server's clock (13, milliseconds)
--   then   what was written lately, the oldest first: for each field \1 name \1 id of the write (7) stamp (16) lag (6);
--          a \1 in a name stands there as \2
-- Moments are microseconds by this server's clock, with 16 digits: as text they are in the same order as their numbers,
-- and need not be made numbers of, which is a good part of the time that a write takes.
-- What a host kept during an outage has a stamp of when it was merged; its lag (milliseconds, hexadecimal) says how
-- much earlier it was acknowledged. A value that was made from a version has to know all that came to the record
-- since; a wipe, or a value that was made from nothing, is held against what was acknowledged later.
-- A wipe leaves '@m' behind, so that stamps never begin anew and an older copy elsewhere is known to be older.
--
-- A function costs as much to make as a short one to run, and more with each local of this text that it knows: that is a
-- good part of the time that a write takes. So there are few of them, with literals in the place of constants.

-- What '@m' says, but for whose record it is. Whether it can be understood.
local function describe(record, meta)
  local sub = string.sub
  local _, digits = string.find(meta, '^%d+', 9)
  local bytes, count = tonumber(sub(meta, 54, 60), 16), tonumber(sub(meta, 61, 64), 16)
  if #meta < 64 or not digits or digits < 40 or not bytes or not count then
    return false
  end
  local stamp, notes = sub(meta, 9, 24), string.find(meta, '\1', 65, true) or #meta + 1
  record.stamp, record.next = stamp, stamp < now and now or string.format('%016.0f', tonumber(stamp) + 1)
  record.horizon, record.lag, record.author = sub(meta, 25, 40), sub(meta, 41, 46), sub(meta, 47, 53)
  record.bytes, record.count = bytes, count
  record.additions, record.lately = sub(meta, 65, notes - 1), sub(meta, notes)
  return true
end

-- list, first, last: the fields that are to be looked at, and where in that they are; no list: all of them.
-- Of the record that this gives: meta: what '@m' said, false: there is nothing of ours; next: the stamp of what is done
-- now; notes: whether it is said of each field that is put when that was; old: its fields, as they are by now; order: the
-- names of those that were put; noted: what is said of each of these, false: nothing.
local function open_record(key, list, first, last)
  local record = {
    key = key, meta = false, notes = false, stamp = '0000000000000000', next = now, horizon = '0000000000000000',
    lag = '000000', author = '', bytes = 0, count = 0, additions = '', lately = '', old = {}, order = {}, noted = {},
    life = false,
  }
  local old, meta, from = record.old, false, first
  repeat
    local to, found = last, nil
    if not list then
      found = redis.pcall('HGETALL', key)
    else
      if to - from > 999 then
        to = from + 999  -- Lua passes some thousand arguments to one call, not more
      end
      found = redis.pcall('HMGET', key, '@m', unpack(list, from, to))
    end
    if found.err then
      record.refusal = not string.find(found.err, '^WRONGTYPE') and found or nil
      return record
    end
    if list then
      meta, from = found[1], to + 1
      for i = 2, #found do
        old[list[to - #found + i]] = found[i]
      end
    else
      for i = 1, #found, 2 do
        old[found[i]] = found[i + 1]
      end
      meta, old['@m'] = old['@m'], nil
    end
  until not list or from > last
  if meta and string.sub(meta, 1, 8) == string.sub(head, 1, 8) and describe(record, meta) then
    record.meta, record.notes = meta, true
  else
    record.old = {}  -- there is nothing, or a foreign or damaged record, which holds nothing of ours
  end
  return record
end

-- What stands before the id, stamp and lag of the last write of a field.
local function noted_as(name)
  if string.find(name, '\1', 1, true) then
    name = string.gsub(name, '\1', '\2')
  end
  return '\1' .. name .. '\1'
end

-- Has a field this value from now on (false: none). lag: '000000', or of what its user was told of earlier; nil: nothing
-- is said of when it was written. Else it is noted, but for a record that a direct write begins: there the horizon says it
-- of all fields.
local function put(record, name, value, lag)
  local old, note = record.old[name], nil
  if old then
    record.bytes, record.count = record.bytes - #name - #old, record.count - 1
  end
  if value then
    record.bytes, record.count = record.bytes + #name + #value, record.count + 1
  else
    record.deletes = true
  end
  record.old[name] = value
  if record.notes then
    note = noted_as(name)
    local from, to = string.find(record.lately, note, 1, true)
    if from then
      record.lately = string.sub(record.lately, 1, from - 1) .. string.sub(record.lately, to + 30)
    end
    note = lag and note .. write_id .. record.next .. lag
  end
  if record.noted[name] == nil then
    record.order[#record.order + 1] = name
  end
  if record.notes or not record.noted[name] then
    record.noted[name] = note or false
  end
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
  if record.meta and not record.is_wiped then
    local found = redis.call('HGETALL', record.key)
    for i = 1, #found, 2 do
      if found[i] ~= '@m' and record.noted[found[i]] == nil then
        count(found[i], found[i + 1])
      end
    end
  end
  for _, name in ipairs(record.order) do
    if record.old[name] then
      count(name, record.old[name])
    end
  end
end

-- Whether a record is within its limits when a field (nil: none) gets this value.
local function fits(record, name, value)
  local max_bytes, max_fields = tonumber(string.sub(head, 21, 27), 16), tonumber(string.sub(head, 28, 31), 16)
  for _ = 1, 2 do
    local bytes, count = record.bytes, record.count
    if name then
      local old = record.old[name]
      bytes, count = bytes + #name + #value - (old and #name + #old or 0), count + (old and 0 or 1)
    end
    if record.bytes >= 0 and bytes <= max_bytes and count <= max_fields then
      return true
    end
    count_anew(record)
  end
  return false
end

-- The sum of two whole numbers as text; nil: one is none, or it has more than 18 digits. Lua's numbers have 15.
local function sum(a, b)
  local function halves(text)
    local sign, digits = string.match(text, '^(-?)(%d+)$')
    if not digits or #digits > 18 then
      return nil
    end
    local unit = sign == '-' and -1 or 1
    return unit * (tonumber(string.sub(digits, 1, -10)) or 0), unit * tonumber(string.sub(digits, -9))
  end
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

-- Add to a field. Whether it could be done. addition: the id under which that is remembered; nil: it is already.
local function add(record, name, by, lag, addition)
  local total = sum(record.old[name] or '0', by)
  if total then
    put(record, name, total, lag)
    record.adds = true
    if addition then
      record.additions = string.sub(record.additions .. addition .. string.sub(now, 1, 13), -120)  -- six of them
    end
  end
  return total ~= nil
end

-- A script is not taken back. What its user may have no right to is tried on the record as it is, before anything is
-- done that must be done as a whole or not at all. HSET before all that writes: a script that has written may go on
-- although the server is out of memory.
local function try_rights(record, life)
  if not record.meta then
    return
  end
  record.there = record.is_wiped and redis.call('HGETALL', record.key)
  if record.deletes or record.is_wiped or record.adds then
    redis.call('HSET', record.key, '@m', record.meta)
    redis.call('PEXPIRE', record.key, life)
  end
  if record.deletes or record.is_wiped then
    redis.call('HDEL', record.key, '@')  -- which no field is called
  end
end

-- Write what was put. Returns the new stamp, and what '@m' says. A record that begins anew is replaced field by field, not
-- deleted and made again: see push.lua.
local function save_record(record, life)
  local stamp, sets, notes = record.next, {'@m', ''}, {record.lately}
  for i = 1, #record.order do
    local name = record.order[i]
    notes[#notes + 1] = record.noted[name] or nil
    if record.old[name] then
      sets[#sets + 1], sets[#sets + 2] = name, record.old[name]
    end
  end
  if record.author == '' then
    record.horizon, record.author = stamp, write_id
  end
  -- Of what was written lately 400 bytes are kept, enough for ten fields or so, and nothing that is older than an hour:
  -- what a host has kept for longer is merged with less precision. What is dropped raises the horizon.
  local lately, at = table.concat(notes), 1
  while at <= #lately do
    local name_ends = string.find(lately, '\1', at + 1, true)
    local noted = name_ends and string.sub(lately, name_ends + 8, name_ends + 23)
    local second = noted and tonumber(string.sub(noted, 1, 10))
    if not second then
      at = #lately + 1  -- damaged: what is behind it says nothing
      break
    end
    if #lately - at < 400 and clock[1] - second < 3600 then
      break
    end
    if noted > record.horizon then
      local knows_of_older = string.find('*wiped* *copied -------', record.author, 1, true)
      record.horizon, record.lag, record.author = noted, '000000', knows_of_older and '-------' or '*begun*'
    end
    at = name_ends + 30
  end
  if record.bytes < 0 or record.count < 0 then
    count_anew(record)
  end
  sets[2] = string.sub(head, 1, 8) .. stamp .. record.horizon .. record.lag .. record.author
    .. string.format('%07x%04x', record.bytes, record.count) .. record.additions .. string.sub(lately, at)
  local gone = {}
  if record.is_wiped or not record.meta then
    local there = record.there or redis.pcall('HGETALL', record.key)
    if there.err then
      redis.call('DEL', record.key)  -- it is of another type
    end
    for i = 1, #there, 2 do
      gone[#gone + 1] = there[i] ~= '@m' and not record.old[there[i]] and there[i] or nil
    end
  elseif record.deletes then
    for _, name in ipairs(record.order) do
      gone[#gone + 1] = not record.old[name] and name or nil
    end
  end
  for i = 1, #sets, 1000 do  -- Lua passes some thousand arguments to one call, not more
    redis.call('HSET', record.key, unpack(sets, i, math.min(i + 999, #sets)))
  end
  for i = 1, #gone, 1000 do
    redis.call('HDEL', record.key, unpack(gone, i, math.min(i + 999, #gone)))
  end
  local lasts = record.count > 0 and life or string.sub(head, 48)
  if type(redis.pcall('PEXPIRE', record.key, lasts)) == 'table' then
    if not record.meta then
      redis.call('DEL', record.key)  -- it is refused: nothing of ours lies here for ever
    end
    redis.call('PEXPIRE', record.key, lasts)  -- and that is what is answered
  end
  return stamp, sets[2]
end
