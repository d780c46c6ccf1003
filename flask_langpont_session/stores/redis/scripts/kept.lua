-- What a record says of its fields, for the scripts that bring what a host kept: this stands behind record.lua.
local WIPED, RESTORED, PART, BEGUN, TRIMMED = '*wiped*', '*copied', '*part**', '*begun*', '-------'
local NO_LAG, ADDITIONS = '000000', 6

-- The life (ms) that a record has when something was brought into it: as given ('0': that of its session's record), and
-- none shorter than it has. Who kept it does not know how long the session lives.
local function life_of(given)
  local left = redis.call('PTTL', given == '0' and KEYS[1] or KEYS[2])
  return math.max(tonumber(given), left, 1)
end

-- The id, stamp and lag of a field's last write; nil: it is not noted.
local function written_lately(record, name)
  local named = noted_as(name)
  local note = record.noted[name]
  if note then
    note = string.sub(note, #named + 1)
  else
    local _, to = string.find(record.lately, named, 1, true)
    if not to then
      return nil
    end
    note = string.sub(record.lately, to + 1, to + 29)
  end
  local stamp, lag = tonumber(string.sub(note, 8, 23)), tonumber(string.sub(note, 24), 16)
  if stamp and lag then
    return string.sub(note, 1, 7), stamp, lag
  end
end

-- Whether an addition of this id is among these.
local function is_counted(additions, addition)
  for i = 1, #additions, 20 do
    if string.sub(additions, i, i + 6) == addition then
      return true
    end
  end
  return false
end

