-- Leaves a tombstone for a dead session and removes its data. A tombstone is never deleted, it expires.
--   KEYS  the auth hash, then the other categories' hashes
--   ARGV  how it is described, see auth.lua; its life (ms)
-- What the session had goes first, whatever is refused after that: it is dead. Besides, a script that has written may
-- go on although the server is out of memory.
for i = 1, #KEYS do
  redis.call('DEL', KEYS[i])
end
redis.call('HSET', KEYS[1], '@m', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 'buried'
