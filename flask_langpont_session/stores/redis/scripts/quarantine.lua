-- Moves a record that is not ours (wrong type, foreign digest, broken metadata) out of the way for an operator to see.
--   KEYS  the record, where it goes (same slot)
--   ARGV  how long it is kept there (ms), own digest if only a foreign record is to be moved (else '')
-- A reply that was read by the wrong reader looks like a foreign record; the record itself is looked at here.
local own = redis.pcall('HMGET', KEYS[1], '@m')
if own.err and not string.find(own.err, '^WRONGTYPE') then
  return own
end
if ARGV[2] ~= '' and own[1] and string.sub(own[1], 1, 8) == string.sub(ARGV[2], 1, 8) then
  return 0
end
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('RENAME', KEYS[1], KEYS[2])
  redis.call('PEXPIRE', KEYS[2], ARGV[1])
  return 1
end
return 0
