-- Writes the changed fields of a session's categories, all of them or none. record.lua stands before this.
--   KEYS  the auth hash, then one hash per category written
--   ARGV  as record.lua says, then for each category:
--         life (ms), wipe (1: begin from nothing), numbers of sets, deletions and increments, the fields of all of
--         these, the values of the sets, what is to be added by the increments
-- Returns {'written', stamp before (16 digits; zeros: nothing was there), stamp, …} or {'dead'} | {'gone'} | {'late',
-- server's clock (ms)} | {'large', category number} | {'no number', category number}.

-- Limits and numbers are checked before anything is written: a script cannot be taken back half way.
local at, records = 8, {}
for number = 1, #KEYS - 1 do
  local dels = at + 5 + ARGV[at + 2]  -- from here on the deletions are named, and so on
  local incs = dels + ARGV[at + 3]
  local values = incs + ARGV[at + 4]
  local deltas = values + ARGV[at + 2]
  local record = open_record(KEYS[number + 1], ARGV, at + 5, values - 1)
  if record.refusal then
    return record.refusal
  end
  if ARGV[at + 1] == '1' then
    record.notes, record.is_wiped = true, true
    record.bytes, record.count, record.old, record.lately = 0, 0, {}, ''
    record.horizon, record.lag, record.author = record.next, '000000', '*wiped*'
  end
  for i = at + 5, dels - 1 do
    put(record, ARGV[i], ARGV[i + values - at - 5], '000000')
  end
  for i = dels, incs - 1 do
    put(record, ARGV[i], false, '000000')
  end
  for i = incs, values - 1 do
    local nth = i - incs  -- each has an id of its own, see addition_id in records.py
    local addition = nth == 0 and ARGV[6] or nth < 6 and string.sub('ghijk', nth, nth) .. string.sub(ARGV[6], 2) or nil
    if not add(record, ARGV[i], ARGV[i + deltas - incs], '000000', addition) then
      return {'no number', number}
    end
  end
  local is_growing = dels > at + 5 or values > incs  -- deletions alone are always taken: the limits may have been lowered
  if is_growing and not fits(record) then
    return {'large', number}
  end
  record.life = ARGV[at]
  records[number], at = record, deltas + ARGV[at + 4]
end

for number = 1, #records do
  try_rights(records[number], records[number].life)
end
local reply = {'written'}
for number = 1, #records do
  reply[2 * number], reply[2 * number + 1] = records[number].stamp, save_record(records[number], records[number].life)
end
return reply
