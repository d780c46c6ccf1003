"""Commands of a simulated server: the scripts of the package run as they are shipped, in Lua."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from lupa.lua51 import LuaError, LuaRuntime
from redis.exceptions import ReadOnlyError, ResponseError

from flask_langpont_session.stores.redis import commands
from flask_langpont_session.stores.redis.commands import READ, Script

from .sim_redis import Key, Node, Record, key_of

if TYPE_CHECKING:
    from .sim_connection import SimConnection

SCRIPTS = {script.sha: script.text for script in vars(commands).values() if isinstance(script, Script)}
"""Each server knows all of them."""

EDITS: tuple[tuple[bytes, bytes], ...] = ()
"""Texts in them, and what stands there instead: for what a script is without one of its parts."""


class Server:
    """One server while it serves one client.

    :param client: the connection that asks.
    """

    def __init__(self, node: Node, client: SimConnection | None) -> None:
        self.node = node
        self.client = client
        self._before: dict[Key, Record | None] = {}

    def serve(self, parts: Sequence[bytes]) -> Any:
        """The reply to one command. All that it changes is one change of each key."""
        try:
            return _run_script(self, parts) if parts[0].startswith(b"EVAL") else self.call(*parts)
        except ResponseError as error:
            return error
        except LuaError as error:
            return ResponseError(f"ERR {error} script: ...")
        finally:
            for key, before in self._before.items():
                self.node.has_changed(key, before, self.node.get(key))
            self._before.clear()

    def call(self, name: bytes, *arguments: Any) -> Any:
        """The reply to one command that is no script."""
        if name in _WRITES:
            if not self.node.is_primary:
                raise ReadOnlyError("READONLY You can't write against a read only replica.")
            if self.node.refuses_writes:
                raise ResponseError("NOREPLICAS Not enough good replicas to write.")
        return _COMMANDS[name](self, *map(_as_bytes, arguments))

    def read(self, name: bytes) -> Record | None:
        """The hash of this name."""
        key = key_of(name)
        self.node.tracking.reads(key, self.client)
        return self.node.get(key)

    def change(self, name: bytes, record: Record | None) -> None:
        """The hash of this name is another one from now on."""
        key = key_of(name)
        self._before.setdefault(key, self.node.own(key))
        self.node.store(key, record, self.client)

    def there(self, name: bytes) -> Record | None:
        """Return the record that a write finds."""
        return self.node.get(key_of(name))


OK = b"OK"
"""A status, which is a table in Lua: it is this very object."""


def _as_bytes(part: Any) -> bytes:
    return part if type(part) is bytes else str(part).encode()


def _time(server: Server) -> list[bytes]:
    seconds, ms = divmod(server.node.clock.now_ms, 1000)
    return [b"%d" % seconds, b"%d" % (ms * 1000)]


def _hgetall(server: Server, name: bytes) -> list[bytes]:
    record = server.read(name)
    return record.flat if record else []


def _hmget(server: Server, name: bytes, *fields: bytes) -> list[bytes | None]:
    record = server.read(name)
    return [record.fields.get(field) if record else None for field in fields]


def _hset(server: Server, name: bytes, *parts: bytes) -> int:
    old, new = server.there(name) or Record({}), dict(zip(parts[::2], parts[1::2], strict=True))
    server.change(name, Record({**old.fields, **new}, old.expires_at))
    return len(new.keys() - old.fields.keys())


def _hdel(server: Server, name: bytes, *fields: bytes) -> int:
    old = server.there(name)
    if old is None or not old.fields.keys() & set(fields):
        return 0
    left = {field: value for field, value in old.fields.items() if field not in fields}
    server.change(name, Record(left, old.expires_at) if left else None)
    return len(old.fields) - len(left)


def _del(server: Server, *names: bytes) -> int:
    there = [name for name in names if server.there(name)]
    for name in there:
        server.change(name, None)
    return len(there)


def _rename(server: Server, name: bytes, other: bytes) -> bytes:
    record = server.there(name)
    if record is None:
        raise ResponseError("ERR no such key")
    server.change(name, None)
    server.change(other, record)
    return OK


def _pexpire(server: Server, name: bytes, ms: bytes) -> int:
    record = server.there(name)
    if record is not None:
        ends = server.node.true_clock.now_ms + int(ms)
        server.change(name, Record(record.fields, ends) if int(ms) > 0 else None)
    return int(record is not None)


def _pttl(server: Server, name: bytes) -> int:
    record = server.read(name)
    if record is None:
        return -2
    return -1 if record.expires_at is None else record.expires_at - server.node.true_clock.now_ms


def _set(server: Server, name: bytes, value: bytes, *px: bytes) -> bytes:
    server.change(name, Record({b"": value}, server.node.true_clock.now_ms + int(px[1])))
    return OK


def _get(server: Server, name: bytes) -> bytes | None:
    record = server.read(name)
    return record.fields[b""] if record else None


_COMMANDS: dict[bytes, Callable[..., Any]] = {
    b"TIME": _time, b"HGETALL": _hgetall, b"HMGET": _hmget, b"HSET": _hset, b"HDEL": _hdel, b"DEL": _del,
    b"RENAME": _rename, b"PEXPIRE": _pexpire, b"PTTL": _pttl, b"SET": _set, b"GET": _get,
    b"EXISTS": lambda server, name: int(server.read(name) is not None),
}  # fmt: skip
_WRITES = frozenset({b"HSET", b"HDEL", b"DEL", b"RENAME", b"PEXPIRE", b"SET"})


# -- scripts -----------------------------------------------------------------------------------------------------------

_lua = LuaRuntime(encoding=None)
_server: Server


def _run_script(server: Server, parts: Sequence[bytes]) -> Any:
    global _server
    _server, keys = server, 3 + int(parts[2])
    function = _compiled(SCRIPTS.get(parts[1], parts[1]), EDITS)
    return _as_reply(function(_lua.table_from(parts[3:keys]), _lua.table_from(parts[keys:])))


@lru_cache
def _compiled(text: bytes, edits: tuple[tuple[bytes, bytes], ...]) -> Any:
    for old, new in edits:
        text = text.replace(old, new)
    return _lua.execute(b"return function(KEYS, ARGV)\n" + text + b"\nend")


def _call(*arguments: Any) -> Any:
    try:
        return _in_lua(_server.call(*arguments))
    except ResponseError as error:
        raise type(error)(f"{error} script: ...") from None


def _pcall(*arguments: Any) -> Any:
    try:
        return _in_lua(_server.call(*arguments))
    except ResponseError as error:
        return _lua.table_from({b"err": str(error).encode()})


def _in_lua(reply: Any) -> Any:
    if reply is OK:
        return _lua.table_from({b"ok": OK})
    if type(reply) is list:
        return _lua.table_from([False if part is None else part for part in reply])
    return False if reply is None else reply


def _as_reply(found: Any) -> Any:
    if type(found) is bytes or type(found) is int or found is None:
        return found
    if isinstance(found, bool | float):
        return None if found is False else int(found)
    error, ok, *parts = _parts(found)
    if error:
        raise (ReadOnlyError if error.startswith(b"READONLY") else ResponseError)(error.decode())
    return OK if ok else [part if type(part) is bytes else _as_reply(part) for part in parts]


_parts = _lua.execute(b"""
return function(reply)
  local number = 0
  while reply[number + 1] ~= nil do
    number = number + 1
  end
  return reply.err or false, reply.ok or false, unpack(reply, 1, number)
end
""")
_lua.globals()[b"redis"] = _lua.table_from({b"call": _call, b"pcall": _pcall})


def changed_by(parts: Sequence[bytes]) -> str | None:
    """The session that a command is to change; None: it changes none."""
    return key_of(parts[3]).digest if parts[0] == b"EVALSHA" and parts[1] != READ.sha else None
