-- The record of a signed-in session, for the scripts that change it: this text stands before theirs. (That of a visitor is
-- a category's like any other.)
--
-- '@u' is the user id, if there is one. '@m' describes the record:
--   1–11   the first characters of the digest: whose record it is. That is 66 bits
--   12     'L': the session lives; 'D': it is dead, and this is its tombstone. Another layout than this would have other
--          letters there; a record of a category has a digit
--   then, of a tombstone, the version of the row (0: the database does not know of it); else
--   13–21  stamp: when the database was asked for what stands here
--   22–30  idle expiry, 31–39 absolute expiry, 40–48 creation
--   then   a space, version of the row, a space, and the user's epoch, both decimal
-- Moments are milliseconds by this server's clock, to the base 36. That is text, and hardly longer than their bytes
-- would be. All in all it has no more than 64 bytes, see hash-max-listpack-value. A user id may, and so stands apart.

-- What a description says of this session: 'L' or 'D', stamp, idle expiry, absolute expiry, version. Of a tombstone
-- only the first; nothing, if it is damaged or of another session.
local function described(meta)
  if not meta or string.sub(meta, 1, 11) ~= string.match(KEYS[1], '{(...........)') then
    return nil
  end
  if string.sub(meta, 12, 12) == 'D' then
    return 'D'
  end
  local moments = string.rep('(%w%w%w%w%w%w%w%w%w)', 4)
  local stamp, idle, absolute, _, version = string.match(meta, '^L' .. moments .. ' (%d+) %d+$', 12)
  if stamp then
    return 'L', tonumber(stamp, 36), tonumber(idle, 36), tonumber(absolute, 36), tonumber(version)
  end
end

-- The description with another idle expiry, to the base 36.
local function with_idle(meta, idle)
  return string.sub(meta, 1, 21) .. idle .. string.sub(meta, 31)
end
