-- Looks whether this server lost data behind a kept connection: a number that only grows, under a generation's name.
--   KEYS[1]  the canary
--   ARGV     the generation known ('' none), the number known, a new random generation
-- Missing, or smaller than it was: a new generation is written, which tells every other worker too.
-- Returns {server time in ms, generation, number}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = redis.pcall('HMGET', KEYS[1], 'generation', 'number')
if found.err and not string.find(found.err, '^WRONGTYPE') then
  return found  -- a right that is missing is no loss of data
elseif found.err then
  redis.call('DEL', KEYS[1])
  found = {}
end
local generation, number = found[1], tonumber(found[2] or 0) or 0
if not generation or (generation == ARGV[1] and number < tonumber(ARGV[2])) then
  generation, number = ARGV[3], 0
end
number = number + 1
redis.call('HSET', KEYS[1], 'generation', generation, 'number', number)
return {now, generation, number}
