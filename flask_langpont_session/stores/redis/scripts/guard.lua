-- What every script that changes categories does first: this text stands before theirs.
--   KEYS  the auth hash (only its liveness is read here), then the categories' hashes
--   ARGV  a head, then what the script has
--
-- The head is one text, because each argument costs as much as some steps of a script:
--   1–11   the first characters of the digest: whose records these are
--   12     guard, what the session must be. 'L': alive, with an auth hash that lives; 'N': new, with no tombstone there;
--          'F': free, for kind a, or data that no other request can have an id for
--   13–19  id of this write
--   20     '1': the sender keeps what it writes near, and is to be told of the next change by another
--   21–27  bytes allowed per category, and 28–31 fields, both hexadecimal
--   32–47  the last moment at which this may still be done, see below
--   then   life of a record without fields (ms)
-- Moments are microseconds by this server's clock, with 16 digits: as text they are in the same order as their numbers,
-- and need not be made numbers of, which is a good part of the time that a write takes.
local sub, head = string.sub, ARGV[1]
local write_id = sub(head, 13, 19)
local clock = redis.call('TIME')
local micros = clock[2]
if #micros < 6 then
  micros = sub('00000' .. micros, -6)
end
local now = clock[1] .. micros

-- What a script has to answer instead of writing: the time for it is over, or the session is not what it must be.
-- A command that was stuck in a socket while its sender gave up must not undo what was written since.
if sub(head, 32, 47) < now then
  return {'late', tonumber(sub(now, 1, 13))}
end
if sub(head, 12, 12) ~= 'F' then
  local auth = redis.pcall('HMGET', KEYS[1], '@m')
  if auth.err and not string.find(auth.err, '^WRONGTYPE') then
    return auth
  end
  -- A foreign record or type under the auth key says nothing of ours, see auth.lua.
  local said = auth[1] and sub(auth[1], 1, 12) or ''
  if said ~= sub(head, 1, 12) then  -- with the guard 'L' so a live one begins
    if said == sub(head, 1, 11) .. 'D' then
      return {'dead'}
    end
    if sub(head, 12, 12) == 'L' then
      return {'gone'}
    end
  end
end

