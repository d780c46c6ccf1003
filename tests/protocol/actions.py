"""Actions and faults as lines of text: a schedule is a list of such lines, and any part of a schedule is one too.

A request with a name before it (``a: read w0 s1``) stops at every store and goes on by ``step a``, ``finish a`` or
``give_up a``; without one it runs to its end at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from flask_langpont_session.exceptions import GrantRefused
from flask_langpont_session.metrics.losses import Cause, Loss
from flask_langpont_session.policy import users as step_up
from flask_langpont_session.policy.categories import AUTH, AUTHENTICATED_AT
from flask_langpont_session.policy.changes import CategoryChange, Operation
from flask_langpont_session.policy.health import DATABASE, PRIMARY, READ, WRITE
from flask_langpont_session.policy.ids import SIGNED_IN, SessionId
from flask_langpont_session.policy.leases import INCIDENT_MARGIN_MS, begins_to_live_shorter
from flask_langpont_session.policy.levels import Kept
from flask_langpont_session.policy.loaded import Loaded, Verdict
from flask_langpont_session.policy.plans import Plan, Saved
from flask_langpont_session.policy.rows import RowState
from flask_langpont_session.policy.serializer import encode
from flask_langpont_session.recovery import monitor
from flask_langpont_session.request.scope import RequestScope
from flask_langpont_session.stores.host.journal import PendingWrite

from .invariants import LIST, as_list
from .sim_redis import Key, Node, is_live, is_tombstone
from .tasks import Command, Path, Task
from .world import Slot, Worker, World

ROLES = {"alice": "user", "root": "admin"}

SHORTEST_LIFE_MS = 40_000
"""Copies are kept for a minute in these worlds, and data for half an hour."""

MAX_AGE_SECONDS = 60
"""For so long a password that was entered counts."""

CARRIED = ("translation", "ui", "data")
"""Categories that are taken along to another id."""


FORMER = "former"
"""A category that only another release has."""


def do(world: World, line: str) -> None:
    """Let one thing happen, and check all promises.

    :raises Broken: one does not hold.
    """
    label, _, rest = line.rpartition(": ")
    name, *arguments = rest.split()
    world.promises.census[name] += 1
    if name in REQUESTS or name in ELSEWHERE:
        _begin(world, label, name, arguments)
    elif name == "tick":
        _tick(world, arguments[0], label)
    else:
        EVENTS[name](world, *arguments)
    for each in world.lines():
        each.arrive()
    if world.promises.broken:
        raise world.promises.broken[0]


def _begin(world: World, label: str, name: str, arguments: list[str]) -> None:
    if label in world.under_way:
        return
    worker = world.workers[arguments[0]]
    work = REQUESTS.get(name) or ELSEWHERE[name]
    began_ms = world.clock.now_ms

    def serve(task: Task) -> None:
        try:
            work(world, task, worker, *arguments[1:])
        except Exception as error:
            world.promises.raised(error)

    world.start(label, worker, serve, stepped=bool(label))
    if not label:
        world.promises.took(world.clock.now_ms - began_ms)


# -- requests ----------------------------------------------------------------------------------------------------------


def _look(
    world: World, task: Task, worker: Worker, sid: SessionId | None, scope: RequestScope, *, fresh: bool = False
) -> Loaded:
    """A request's first look at its session, checked."""
    if sid is None:
        return Loaded(Verdict.ANONYMOUS)
    before = world.promises.before(worker.name, worker.host.name, sid, scope)
    loaded = worker.repository.reads.load(sid, scope, world.settings.life, fresh=fresh)
    world.promises.loaded(task, worker.name, sid, before, loaded, scope, fresh)
    shown = loaded.of(AUTH).shown
    version = loaded.row.version if loaded.row else 0
    world.told.append(f"{loaded.verdict} {version} {shown.get('_user_id')!r} {shown.get('user_role')!r}")
    return loaded


def _told(saved: Saved) -> str:
    """Return how a save ended, without the moments of its row: real stores have times of their own."""
    version = saved.row.version if saved.row else None
    return f"stored {saved.stored}, durable {saved.durable}, ended {saved.ended}, version {version}"


def _on_line(worker: Worker, plan: Plan, scope: RequestScope) -> Saved | None:
    """Save a plain change, as the end of a request does it; None: the long way is gone, which is told what became of
    it."""
    sid = plan.target
    if sid is None or sid is not plan.origin or plan.ends or scope.to(sid.digest).level:
        return None
    plan.sent = worker.repository.plain_changes.write(sid, plan.changes, plan.loaded, plan.life, scope.to(sid.digest))
    if plan.sent is None or plan.sent.written is None:
        return None
    plan.note_kept(plan.changes, Kept.REDIS)
    return Saved(stored=True)


def _save(world: World, task: Task, worker: Worker, plan: Plan, scope: RequestScope) -> Saved | None:
    """Save, checked. None: it was refused."""
    could = scope.can(DATABASE, WRITE) and scope.can(DATABASE, READ)
    try:
        saved = _on_line(worker, plan, scope) or worker.repository.saves.save(plan, scope)
        world.told.append(_told(saved))
        return saved
    except GrantRefused:
        world.told.append("refused")
        digest = plan.origin.digest if plan.origin else None
        world.promises.refused(task, could, scope, digest)
        return None


def read(world: World, task: Task, worker: Worker, slot: str) -> None:
    """A request that only reads."""
    _look(world, task, worker, world.slots[slot].sid, worker.repository.begin())


def read_old(world: World, task: Task, worker: Worker, slot: str) -> None:
    """The same, with the id the browser had before."""
    _look(world, task, worker, world.slots[slot].old, worker.repository.begin())


def fresh(world: World, task: Task, worker: Worker, slot: str) -> None:
    """A request that asks the database, whatever is known."""
    _look(world, task, worker, world.slots[slot].sid, worker.repository.begin(), fresh=True)


def _payload(user: str) -> dict[str, bytes]:
    return {"_user_id": encode("_user_id", user), "user_role": encode("user_role", ROLES[user])}


def sign_in(world: World, task: Task, worker: Worker, user: str, slot: str) -> None:
    """The session gets a new id; the old one dies if a user was signed in under it."""
    browser = world.slots[slot]
    scope = worker.repository.begin()
    origin = browser.sid
    loaded = _look(world, task, worker, origin, scope)
    if not scope.can(DATABASE, WRITE):
        return
    world.tasks.pause("view")
    target = world.mint(SIGNED_IN)
    plan = Plan(
        origin,
        target,
        world.settings.life,
        scope.level,
        loaded=Loaded(Verdict.ANONYMOUS, now_ms=loaded.now_ms),
        changes={AUTH: CategoryChange(0, sets=_payload(user)), "ui": CategoryChange(0, sets={"theme": b'"dark"'})},
        grants=True,
        carries=CARRIED if origin and origin.kind != SIGNED_IN and scope.level else (),
    )
    task.notes["new"] = target.digest
    if origin is not None:
        world.promises.increments[target.digest] += world.promises.increments[origin.digest]
    if origin is not None and origin.kind == SIGNED_IN:
        world.promises.replaces(origin.digest)
    if _save(world, task, worker, plan, scope):
        browser.sids.append(target)
        world.promises.wrote(worker.name, target.digest, 1)
        if origin is not None and origin.kind == SIGNED_IN:
            world.promises.has_replaced(worker.name, worker.host.name, origin.digest)
        world.promises.has_displaced(worker.name, worker.host.name, target.digest)


def visit(world: World, task: Task, worker: Worker, slot: str) -> None:
    """A visitor without an id gets an anonymous one."""
    browser = world.slots[slot]
    if browser.sid is None:
        target = world.mint("a")
        scope = worker.repository.begin()
        changes = {"ui": CategoryChange(0, sets={"theme": b'"light"'})}
        if _save(world, task, worker, Plan(None, target, world.settings.life, scope.level, changes=changes), scope):
            browser.sids.append(target)


def sign_out(world: World, task: Task, worker: Worker, slot: str) -> None:
    """The session ends; the browser goes on sending its id, as a stolen cookie would be sent."""
    sid = world.slots[slot].sid
    if sid is None or sid.kind != SIGNED_IN:
        return
    scope = worker.repository.begin()
    loaded = _look(world, task, worker, sid, scope)
    if loaded.verdict is Verdict.DEAD:
        return
    world.tasks.pause("view")
    world.promises.revokes(sid.digest)
    world.promises.census[f"revocation at level {scope.level}"] += 1
    could = scope.to(sid.digest).can(PRIMARY, WRITE)
    saved = worker.repository.saves.save(
        Plan(sid, None, world.settings.life, scope.level, loaded=loaded, ends=True), scope
    )
    world.told.append(_told(saved))
    world.promises.has_revoked(worker.name, worker.host.name, sid.digest, saved.durable)
    world.promises.has_told_redis(task, sid.digest, could=could)


def revoke(world: World, task: Task, worker: Worker, slot: str) -> None:
    """An operator ends the session."""
    sid = world.slots[slot].sid
    if sid is not None and sid.kind == SIGNED_IN:
        _revoke(world, task, worker, sid)


def revoke_first(world: World, task: Task, worker: Worker, slot: str) -> None:
    """The same, under the first id that the browser was given."""
    sids = [sid for sid in world.slots[slot].sids if sid.kind == SIGNED_IN]
    if sids:
        _revoke(world, task, worker, sids[0])


def _revoke(world: World, task: Task, worker: Worker, sid: SessionId) -> None:
    scope = worker.repository.begin()
    world.promises.revokes(sid.digest)
    world.promises.census[f"revocation at level {scope.level}"] += 1
    could = scope.to(sid.digest).can(PRIMARY, WRITE)
    durable = worker.repository.revocations.revoke(sid.digest, scope)
    world.told.append(f"durable {durable}")
    world.promises.has_revoked(worker.name, worker.host.name, sid.digest, durable)
    world.promises.has_told_redis(task, sid.digest, could=could)


def revoke_user(world: World, task: Task, worker: Worker, user: str) -> None:
    """A user is logged out everywhere."""
    world.promises.revokes_user(user)
    task.notes["user"] = user
    until_ms = world.clock.now_ms
    scope = worker.repository.begin()
    world.promises.census[f"revocation of a user at level {scope.level}"] += 1
    revoked = worker.repository.revocations.revoke_user(user, scope)
    world.told.append(str(revoked))
    world.promises.has_revoked_user(worker.name, worker.host.name, user, until_ms, revoked.durable)


def _change_auth(world: World, task: Task, worker: Worker, slot: str, change: CategoryChange, *, grants: bool) -> None:
    sid = world.slots[slot].sid
    if sid is None or sid.kind != SIGNED_IN:
        return
    scope = worker.repository.begin()
    loaded = _look(world, task, worker, sid, scope)
    if loaded.verdict is not Verdict.VALID or (grants and not scope.can(DATABASE, WRITE)):
        return
    world.tasks.pause("view")
    task.notes["rights"] = grants
    plan = Plan(sid, sid, world.settings.life, scope.level, loaded=loaded, changes={AUTH: change}, grants=grants)
    before = loaded.row.version if loaded.row else 0
    if _save(world, task, worker, plan, scope) and grants:
        world.promises.has_committed(worker.host.name, sid.digest, before + 1)
        if not task.failures:
            world.promises.has_changed(worker.name, sid.digest, before + 1)


def grant(world: World, task: Task, worker: Worker, slot: str) -> None:
    """The user becomes an administrator. Where these live shorter, the session gets another id."""
    sid, rights = world.slots[slot].sid, {"user_role": b'"admin"'}
    known = None if sid is None else worker.memory.auth(sid.digest)
    before = {} if known is None else known.row.payload
    if begins_to_live_shorter(world.settings.life, before, rights):
        _rename(world, task, worker, slot, rights=rights)
    else:
        _change_auth(world, task, worker, slot, CategoryChange(0, sets=rights), grants=True)


def withdraw(world: World, task: Task, worker: Worker, slot: str) -> None:
    """The user is one no more."""
    _change_auth(world, task, worker, slot, CategoryChange(0, sets={"user_role": b'"user"'}), grants=True)


def note(world: World, task: Task, worker: Worker, slot: str) -> None:
    """An auth key that gives no rights."""
    value = b"%d" % world.new_value()
    _change_auth(world, task, worker, slot, CategoryChange(0, sets={"daily_limit": value}), grants=False)


def _change_data(
    world: World, task: Task, worker: Worker, slot: str, category: str, change: CategoryChange, *, looks: bool
) -> None:
    sid = world.slots[slot].sid
    if sid is None:
        return
    scope = worker.repository.begin()
    loaded = _look(world, task, worker, sid, scope) if looks else None
    world.tasks.pause("view")
    plan = Plan(sid, sid, world.settings.life, scope.level, loaded=loaded, changes={category: change})
    values = list(change.sets.values())
    saved = _save(world, task, worker, plan, scope)
    world.promises.has_written(values)
    is_kept = saved is not None and saved.stored and loaded is not None and not loaded.shadow
    if is_kept and category == "translation" and not worker.memory.ended.is_dead(sid.digest):
        world.promises.has_set(sid.digest, change)


def write(world: World, task: Task, worker: Worker, slot: str) -> None:
    """Data of a category that an outage must not lose."""
    change = CategoryChange(0, sets={"source_lang": b"%d" % world.new_value()})
    _change_data(world, task, worker, slot, "translation", change, looks=True)


def append(world: World, task: Task, worker: Worker, slot: str) -> None:
    """A number is put at the end of a list that an outage must not lose, as Jepsen's checkers do it."""
    _append(world, task, worker, slot, "translation", "ui")


def _append(world: World, task: Task, worker: Worker, slot: str, home: str, other: str) -> None:
    """The list is in one of two categories, and in `home` afterwards, as a session has it (``Changes.by_category``)."""
    sid = world.slots[slot].sid
    if sid is None:
        return
    scope = worker.repository.begin()
    loaded = _look(world, task, worker, sid, scope)
    digest = sid.digest
    is_unknown = loaded.is_unknown(worker.repository.table.feature_of(LIST), LIST)
    known = as_list(loaded.of(_place(loaded, LIST, "translation")).shown.get(LIST))
    number = world.new_value()
    world.tasks.pause("view")
    change = CategoryChange(0, sets={LIST: b"[%s]" % b",".join(b"%d" % n for n in (*known, number))})
    change.seen, change.unseen = (frozenset(), {LIST}) if is_unknown else ({LIST}, frozenset())
    changes = {home: change}
    if LIST in loaded.of(other).shown:
        changes[other] = CategoryChange(0, deletes={LIST}, seen={LIST})
    plan = Plan(sid, sid, world.settings.life, scope.level, loaded=loaded, changes=changes)
    lost = _lost_writes(world)
    saved = _save(world, task, worker, plan, scope)
    if saved is None or loaded.shadow or worker.memory.ended.is_dead(digest):
        return
    if plan.level >= 3 and saved.stored:
        world.promises.violate("I19", "data that is written while there is no store and no copy is kept")
    if plan.level < 3 and not saved.stored and _lost_writes(world) == lost:
        world.promises.violate("I19", "data that was read and written at a level that keeps it is not kept")
    if not saved.stored:
        return
    if not is_unknown:
        world.promises.has_appended(task, digest, known, number)


def _lost_writes(world: World) -> int:
    """Return how many writes were reported as lost, because a journal could not keep them."""
    return sum(number for (what, *_), number in world.recorder.losses().items() if what == Loss.WRITES_LOST)


def _place(loaded: Loaded, key: str, home: str) -> str:
    """Return the category in which a request finds a key."""
    at = (loaded.former or {}).get(key)
    return at.category if at and at.counts else home


def append_elsewhere(world: World, task: Task, worker: Worker, slot: str) -> None:
    """The same by a worker whose table has the list in another category."""
    _append(world, task, worker, slot, "ui", "translation")


def blind_elsewhere(world: World, task: Task, worker: Worker, slot: str) -> None:
    """Data, written without a look by a worker whose table has it in another category."""
    _write_blind(world, task, worker, slot, "data")


def finds_last(world: World, task: Task, worker: Worker, slot: str) -> None:
    """Check that a request sees the last blind write, whichever category it was written to."""
    sid = world.slots[slot].sid
    loaded = _look(world, task, worker, sid, worker.repository.begin())
    if sid and loaded.of(_place(loaded, "theme", "ui")).shown.get("theme") != world.promises.themes.get(sid.digest):
        world.promises.violate("I17", "a value is shown that is older than one in another category")


def clear(world: World, task: Task, worker: Worker, slot: str) -> None:
    """A visitor forgets everything."""
    sid = world.slots[slot].sid
    if sid is None or sid.kind == SIGNED_IN:
        return
    scope = worker.repository.begin()
    changes = {name: CategoryChange(0, wipe=True) for name in worker.repository.table.categories}
    world.promises.clears(sid.digest)
    saved = _save(world, task, worker, Plan(sid, sid, world.settings.life, scope.level, changes=changes), scope)
    if saved is not None and saved.stored:
        world.promises.has_cleared(task, sid.digest)


def blind(world: World, task: Task, worker: Worker, slot: str) -> None:
    """Data, written without a look at the session."""
    _write_blind(world, task, worker, slot, "ui")


def _write_blind(world: World, task: Task, worker: Worker, slot: str, category: str) -> None:
    sid, value = world.slots[slot].sid, b"%d" % world.new_value()
    _change_data(world, task, worker, slot, category, CategoryChange(0, sets={"theme": value}), looks=False)
    if sid is not None:
        world.promises.themes[sid.digest] = value


def add(world: World, task: Task, worker: Worker, slot: str) -> None:
    """A number is counted up."""
    sid = world.slots[slot].sid
    if sid is not None:
        world.promises.increments[sid.digest] += 1
        change = CategoryChange(0, increments={"usage_count": 1})
        _change_data(world, task, worker, slot, "translation", change, looks=True)


def renew(world: World, task: Task, worker: Worker, slot: str) -> None:
    """The session goes on under another id."""
    _rename(world, task, worker, slot)


def confirm(world: World, task: Task, worker: Worker, slot: str) -> None:
    """The user enters the password again; the session goes on under another id."""
    task.notes["confirms"] = True
    _rename(world, task, worker, slot, confirms=True)


def _rename(
    world: World,
    task: Task,
    worker: Worker,
    slot: str,
    *,
    confirms: bool = False,
    rights: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    browser = world.slots[slot]
    origin = browser.sid
    if origin is None or origin.kind != SIGNED_IN:
        return
    scope = worker.repository.begin()
    loaded = _look(world, task, worker, origin, scope)
    if loaded.verdict is not Verdict.VALID or not scope.can(DATABASE, WRITE):
        return
    world.tasks.pause("view")
    target = world.mint(SIGNED_IN)
    # The note of a proof is none of what a view sees.
    shown = {key: value for key, value in loaded.of(AUTH).shown.items() if key != AUTHENTICATED_AT}
    changes = {AUTH: CategoryChange(0, sets={**shown, **rights})}
    carries, known = _taken_along(loaded, scope, CARRIED)
    for name in CARRIED if not carries else ():
        if carried := loaded.of(name).shown:
            changes[name] = CategoryChange(0, sets=dict(carried))
    plan = Plan(
        origin,
        target,
        world.settings.life,
        scope.level,
        loaded=known,
        changes=changes,
        renames=loaded.row,
        grants=True,
        confirms=confirms,
        carries=carries,
    )
    task.notes["new"] = target.digest
    task.notes["rights"] = bool(rights)
    world.promises.increments[target.digest] += world.promises.increments[origin.digest]
    world.promises.carries(origin.digest, target.digest)
    world.promises.replaces(origin.digest)
    saved = _save(world, task, worker, plan, scope)
    if saved is not None and not saved.ended:
        browser.sids.append(target)
        world.promises.wrote(worker.name, target.digest, 1)
    if saved is not None:
        world.promises.census["ended meanwhile"] += saved.ended
        world.promises.has_replaced(worker.name, worker.host.name, origin.digest)


def _taken_along(loaded: Loaded, scope: RequestScope, names: tuple[str, ...]) -> tuple[tuple[str, ...], Loaded]:
    """Return the categories that the journal brings to another id, which this request may not know completely, and what
    is known under that id."""
    carries = names if scope.level or loaded.has_gaps else ()
    known = Loaded(Verdict.ANONYMOUS, now_ms=loaded.now_ms)
    known.keep_from(loaded, carries)
    return carries, known


def regenerate(world: World, task: Task, worker: Worker, slot: str) -> None:
    """The session goes on under another id, with what the request knows of it; a visitor's gives its id up."""
    browser = world.slots[slot]
    origin = browser.sid
    if origin is None:
        return
    scope, is_user = worker.repository.begin(), origin.kind == SIGNED_IN
    loaded = _look(world, task, worker, origin, scope)
    if loaded.shadow or (is_user and not (loaded.verdict is Verdict.VALID and scope.can(DATABASE, WRITE))):
        return
    world.tasks.pause("view")
    target, names = world.mint(origin.kind), CARRIED if is_user else (AUTH, *CARRIED)
    carries, known = _taken_along(loaded, scope, names)
    taken = [AUTH] * is_user + [name for name in names if name not in carries and loaded.of(name).shown]
    plan = Plan(
        origin,
        target,
        world.settings.life,
        scope.level,
        loaded=known,
        changes={name: CategoryChange(0, sets=dict(loaded.of(name).shown)) for name in taken},
        renames=loaded.row,
        grants=is_user,
        carries=carries,
    )
    task.notes["new"] = target.digest
    world.promises.increments[target.digest] += world.promises.increments[origin.digest]
    world.promises.carries(origin.digest, target.digest)
    if is_user:
        world.promises.replaces(origin.digest)
    saved = _save(world, task, worker, plan, scope)
    if saved is not None and saved.stored and not saved.ended:
        browser.sids.append(target)
        if not is_user:
            world.promises.leaves(origin.digest, target.digest)
    if saved is not None and is_user:
        world.promises.has_replaced(worker.name, worker.host.name, origin.digest)


def secure(world: World, task: Task, worker: Worker, slot: str) -> None:
    """A request for what needs a password that was entered not long ago."""
    sid = world.slots[slot].sid
    began_ms = world.clock.now_ms
    loaded = _look(world, task, worker, sid, worker.repository.begin(), fresh=True)
    if sid is not None and loaded.row is not None:
        granted = step_up.is_recent(loaded.row, MAX_AGE_SECONDS)
        world.told.append(f"granted {granted}")
        world.promises.is_granted(sid.digest, began_ms, MAX_AGE_SECONDS * 1000, granted=granted)


REQUESTS: dict[str, Callable[..., None]] = {
    request.__name__: request
    for request in (
        read, read_old, fresh, visit, sign_in, sign_out, revoke, revoke_first, revoke_user, grant, withdraw, note,
        write, append, clear, blind, add, renew, confirm, secure,
    )
}  # fmt: skip

ELSEWHERE: dict[str, Callable[..., None]] = {
    request.__name__: request for request in (append_elsewhere, blind_elsewhere, finds_last, regenerate)
}
"""Of kept schedules only: workers with different tables beside each other, and ids that visitors give up."""


# -- events ------------------------------------------------------------------------------------------------------------


def _tick(world: World, worker: str, label: str) -> None:
    if worker == "all":
        world.tick_all()
    elif label not in world.under_way:
        world.tick(world.workers[worker], label, stepped=bool(label))


def _pass(world: World, ms: int) -> None:
    world.clock.advance(ms)
    if ms >= SHORTEST_LIFE_MS:
        world.promises.is_calm = False  # what lay unused for so long has run out


def _until_merged(world: World, label: str, slot: str) -> None:
    """Let a task go on until it has changed the data of a session in Redis. The answer is under way then."""

    def there() -> list[Mapping[str, Any]]:
        records = [world.cluster.primary.own(Key("translation", sid.digest)) for sid in world.slots[slot].sids]
        return [dict(record.data) for record in records if record]

    before = there()
    while label in world.under_way and there() == before:
        world.resume(label, world.tasks.resume)


def _recover(world: World) -> None:
    """The monitors have time to find what works again."""
    for _ in range(4):
        world.clock.advance(1000)
        world.tick_all()


def _node(world: World, name: str) -> Node:
    return world.cluster.primary if name == "primary" else world.cluster.replica


def _start(world: World, name: str, data: str) -> None:
    node = _node(world, name)
    world.promises.census[f"{data} primary started"] += not node.alive and node is world.cluster.primary
    world.cluster.start(node, {"file": None, "old": node.snapshot, "empty": {}}[data])


def _fail_over(world: World) -> None:
    before = world.cluster.primary
    world.cluster.fail_over()
    world.promises.census["another primary"] += world.cluster.primary is not before


def _freeze(world: World, name: str) -> None:
    _node(world, name).frozen = _node(world, name).alive


def _thaw(world: World, name: str) -> None:
    _node(world, name).frozen = False


def _full(world: World, name: str, how: str) -> None:
    _node(world, name).refuses_writes = how == "on"


def _lose_data(world: World, data: str) -> None:
    node = world.cluster.primary
    noticeable = world.promises.loses(node, node.snapshot if data == "old" else {})
    losses = world.cluster.losses[node.name]
    if data == "old":
        world.cluster.restore(node)
    else:
        world.cluster.empty(node)
    if not noticeable:
        world.cluster.losses[node.name] = losses


def _replicate(world: World, count: str) -> None:
    node = world.cluster.replica
    if node.alive and not node.frozen and world.cluster.primary.alive:
        node.replicate(len(node.inbox) if count == "all" else int(count))


def _database(world: World, how: str) -> None:
    world.promises.census["database fails"] += how != "up"
    world.database_path = {"up": Path.CLEAR, "down": Path.BROKEN, "hung": Path.SILENT}[how]


def _cut(world: World, worker: str, server: str) -> None:
    world.cuts.add((worker, server))


def _busy(world: World, worker: str, count: str) -> None:
    world.workers[worker].busy = int(count)


def _unread(world: World, host: str, count: str) -> None:
    world.hosts[host].unread = int(count)


def _former(world: World, name: str) -> None:
    """Put a change into a journal whose category only another release of the host knows."""
    world.former.append(f"former-{len(world.former)}".ljust(43, "-"))
    _wait(world, name, world.former[-1], category=FORMER)


def _strange(world: World, name: str) -> None:
    """A change waits that nothing can handle: it is said to have been sent, and not under which id."""
    _wait(world, name, "strange".ljust(43, "-"), category="translation", doubts=" ")


def _wait(world: World, name: str, digest: str, **columns: Any) -> None:
    change = PendingWrite(
        digest=digest, kind="a", operation=Operation.SET, field="text", value=b"1", life_ms=9, **columns
    )
    world.hosts[name].journal.put([change])


def _disk(world: World, name: str, how: str) -> None:
    """A host's journal takes no more, or only into its reserve, or not in time, or again."""
    host = world.hosts[name]
    host.is_full, host.is_tight, host.is_held = how == "full", how == "tight", how == "held"


def _crash(world: World, name: str) -> None:
    worker = world.workers[name]
    world.promises.census["crash with a journal"] += not worker.host.journal.is_empty()
    world.crash(worker)


def _lose(world: World, name: str) -> None:
    host = world.hosts[name]
    world.promises.census["loss of a journal"] += not host.journal.is_empty()
    world.lose(host)


def _hold(world: World, name: str) -> None:
    """Messages of servers to a worker, or to those of a host, are late from now on."""
    for worker in world.workers.values():
        if worker.line and name in (worker.name, worker.host.name):
            worker.line.is_held = True


def _deliver(world: World, name: str) -> None:
    """Let invalidations arrive that were held back from a worker or a host."""
    for worker in world.workers.values():
        if worker.line and name in (worker.name, worker.host.name):
            worker.line.is_held = False


def _hang_up(world: World, name: str) -> None:
    """The server ends a worker's connection over which it says what has changed."""
    if line := world.workers[name].line:
        line.hang_up()


def _misplace(world: World, slot: str) -> None:
    """The record of another session lies under the key of this one, if both live."""
    sid, primary = world.slots[slot].sid, world.cluster.primary
    live = {key: record for key, record in primary.data.items() if key.category == AUTH and is_live(primary.own(key))}
    key = Key(AUTH, sid.digest) if sid else None
    foreign = [record for other, record in live.items() if other != key]
    if key in live and foreign:
        world.promises.forgets(key.digest)
        primary.misplace(key, foreign[-1])


def _rest(world: World) -> bool:
    """Let everything work again, and return whether all that waits is merged then."""
    world.restore_everything()
    for _ in range(60):
        world.clock.advance(1000)
        world.tick_all()
        _replicate(world, "all")
        if world.is_quiet:
            # A worker that still has a connection to a server that was replaced finds out at its next canary.
            world.clock.advance(round(monitor.INTERVAL * 1000))
            for _ in range(2):
                world.tick_all()
                _replicate(world, "all")
            return True
    world.promises.violate("I6", f"the world does not come to rest: {world.journals()}")
    return False


def _heal(world: World) -> None:
    """Let everything work again; then every worker must agree with the database, and nothing may be lost (I6)."""
    if not _rest(world):
        return
    _check_delivered(world)
    _check_revocations(world)
    _check_tombstones(world)
    _check_commits(world)
    _check_agreement(world, exact=False)
    world.clock.advance(world.settings.lease_terms.verify_ms + 2000)
    world.tick_all()
    _check_agreement(world, exact=True)
    _check_sums(world)
    _check_data(world)
    _check_former(world)


def _check_delivered(world: World) -> None:
    """The database has every revocation that a host delivered, whatever it has lost since (I34). If it went back
    without an outage and no request has met it, Redis has the tombstone: the database is asked before that expires."""
    primary = world.cluster.primary
    for host, view in world.promises.hosts.items():
        if any(_lives_on(world, each) and not is_tombstone(primary.own(Key(AUTH, each))) for each in view.ended):
            world.promises.violate("I34", f"the database has lost a revocation that {host} had delivered")


def _lives_on(world: World, digest: str) -> bool:
    """Return whether the database has not been told that a session ended. After it has gone back to older data, it
    is not told again of a session whose absolute lifetime is nearly used up."""
    row, is_revived = world.tables.row(digest), digest in world.tables.revived
    return not world.tables.is_ended(digest) and not (
        row is not None and is_revived and not row.lives_on(INCIDENT_MARGIN_MS)
    )


def _check_tombstones(world: World) -> None:
    """Check that a new primary has the tombstones of sessions that ended shortly before, without any request asking
    for them."""
    primary, replaced_at = world.cluster.primary, world.cluster.replaced_at
    for digest, changed_at in world.tables.updated_at.items():
        recent = replaced_at - INCIDENT_MARGIN_MS + 2000 <= changed_at <= replaced_at
        if recent and world.tables.is_ended(digest) and is_live(primary.own(Key(AUTH, digest))):
            world.promises.violate("I6", "a new primary still shows a session that ended before it became one")


def _check_commits(world: World) -> None:
    """Redis has every change of rights of which a request was told, unless it lost data since."""
    cluster = world.cluster
    for host in world.promises.hosts.values():
        for digest, version in host.committed.items() if cluster.is_whole else ():
            record = cluster.primary.own(Key(AUTH, digest))
            if record is not None and record.auth is not None and record.auth.is_live and record.auth.version < version:
                world.promises.violate("I6", "a change of rights did not come to Redis, which lost nothing")


def _check_agreement(world: World, *, exact: bool) -> None:
    """Exact: every worker shows every session as the database has it. Else nothing valid is lost."""
    workers = list(world.workers.values())
    signed_in = [sid for slot in world.slots.values() for sid in slot.sids if sid.kind == SIGNED_IN]
    for number, sid in enumerate(signed_in):
        for worker in workers if exact else [workers[number % len(workers)]]:
            _check_session(world, worker, sid, exact)


def _check_session(world: World, worker: Worker, sid: SessionId, exact: bool) -> None:
    seen: list[Loaded] = []
    world.start(
        "",
        worker,
        lambda task: seen.append(_look(world, task, worker, sid, worker.repository.begin())),
        stepped=False,
    )
    row = world.tables.row(sid.digest)
    assert row is not None or world.tables.has_gone_back
    [loaded] = seen
    if row is None or row.state is not RowState.VALID:
        if loaded.verdict is not Verdict.DEAD and exact:
            state = row.state if row else "lost"
            world.promises.violate("I6", f"{worker.name}: {loaded.verdict} for a session that is {state}")
    elif loaded.row is None:
        # Dead for ever to what knew of its end before the database went back.
        if not (loaded.verdict is Verdict.DEAD and sid.digest in world.tables.revived):
            world.promises.violate("I6", f"{worker.name}: {loaded.verdict} for a session that is valid")
    elif loaded.row.version != row.version and exact:
        world.promises.violate("I6", f"{worker.name} shows version {loaded.row.version} of {row.version}")


def _check_revocations(world: World) -> None:
    for host, view in world.promises.hosts.items():
        number = "I33" if world.hosts[host].is_full or world.hosts[host].is_held else "I6"
        for digest in view.revoked:
            if any(_lives_on(world, each) for each in world.tables.ids_of(digest)):
                world.promises.violate(number, f"the database was never told of a revocation that {host} accepted")
        for user, until_ms in view.users.items():
            for digest in world.tables.of_user(user):
                if world.tables.rows[digest].created_at <= until_ms and _lives_on(world, digest):
                    world.promises.violate(number, f"the database was never told that {host} logged a user out")


def _check_sums(world: World) -> None:
    for slot in world.slots.values():
        for sid in slot.sids:
            for (category, digest, _), record in world.cluster.primary.data.items():
                if digest == sid.digest and category == "translation":
                    total = int(record.data.get("usage_count", b"0"))
                    if total > world.promises.increments[digest]:
                        world.promises.violate("merge", "an addition was made twice")


def _kept(world: World, slot: str) -> None:
    """Redis has every entry, value and addition that was acknowledged, and nothing that was cleared, whatever it has
    lost (I25, I32), or the package has said that it has not."""
    sid, promises = world.slots[slot].sid, world.promises
    if sid is None:
        return
    record = world.cluster.primary.own(Key("translation", sid.digest))
    there: Mapping[str, Any] = record.data if record else {}
    shown, cleared = set(as_list(there.get(LIST))), promises.cleared.get(sid.digest, set())
    missing = promises.appended[sid.digest] - shown - cleared
    if shown & cleared:
        promises.violate("I25", "what was cleared is there again in a Redis that has gone back")
    last = promises.last.get(sid.digest)
    is_reported = any(cause == Cause.LOST_BY_REDIS for _, cause, _ in world.recorder.losses())
    if not is_reported and (missing or (last is not None and there.get("source_lang") != last)):
        promises.violate("I25", "what this host holds was not given back to a Redis that had lost it")
    lacks = promises.counted.get(sid.digest, 0) - int(there.get("usage_count", b"0"))
    if lacks > sum(world.recorder.losses().values()):
        promises.violate("I32", f"{lacks} additions were made to nothing, which Redis had lost, and none is reported")


def _left(world: World, slot: str) -> None:
    """Redis has no data under the ids that a visitor has given up (I20)."""
    for sid in world.slots[slot].sids[:-1]:
        for category in CARRIED if sid.kind != SIGNED_IN else ():
            record = world.cluster.primary.own(Key(category, sid.digest))
            if record is not None and record.data:
                world.promises.violate("I20", f"an id that was given up still has data of {category}")


def _list_of(world: World, name: str, slot: str) -> tuple[set[int], bool] | None:
    """Return the session's list as a worker shows it, and whether the list is complete. None: there is no session."""
    worker, sid, seen = world.workers[name], world.slots[slot].sid, list[Loaded]()
    if sid is None:
        return None

    def look(task: Task) -> None:
        seen.append(_look(world, task, worker, sid, worker.repository.begin()))

    world.start("", worker, look, stepped=False)
    [loaded] = seen
    feature = worker.repository.table.feature_of(LIST)
    return set(as_list(loaded.of("translation").shown.get(LIST))), not loaded.is_unknown(feature, LIST)


def _shown(world: World, name: str, slot: str) -> None:
    """The worker shows every entry that was acknowledged: in an outage from what it, or its host, holds (I30)."""
    found, sid = _list_of(world, name, slot), world.slots[slot].sid
    if found is not None and sid is not None and found != (world.promises.appended[sid.digest], True):
        world.promises.violate("I30", "a worker does not show what it holds")


def _unknown(world: World, name: str, slot: str) -> None:
    """The worker shows no entry, and says that it does not know of any: what it holds is too old, or is not the latest
    (I30)."""
    if _list_of(world, name, slot) not in (None, (set(), False)):
        world.promises.violate("I30", "a worker shows what may not be so any more")


def _doubts(world: World, name: str, slot: str) -> None:
    """The worker says that there may be more than it shows: another one of its host has yet to give that back (I32)."""
    found = _list_of(world, name, slot)
    if found is not None and found[1]:
        world.promises.violate("I32", "an older copy is taken for all there is")


def _check_data(world: World) -> None:
    """Check that what was acknowledged as lasting is there, or was reported as lost (I16 to I20)."""
    promises, primary = world.promises, world.cluster.primary
    reported = sum(world.recorder.losses().values())
    for slot in world.slots.values():
        for sid in slot.sids:
            record = primary.own(Key("translation", sid.digest))
            there = as_list(record.data.get(LIST)) if record else []
            cleared = promises.cleared.get(sid.digest, set())
            if cleared & set(there) and world.cluster.is_whole:
                promises.violate("I20", "what a visitor had cleared is there again")
            row = world.tables.row(sid.digest)
            is_lost = row is None and sid.kind == SIGNED_IN and world.tables.has_gone_back
            if sid is not slot.sid or is_lost or (row is not None and row.state is not RowState.VALID):
                continue
            if promises.is_calm and world.cluster.is_whole and sid.digest not in promises.cleared:
                _check_last(world, slot, record.data if record else {})
            missing = promises.appended.get(sid.digest, set()) - set(there) - cleared
            if missing and not reported and promises.is_calm and world.cluster.is_whole:
                promises.violate("I17", f"{len(missing)} acknowledged entries are not there, and none is reported")


def _check_former(world: World) -> None:
    """Check that a kept change of a category which this release does not know is in Redis: it can be merged, so it
    is not given up (I29)."""
    for digest in world.former:
        if Key(FORMER, digest) not in world.cluster.primary.data:
            world.promises.violate("I29", "a change of a category of another release was not merged")


def _check_last(world: World, slot: Slot, there: Mapping[str, Any]) -> None:
    """Check that a key which was set without being read has its last value, or was lost on the way to another id and
    counted, and a counter all that was added (I17, I18)."""
    digest, conflict = slot.sids[-1].digest, (Loss.MERGE_CONFLICTS, Cause.WRITTEN_SINCE, "translation")
    is_reported = len(slot.sids) > 1 and conflict in world.recorder.losses()
    last = world.promises.last.get(digest)
    if last is not None and there.get("source_lang") != last and not is_reported:
        world.promises.violate("I17", "another value than the last one is there, of a key that was not read")
    reported = (Cause.IN_DOUBT, Cause.SESSION_OVER)
    counted = sum(number for (_, cause, _), number in world.recorder.losses().items() if cause in reported)
    if int(there.get("usage_count", b"0")) + counted < world.promises.counted.get(digest, 0):
        world.promises.violate("I18", "an addition that was acknowledged is not there, and is not reported")


def _set_clock(world: World, name: str, ms: int) -> None:
    """Set the clock of a host, of a server of Redis, or of the database."""
    if name in world.hosts:
        world.hosts[name].set_by_ms += ms
    elif name == "database":
        world.tables.set_by_ms += ms
    else:
        world.cluster.set_clock(_node(world, name), ms)


EVENTS: dict[str, Callable[..., object]] = {
    "step": lambda world, label: world.resume(label, world.tasks.resume),
    "finish": lambda world, label: world.resume(label, world.tasks.finish),
    "give_up": lambda world, label: world.resume(label, lambda task: world.tasks.resume(task, Command.GIVE_UP)),
    "until_merged": _until_merged,
    "arrive": lambda world, number: world.tasks.arrive(int(number)),
    "recover": _recover,
    "pass": lambda world, ms: _pass(world, int(ms)),
    "kill": lambda world, name: world.cluster.kill(_node(world, name)),
    "start": _start,
    "freeze": _freeze,
    "thaw": _thaw,
    "full": _full,
    "fail_over": _fail_over,
    "stale_names": lambda world, host: world.cluster.stale_names([host]),
    "new_names": lambda world: world.cluster.names.clear(),
    "demote": lambda world: world.cluster.demote(),
    "flush": lambda world: _lose_data(world, "none"),
    "save": lambda world: world.cluster.save(world.cluster.primary),
    "restore": lambda world: _lose_data(world, "old"),
    "replicate": _replicate,
    "misplace": _misplace,
    "database": _database,
    "remember": lambda world: world.tables.remember(),
    "go_back": lambda world: world.tables.go_back(),
    "cut": _cut,
    "join_all": lambda world: world.cuts.clear(),
    "busy": _busy,
    "unread": _unread,
    "former": _former,
    "strange": _strange,
    "disk": _disk,
    "crash": _crash,
    "lose": _lose,
    "near": lambda world: world.keep_near(),
    "hold": _hold,
    "deliver": _deliver,
    "hang_up": _hang_up,
    "rest": _rest,
    "set_clock": lambda world, name, ms: _set_clock(world, name, int(ms)),
    "kept": _kept,
    "left": _left,
    "shown": _shown,
    "unknown": _unknown,
    "doubts": _doubts,
    "heal": _heal,
}
