-- Writes the changed fields of a session's categories, all of them or none. record.lua stands before this.
--   KEYS  the auth hash (only its liveness is read here), then one hash per category written
--   ARGV  guard, digest, fields allowed per category, bytes allowed per category, deadline, id of this write (7
--   characters),       life of a record without fields (ms), then for each category:
--         life (ms), wipe (1: begin from nothing), number of sets, field, value, …,
--         number of deletions, field, …, number of increments, field, delta, …
-- Returns {'written', stamp before (0: nothing was there), stamp, …} or {'dead'} | {'gone'} | {'late', server's clock
-- (ms)} | {'large', category number} | {'no number', category number}.
local digest, id = ARGV[2], ARGV[6]
local max_fields, max_bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
local refused = refusal(KEYS[1], digest, ARGV[1], tonumber(ARGV[5]))
if refused then
  return refused
end

local at = 8
local function take(count)
  local taken = {}
  for i = 1, count do
    taken[i] = ARGV[at]
    at = at + 1
  end
  return taken
end

-- Limits and numbers are checked before anything is written: a script cannot be taken back half way.
local records, lives, before = {}, {}, {}
for number = 1, #KEYS - 1 do
  local life, is_wipe = ARGV[at], ARGV[at + 1] == '1'
  at = at + 3
  local sets = take(2 * tonumber(ARGV[at - 1]))
  at = at + 1
  local dels = take(tonumber(ARGV[at - 1]))
  at = at + 1
  local incs = take(2 * tonumber(ARGV[at - 1]))
  local names = {}
  for i = 1, #sets, 2 do
    names[#names + 1] = sets[i]
  end
  for _, name in ipairs(dels) do
    names[#names + 1] = name
  end
  for i = 1, #incs, 2 do
    names[#names + 1] = incs[i]
  end
  local record = open_record(KEYS[number + 1], digest, names)
  if record.refusal then
    return record.refusal
  end
  before[number] = record.stamp
  if is_wipe then
    wipe(record)
  end
  for i = 1, #sets, 2 do
    put(record, sets[i], sets[i + 1], id, 0)
  end
  for _, name in ipairs(dels) do
    put(record, name, false, id, 0)
  end
  for i = 1, #incs, 2 do
    if not add(record, incs[i], incs[i + 1], id, 0) then
      return {'no number', number}
    end
  end
  for i = 1, math.min(#incs / 2, ADDITIONS) do
    note_addition(record, addition_id(id, i))
  end
  local is_growing = #sets + #incs > 0  -- deletions alone are always taken: the limits may have been lowered
  if is_growing and not fits(record, nil, nil, max_fields, max_bytes) then
    return {'large', number}
  end
  records[number], lives[number] = record, record.count > 0 and life or ARGV[7]
end

for number, record in ipairs(records) do
  try_rights(record, lives[number])
end
local reply = {'written'}
for number, record in ipairs(records) do
  reply[2 * number], reply[2 * number + 1] = before[number], save_record(record, lives[number], id)
end
return reply
