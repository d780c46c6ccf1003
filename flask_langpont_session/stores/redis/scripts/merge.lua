-- Brings what a host kept during an outage into one category, without undoing what was written since. guard.lua,
-- record.lua and kept.lua stand before this.
--   KEYS  the auth hash, the category's hash
--   ARGV  the head, then the record's life (see life_of), the version that the record has at least, as its sender's host
--         has seen it (16 digits), and for each operation, in the order in which they were
--         acknowledged:
--         'set' | 'del' | 'add' | 'wipe' | 'record', field, value or delta, mode, moment, has a base value (1/0), base value,
--         ids of writes whose outcome is unknown, when it was acknowledged
-- Moments are microseconds by this server's clock.
-- mode 'since': the value was made from the version that the moment is. It is applied unless the field was written
-- since; then only over the base value. 'time': it was made from nothing at that moment, and is applied unless the
-- field was written later; where that is not known, over the base value, which is older. 'absent': it was made without
-- knowing what is there: it is applied only where the field is
-- absent, and was not deleted lately. Of an addition, 'mode' is its id; what a record remembers of that id is not
-- added again. Its moment is when it was sent first, 0: never before. With a base value it is made only to what is there: this
-- server may yet be given back what it was made to.
-- 'record': the fields that follow are brought from the record of a former id; the value is its '@m'. Where there is no record
-- yet they are what it has from now on, and all that is known of them goes along. Else they are put where they are absent.
-- Returns {'merged', stamp, then for each operation 1: applied, 0: conflict, 2: too large, 3: an addition of which is
-- not known whether it was made before, or to what, 4: not a number} or {'dead'} | {'gone'} | {'late', server's clock (ms)}
-- | {'less'}: nothing was done, because the record is not what was seen, nor later.
local APPLIED, CONFLICT, LARGE, IN_DOUBT, NO_NUMBER = 1, 0, 2, 3, 4
local names = {}
for i = 4, #ARGV, 9 do
  if ARGV[i] == 'wipe' then
    names = nil
    break
  end
  names[#names + 1] = ARGV[i + 1]
end
local record = open_record(KEYS[2], names, 1, names and #names)
if record.refusal then
  return record.refusal
end
if record.stamp < ARGV[3] then
  return {'less'}
end
record.notes = true  -- of each field, when it was acknowledged

-- The lag of what was acknowledged at a moment (0: just now) and is put now.
local function lag_of(acknowledged)
  if acknowledged <= 0 then
    return NO_LAG
  end
  return string.format('%06x', math.max(0, math.min(16777215, math.floor((record.next - acknowledged) / 1000))))
end

-- Was the field written after a moment, by another write than these and this one? nil: that is not known.
-- by_time: acknowledged then or after it, else merged after it.
local horizon, horizon_lag = tonumber(record.horizon), tonumber(record.lag, 16) or 0  -- without what is wiped here
local horizon_author = record.author
local counted = record.additions  -- without what is added here: that is not in doubt, and a request's last ids are one
local function written_since(name, moment, by_time, doubtful)
  local author, stamp, lag = written_lately(record, name)
  if stamp then
    local is_later = stamp > moment
    if by_time then
      is_later = stamp - lag * 1000 >= moment
    end
    return is_later and author ~= write_id and not string.find(doubtful, author, 1, true)
  end
  local is_known = horizon <= moment
  if by_time then
    local at = horizon - horizon_lag * 1000
    is_known = at < moment
    if horizon_author == WIPED then
      -- What the request of the wipe wrote behind it has the wipe's moment, and may come in another batch. A field that
      -- is there was left by the wipe, because it is not known when it was written: it stays as it was then.
      is_known = at + (record.old[name] and 1000 or 0) <= moment
    end
  end
  if is_known or string.find(doubtful, horizon_author, 1, true) then
    return false
  end
  return not record.old[name] and horizon_author == WIPED or nil
end

local function may_replace(name, mode, moment, base, doubtful)
  local now_there = record.old[name]
  local since = written_since(name, moment, mode ~= 'since', doubtful)
  if mode == 'absent' then
    local author = written_lately(record, name)
    local is_ours = string.find(doubtful, author or (now_there and horizon_author) or '?', 1, true)
    return is_ours or not (now_there or author or since)
  end
  local is_as_then = base and now_there == base and not (since and mode == 'time')
  return since == false or is_as_then or (since == nil and not now_there)
end

-- Does the record say that the field was written by one of these writes, or as late as that? Else an older value, which
-- another host has kept, would be put over what is there already, and was said again later. acknowledged: 0: just now,
-- by a write that is no later than what it finds.
local function is_said_as_late(name, doubtful, acknowledged)
  local author, stamp, lag = written_lately(record, name)
  if not author then
    author, stamp, lag = horizon_author, horizon, horizon_lag
  end
  local is_ours = author == write_id or string.find(doubtful, author, 1, true)
  return not record.meta or acknowledged == 0 or is_ours or stamp - lag * 1000 >= acknowledged
end

local changes, is_brought = false, false
local function apply(operation, name, value, mode, moment, base, doubtful, acknowledged)
  if operation == 'wipe' then
    for field in pairs(record.old) do
      local author = written_lately(record, field)
      -- What this wipe's own merge has put behind it stays, should that have been done before, and its reply been lost.
      local is_ours = author and (author == write_id or string.find(doubtful, author, 1, true))
      local since = written_since(field, moment, true, doubtful)
      -- A copy that was given back is as new as the record was when it was read, not as its fields were. It goes, with
      -- what of this journal was part of it: that waits still, behind the wipe.
      local is_of_copy = since == nil and (horizon_author == RESTORED or horizon_author == PART)
      if record.old[field] and not is_ours and (since == false or is_of_copy) then
        put(record, field, false, nil)
        counted = is_of_copy and '' or counted
      end
    end
    local latest = moment
    if record.author == WIPED then
      latest = math.max(moment, record.horizon - (tonumber(record.lag, 16) or 0) * 1000)
    end
    -- Rounded up: it is not later than it was, however often it is merged.
    record.horizon, record.lag, record.author = record.next, lag_of(latest - 999), WIPED
    changes = true
    return APPLIED
  end
  if operation == 'add' then
    if is_counted(counted, mode) then
      return APPLIED
    end
    local is_full = #counted == 20 * ADDITIONS
    if is_full and moment > 0 and tonumber(string.sub(counted, 8, 20)) * 1000 >= moment then
      return IN_DOUBT
    end
    if base and not record.old[name] then
      return IN_DOUBT
    end
    local total = sum(record.old[name] or '0', value)
    if not total then
      return NO_NUMBER
    end
    if not fits(record, name, total) then
      return LARGE
    end
    add(record, name, value, lag_of(acknowledged), not is_counted(record.additions, mode) and mode or nil)
    changes = true
    return APPLIED
  end
  if operation == 'record' then
    if not record.meta and describe(record, value) then
      record.bytes, record.count, is_brought, changes = 0, 0, true, true
    end
    return APPLIED
  end
  local new = operation == 'set' and value
  local is_there = (record.old[name] or false) == new
  if is_there and (is_brought or is_said_as_late(name, doubtful, acknowledged)) then
    return APPLIED
  end
  if not (is_brought or is_there) and not may_replace(name, mode, moment, base, doubtful) then
    return CONFLICT
  end
  if new and not fits(record, name, value) then
    return LARGE
  end
  record.notes = not is_brought  -- what is known of it was brought with the record
  put(record, name, new, lag_of(acknowledged))
  changes = true
  return APPLIED
end

local reply = {'merged', 0}
for i = 4, #ARGV, 9 do
  reply[#reply + 1] = apply(
    ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], tonumber(ARGV[i + 4]),
    ARGV[i + 5] == '1' and ARGV[i + 6], ARGV[i + 7], tonumber(ARGV[i + 8])
  )
end
local stamp = record.stamp
if changes then
  local life = life_of(ARGV[2])
  try_rights(record, life)
  stamp = save_record(record, life)
end
reply[2] = tonumber(stamp)
return reply
