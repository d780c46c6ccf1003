-- Writes the changed fields of a session's categories, all of them or none. guard.lua, usual.lua and record.lua stand
-- before this.
--   KEYS  the auth hash, then one hash per category written
--   ARGV  the head, then for each category:
--         its form: wipe (1: begin from nothing), then with 6 hexadecimal digits each the numbers of deletions, increments
--         and sets, with 16 digits the version that the record has at least, as its sender has read it (zeros: none), then
--         the record's life (ms); then the fields that are set, deleted and added to, the values of the
--         sets, what is to be added by the increments
-- Returns, of one category as it is, of several as a list, 'written', the stamp before (16 digits; zeros: nothing was
-- there) and the record's '@m'; or {'dead'} | {'gone'} | {'late', server's clock (ms)} | {'large', category number} |
-- {'no number', category number} | {'less', category number}: the record is not what was read, nor later.

-- Limits and numbers are checked before anything is written: a script cannot be taken back half way.
local at, records = 2, {}
for number = 1, #KEYS - 1 do
  local form = ARGV[at]
  local sets = tonumber(sub(form, 14, 19), 16)
  local dels = at + 1 + sets  -- from here on the deletions are named, and so on
  local incs = dels + tonumber(sub(form, 2, 7), 16)
  local values = incs + tonumber(sub(form, 8, 13), 16)
  local deltas = values + sets
  local record = open_record(KEYS[number + 1], ARGV, at + 1, values - 1)
  if record.refusal then
    return record.refusal
  end
  if record.stamp < sub(form, 20, 35) then
    return {'less', number}
  end
  if sub(form, 1, 1) == '1' then
    record.notes, record.is_wiped = true, true
    record.bytes, record.count, record.old, record.lately = 0, 0, {}, ''
    record.horizon, record.lag, record.author = record.next, '000000', '*wiped*'
  end
  for i = at + 1, dels - 1 do
    put(record, ARGV[i], ARGV[i + values - at - 1], '000000')
  end
  for i = dels, incs - 1 do
    put(record, ARGV[i], false, '000000')
  end
  for i = incs, values - 1 do
    local nth = i - incs  -- each has an id of its own, see addition_id in records.py
    local addition = nth == 0 and write_id or nth < 6 and sub('ghijk', nth, nth) .. sub(write_id, 2) or nil
    if not add(record, ARGV[i], ARGV[i + deltas - incs], '000000', addition) then
      return {'no number', number}
    end
  end
  local is_growing = sets > 0 or values > incs  -- deletions alone are always taken: the limits may have been lowered
  if is_growing and not fits(record) then
    return {'large', number}
  end
  record.life = sub(form, 36)
  records[number], at = record, deltas + values - incs
end

for number = 1, #records do
  try_rights(records[number], records[number].life)
end
local reply = {}
for number, record in ipairs(records) do
  local _, meta = save_record(record, record.life)
  if sub(head, 20, 20) == '1' then
    redis.call('HMGET', record.key, '@m')  -- a server forgets at a change by which connections its key was read
  end
  reply[number] = 'written' .. record.stamp .. meta
end
return #reply == 1 and reply[1] or reply
