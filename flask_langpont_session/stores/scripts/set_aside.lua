-- Moves a record that is not ours (wrong type, foreign digest, broken metadata) out of the way for an operator to see.
--   KEYS  the record, where it goes (same slot)
--   ARGV  how long it is kept there (ms)
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('RENAME', KEYS[1], KEYS[2])
  redis.call('PEXPIRE', KEYS[2], ARGV[1])
  return 1
end
return 0
