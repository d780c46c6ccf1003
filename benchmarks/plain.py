"""The same package without its protocol: what the scripts, stamps, versions and overlays of the protocol cost.

Every answer is believed: no lease, no version, no liveness guard, no byte count, no local copies, no
journal. It exists only to be measured against.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Any

from flask_langpont_session.extension import state_of
from flask_langpont_session.policy.records import Loaded, Verdict
from flask_langpont_session.request.journal_writer import NOTHING
from flask_langpont_session.stores.redis.commands import READ, WRITE, Commands, Script

from .contestants import Ours

_READ = b"""
local reply, moved = {0}, 0
for i = 1, #KEYS do
  local life = tonumber(ARGV[i])
  if life > 0 then
    local left = redis.call('PTTL', KEYS[i])
    if left >= 0 and left < life * 0.75 then
      redis.call('PEXPIRE', KEYS[i], life)
      moved = life
    end
  end
  local hash = redis.call('HGETALL', KEYS[i])
  local is_described = #hash == 0
  for at = 1, #hash, 2 do
    is_described = is_described or hash[at] == '@m'
  end
  if not is_described then  -- the package takes a record without a description for none of its own
    hash[#hash + 1] = '@m'
    hash[#hash + 1] = string.match(KEYS[i], '{(........)') .. string.format('%016d', 1) .. string.rep('0', 22)
      .. '-------' .. string.rep('0', 11)
  end
  reply[i + 1] = hash
end
reply[#KEYS + 2], reply[#KEYS + 3] = moved, -1
return reply
"""

_WRITE = b"""
local reply, at, own = {}, 2, string.sub(ARGV[1], 1, 8)
local function take(count)
  at = at + count
  return unpack(ARGV, at - count, at - 1)
end
for number = 1, #KEYS - 1 do
  local key, form = KEYS[number + 1], take(1)
  local wipe, dels, incs, sets, life = string.match(form, '^(.)(......)(......)(......)................(.*)$')
  dels, incs, sets = tonumber(dels, 16), tonumber(incs, 16), tonumber(sets, 16)
  local names, gone, added, values, deltas = {take(sets)}, {take(dels)}, {take(incs)}, {take(sets)}, {take(incs)}
  if wipe == '1' then redis.call('DEL', key) end
  for i = #names, 1, -1 do
    table.insert(names, i + 1, values[i])
  end
  if #names > 0 then redis.call('HSET', key, unpack(names)) end
  if #gone > 0 then redis.call('HDEL', key, unpack(gone)) end
  for i = 1, #added do redis.call('HINCRBY', key, added[i], deltas[i]) end
  redis.call('PEXPIRE', key, life)
  reply[number] = 'written' .. string.format('%016d', 1) .. own .. string.format('%016d', 1) .. string.rep('0', 22)
    .. '-------' .. string.rep('0', 11)
end
return #reply == 1 and reply[1] or reply
"""


class _Script(Script):
    """In the place of a script of the package: its replies have the same form."""

    def __init__(self, text: bytes, stands_for: Script) -> None:
        self.text = text
        self.sha = sha1(text, usedforsecurity=False).hexdigest().encode()
        self.fits = stands_for.fits


class _PlainCommands(Commands):
    reading, writing = _Script(_READ, READ), _Script(_WRITE, WRITE)


class WithoutProtocol(Ours):
    """This package, believing all that is said."""

    name, label = "plain", "… the same with plain scripts: no protocol"
    near = False

    def set_up(self) -> None:
        super().set_up()
        state: Any = state_of(self.app)
        state.backend.primary.commands = _PlainCommands(state.settings.key_prefix)
        state.backend.memory.ended.is_dead = lambda digest: False
        reads = state.repository.reads

        def believe(digest: str, scope: Any, life: Any, reply: Any, **how: Any) -> Loaded:
            return Loaded.verified(Verdict.VALID, 0, reply.answer.auth.row, "primary")

        reads._verifier.verify = believe
        reads._journal_writer.overlay = lambda ref, scope=None: NOTHING
        reads._fallback.kept_locally = frozenset()
