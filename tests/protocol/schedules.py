"""Schedules that random walks would meet too rarely: one for each load-bearing part of the protocol.

The full protocol passes every one; without that part it breaks the invariant that is named with it. ``w0`` and ``w1``
are the workers of host ``h0``, ``w2`` and ``w3`` those of ``h1``; ``A`` and ``B`` are the Redis servers, ``D`` is the
database. Settings are those of ``world.PROFILES``: by default VERIFY 10 s, GRACE 30 s, idle time 120 s.
"""

from __future__ import annotations

from typing import NamedTuple

from .walker import Schedule, parse


class Kept(NamedTuple):
    """A schedule that is kept.

    :param part: what it is about, see ``ablations.ABLATIONS``.
    :param breaks: the invariant that does not hold without that part.
    """

    part: str
    breaks: str
    schedule: Schedule

    def __str__(self) -> str:
        return f"{self.breaks}, {self.part}"


def _kept(part: str, breaks: str, text: str) -> Kept:
    return Kept(part, breaks, parse(text))


_GIVEN_BACK_TOO_OLD = """
    visit w0 s0
    tick all
    append w0 s0
    read w1 s0
    append w0 s0
    flush                       # at once: w1 has what was before
    read w1 s0
    tick w1                     # and is the first to give it back
"""

_EMPTIED_FOR_ONE_OF_TWO = """
    visit w0 s0
    tick all
    add w0 s0
    replicate all
    kill primary
    recover                 # the replica is read, and so w0 shares no copies
    add w0 s0
    start primary empty     # w1 sees it first, and has nothing to give back
    tick w1
    pass 1000
    tick w1
    pass 1000
    tick w1
    pass 1000
    tick w1
    pass 1000
    tick w1
"""
"""The host of two workers has an addition that waits, and one of them has all that the primary lost."""

_ANOTHER_ID_BY_A_WORKER_THAT_KNOWS_LESS = """
    sign_in w0 alice s0
    tick all
    append w0 s0
    {fault}
    kill primary            # its replica has not heard of that
    fail_over
    regenerate w1 s0        # which has never seen the list
    rest
    {check}
"""

_LOST_RIGHT_AFTER_A_MERGE = """
    {first} s0
    append w0 s0
    tick all
    replicate all
    cut h0 A
    pass 3000
    tick all
    {change} w0 s0          # it waits in the journal
    join_all
    pass 1000
    tick w0
    pass 1000
    b: tick w0
    {steps}                 # it is merged, and not read again yet
    flush
    finish b
    rest
    kept s0
"""

_CHANGED_WHILE_CUT_OFF = """
    visit w0 s0
    append w0 s0
    read {reader} s0
    tick all
    replicate all
    cut h0 A
    pass 3000
    tick all
    {change} w0 s0          # it waits in the journal
    join_all
    pass 1000
    tick {merger}
    pass 1000
    {end}                   # the primary has it, its replica has not
    kill primary
    fail_over
    join_all
    recover
    rest
    {check} s0
"""

_LOST_AND_GIVEN_BACK = """
    b: tick w0
    until_merged b s0
    step b
    read w2 s0              # another host has it from here on
    flush
    finish b                # it is read back, and is not there
    append w0 s0
    tick w2
    replicate all
"""

_READ_BACK_FAILS = "b: tick w0\nuntil_merged b s0\nstep b\ncut w0 A\nfinish b"

KEPT = (
    _kept(
        "what was merged is read back first",
        "I30",
        _CHANGED_WHILE_CUT_OFF.format(
            reader="w0", change="append", merger="w0", end=_READ_BACK_FAILS, check="shown w0"
        ),
    ),
    _kept(
        "what was merged and not read back is made from",
        "I30",
        _CHANGED_WHILE_CUT_OFF.format(
            reader="w0",
            change="append",
            merger="w0",
            end="b: tick w0\nuntil_merged b s0\nstep b\ngive_up b\nfinish b\nread w2 s0\ncut w0 A\nappend w0 s0",
            check="shown w0",
        ),
    ),
    _kept(
        "what was merged and lost since is made from",
        "I30",
        _CHANGED_WHILE_CUT_OFF.format(
            reader="w0",
            change="append",
            merger="w0",
            end=_LOST_AND_GIVEN_BACK,
            check="shown w0",
        ),
    ),
    _kept(
        "a copy tells its host whose it is",
        "I30",
        _CHANGED_WHILE_CUT_OFF.format(
            reader="w0",
            change="append",
            merger="w0",
            end="b: tick w0\nuntil_merged b s0\ngive_up b\nread w1 s0\nfinish b\nappend w0 s0",
            check="shown w0",
        ),
    ),
    _kept(
        "what another id does not get is counted",
        "I17",
        """
        visit w0 s0
        tick all
        write w0 s0
        freeze primary
        regenerate w2 s0
        regenerate w1 s0        # on the other host, which is the first to be through with it
        heal
        """,
    ),
    _kept(
        "what waits is later than what is given back",
        "I25",
        """
        visit w0 s0
        tick all
        write w1 s0
        cut h0 A
        regenerate w1 s0
        write w0 s0             # it waits behind what the former id has
        join_all
        tick w0
        pass 1000
        b: tick w0
        11 x step b             # that is brought
        fail_over               # to a server that has nothing of it: it is given back, as new as it was brought
        rest
        kept s0
        """,
    ),
    _kept(
        "a wipe that its host knows is given back",
        "I25",
        _CHANGED_WHILE_CUT_OFF.format(reader="w0", change="clear", merger="w1", end="tick w1\ncrash w1", check="kept"),
    ),
    _kept(
        "a wipe that its host knows is given back",
        "I20",
        _CHANGED_WHILE_CUT_OFF.format(
            reader="w1", change="regenerate", merger="w0", end="tick w0\ncrash w0", check="left"
        ),
    ),
    _kept(
        "newer copies of other workers are given back",
        "I30",
        _CHANGED_WHILE_CUT_OFF.format(
            reader="w0", change="append", merger="w1", end="tick w1\ncrash w1", check="shown w0"
        ),
    ),
    _kept(
        "what waits was made from its own merge",
        "I25",
        """
        sign_in w0 alice s0
        append w0 s0
        tick all
        cut h0 A
        pass 3000
        tick all
        append w0 s0            # it waits in the journal
        join_all
        pass 1000
        tick w0
        pass 1000
        b: tick w0
        11 x step b
        give_up b               # it is merged, and the answer is lost
        finish b
        append w0 s0            # made from it, and waits in its place
        cut h0 A
        regenerate w0 s0
        flush                   # what is brought to the new id is the host's copy, which names no writes
        join_all
        rest
        kept s0
        """,
    ),
    _kept(
        "each kind of sessions is given back",
        "I25",
        """
        sign_in w0 alice s0
        append w0 s0
        add w0 s0
        tick all
        cut w0 D
        pass 3000
        tick w0
        flush
        tick w0                 # it gives no user back, as the database does not answer
        add w0 s0
        b: tick w0
        7 x step b
        read w1 s0              # which brings the sign-in to Redis
        finish b
        pass 1000
        tick w0
        pass 1000
        tick all
        join_all
        rest
        kept s0
        """,
    ),
    _kept(
        "what was merged is there still",
        "I25",
        _LOST_RIGHT_AFTER_A_MERGE.format(first="visit w0", change="append", steps="11 x step b"),
    ),
    _kept(
        "what was merged is there still",
        "I25",
        _LOST_RIGHT_AFTER_A_MERGE.format(first="sign_in w0 alice", change="regenerate", steps="23 x step b"),
    ),
    _kept(
        "a wipe is later than what its host has seen",
        "I25",
        """
        visit w0 s0
        append w0 s0
        replicate all
        kill primary
        fail_over               # the clock of the new primary is behind
        read w0 s0
        clear w0 s0             # it waits in the journal
        rest
        kept s0
        """,
    ),
    _kept(
        "what is written behind a wipe is no older",
        "I25",
        """
        visit w0 s0
        tick all
        pass 5000
        b: tick w0
        fail_over               # the clock of the new primary is behind
        tick all
        regenerate w1 s0
        clear w0 s0             # it waits in the journal, by the clock of the former one
        write w1 s0             # and behind it this, by that of the new one
        rest
        kept s0
        """,
    ),
    _kept(
        "what other workers know goes along",
        "I30",
        _ANOTHER_ID_BY_A_WORKER_THAT_KNOWS_LESS.format(fault="", check="shown w1 s0"),
    ),
    _kept(
        "a former id is wiped when all of it was brought",
        "I25",
        """
        visit w0 s0
        tick all
        cut h0 A
        pass 3000
        tick all
        write w0 s0             # it waits in the journal
        regenerate w0 s0        # the former id is given up, and Redis has nothing of it
        join_all
        pass 1000
        tick w0
        pass 1000
        b: tick w0
        until_merged b s0
        give_up b               # the answer is lost
        finish b
        rest
        kept s0
        """,
    ),
    _kept(
        "what is lost on the way to another id is counted",
        "I25",
        _ANOTHER_ID_BY_A_WORKER_THAT_KNOWS_LESS.format(fault="crash w0", check="kept s0"),
    ),
    _kept(
        "the worker that merged something keeps it",
        "I30",
        _CHANGED_WHILE_CUT_OFF.format(reader="w0", change="append", merger="w0", end="tick w0", check="shown w0"),
    ),
    _kept(
        "what was wiped is not shown",
        "I25",
        """
        visit w0 s0
        append w0 s0
        tick all
        replicate all
        clear w0 s0
        kill primary            # its replica has not heard of that
        fail_over
        append w0 s0
        rest
        kept s0
        """,
    ),
    _kept(
        "a wipe of what was given back",
        "I20",
        """
        profile exact
        visit w0 s0
        append w0 s0
        tick all
        cut w0 A
        regenerate w0 s0        # what is there is still to be carried
        regenerate w1 s0        # and goes along; the id between is to be wiped
        b: tick w1
        12 x step b             # what was carried came there
        flush
        finish b
        rest                    # and it is given back
        left s0
        """,
    ),
    _kept(
        "the additions of a copy go along",
        "merge",
        """
        sign_in w0 alice s0
        add w0 s0
        tick all
        a: add w0 s0
        4 x step a
        give_up a               # its answer is lost: it waits in the journal
        finish a
        read w1 s0              # and w1 has seen it
        kill primary
        recover
        regenerate w1 s0
        start primary empty
        heal
        """,
    ),
    _kept(
        "lease",
        "I3",
        """
        sign_in w0 alice s0
        read w2 s0
        cut h0 A
        sign_out w0 s0          # the database knows it, Redis was not told
        pass 12000
        read w2 s0
        """,
    ),
    _kept(
        "connection identity",
        "I3",
        """
        profile no grace
        sign_in w0 alice s0
        read w2 s0
        replicate all
        sign_out w0 s0          # B does not hear of it
        kill primary
        fail_over
        database down
        pass 12000
        read w2 s0              # w2 believed A without a break; this is B
        """,
    ),
    _kept(
        "identity of each connection",
        "I3",
        """
        profile no grace
        sign_in w0 alice s0
        read w1 s0              # w1 has a connection to A
        fail_over               # A goes on and does not know it
        tick w1                 # a second connection leads to B
        crash w0                # what comes after it is connected to B only
        sign_out w0 s0
        database down
        pass 12000
        read w1 s0
        """,
    ),
    _kept(
        "role of the server",
        "I3",
        """
        profile no grace
        sign_in w0 alice s0
        stale_names h1
        fail_over
        demote
        read w2 s0              # for h1 the primary is A still, which follows B now
        pass 2000
        crash w0
        fresh w0 s0             # confirmed in B, and by replication in A
        replicate all
        sign_out w0 s0          # in B only
        database down
        pass 12000
        read w2 s0
        """,
    ),
    _kept(
        "canary",
        "I3",
        """
        profile no grace
        sign_in w0 alice s0
        read w2 s0
        save
        tick all
        sign_out w0 s0
        restore                 # behind all connections
        pass 6000
        tick all
        database down
        pass 6000
        read w2 s0
        """,
    ),
    _kept(
        "minimum version",
        "I4",
        """
        sign_in w0 root s0
        read w0 s0
        save
        withdraw w0 s0
        restore                 # the old record is within its lease
        read w0 s0
        """,
    ),
    _kept(
        "minimum versions that are forgotten",
        "I4",
        "\n".join(
            (
                "profile narrow",
                "sign_in w0 root s0",
                "read w0 s0",
                "save",
                "withdraw w0 s0",
                *("sign_in w0 alice s1", "sign_out w0 s1") * 11,  # there is room for ten minimum versions
                "restore",
                "read w0 s0",
            )
        ),
    ),
    _kept(
        "stamp before the read",
        "I3",
        """
        profile exact
        sign_in w0 alice s0
        cut h0 A
        a: read w2 s0
        3 x step a              # the database has said that it lives
        revoke_user w0 alice    # which it does no more, and Redis was not told
        finish a                # how old is what a pushes?
        pass 9900
        read w2 s0
        """,
    ),
    _kept(
        "journal",
        "I6",
        """
        sign_in w0 alice s0
        database down
        sign_out w0 s0
        heal
        """,
    ),
    _kept(
        "journal of log out everywhere",
        "I6",
        """
        sign_in w2 alice s0
        database down
        revoke_user w0 alice    # w0 does not know the session
        heal
        """,
    ),
    _kept(
        "recovery",
        "I6",
        """
        sign_in w0 alice s0
        database down
        sign_out w0 s0
        heal
        """,
    ),
    _kept(
        "rows changed since an incident",
        "I6",
        """
        sign_in w0 alice s0
        read w2 s0
        replicate all
        sign_out w0 s0
        kill primary
        fail_over               # to a server that shows the session still
        heal
        """,
    ),
    _kept(
        "read repair",
        "I6",
        """
        sign_in w0 alice s0
        database down
        revoke w2 s0
        lose h1                 # only the tombstone tells of it now
        database up
        recover
        read w0 s0
        heal
        """,
    ),
    _kept(
        "dead absorbs",
        "I7",
        """
        sign_in w0 alice s0
        a: fresh w2 s0
        4 x step a              # the database has said that it lives
        database down
        sign_out w0 s0
        finish a                # its push comes after the tombstone
        """,
    ),
    _kept(
        "a push says which tombstone it met",
        "I6",
        """
        profile narrow
        sign_in w0 alice s0
        c: withdraw w3 s0
        3 x step c              # the database has said that the session lives
        step c
        renew w0 s0             # and it goes on under another id
        step c
        step c                  # the push met the tombstone of the old one; to end that is not answered
        pass 11000
        heal
        """,
    ),
    _kept(
        "tombstone instead of DEL",
        "S6",
        """
        sign_in w0 alice s0
        cut h0 D
        sign_out w0 s0          # w2 could learn of it from Redis only
        tick w0
        pass 45000
        tick w0
        """,
    ),
    _kept(
        "local tombstone",
        "I5",
        """
        sign_in w0 alice s0
        read w0 s0
        cut h0 D
        cut h0 A
        revoke w0 s0
        join_all                # neither store knows it yet
        read w0 s0
        """,
    ),
    _kept(
        "guard of writes",
        "I7",
        """
        sign_in w0 alice s0
        read w2 s0
        a: write w2 s0
        step a
        step a                  # a slow request has seen that a user is signed in
        sign_out w0 s0
        finish a
        """,
    ),
    _kept(
        "compare-and-set in Redis",
        "I4",
        """
        sign_in w0 root s0
        a: fresh w2 s0
        3 x step a              # the database has said that this is an administrator
        withdraw w0 s0
        finish a
        """,
    ),
    _kept(
        "compare-and-set in the database",
        "I4",
        """
        sign_in w0 root s0
        read w2 s0
        a: note w2 s0
        4 x step a              # a has seen an administrator in the database, and will write the whole row
        withdraw w0 s0
        finish a
        """,
    ),
    _kept(
        "compare-and-set of a change of id",
        "I4",
        """
        sign_in w0 root s0
        read w2 s0
        a: renew w2 s0
        4 x step a              # a has seen an administrator in the database, and will write the whole row
        withdraw w0 s0
        finish a
        """,
    ),
    _kept(
        "revocations follow a change of id",
        "I6",
        """
        sign_in w0 alice s0
        cut h1 D
        cut h1 A
        revoke w2 s0            # only h1 knows it
        renew w0 s0
        heal
        """,
    ),
    _kept(
        "log out everywhere follows a change of id",
        "I6",
        """
        sign_in w2 alice s0
        sign_in w2 alice s1
        sign_in w2 alice s2
        renew w2 s2
        cut h0 D
        revoke_user w0 alice
        join_all
        a: tick w1              # brings it home, a few sessions at a time
        9 x step a
        renew w2 s2             # the last ones are to come; the new id is among the first
        heal
        """,
    ),
    _kept(
        "what a change of id leaves",
        "I6",
        """
        sign_in w0 alice s0
        renew w0 s0
        database down
        read_old w2 s0          # finds a tombstone
        heal
        """,
    ),
    _kept(
        "a revocation after a change of id",
        "I6",
        """
        profile always
        sign_in w1 root s0
        freeze primary
        a: sign_out w1 s0
        recover
        renew w1 s0             # the journal keeps the old id for Redis
        heal                    # a, whose time is over, leaves it to the journal to tell the database
        """,
    ),
    _kept(
        "a revocation before a change of id",
        "I6",
        """
        sign_in w1 root s1
        kill primary
        cut w1 D
        read w0 s1
        c: renew w0 s1          # has asked the journal
        sign_out w1 s1          # the journal is to tell both stores
        finish c                # the database has the end of the old id, and the session under another one
        heal
        """,
    ),
    _kept(
        "privileged roles",
        "I3",
        """
        sign_in w0 root s0
        read w2 s0
        cut h0 A
        sign_out w0 s0
        database down
        pass 32000
        read w2 s0
        """,
    ),
    _kept(
        "unverifiable is not dead",
        "I9",
        """
        sign_in w0 alice s0
        database down
        flush
        read w2 s0
        """,
    ),
    _kept(
        "fresh",
        "I2",
        """
        sign_in w0 root s0
        read w2 s0
        database down
        fresh w2 s0
        """,
    ),
    _kept(
        "durable is what the database has",
        "I1",
        """
        sign_in w0 alice s0
        database down
        sign_out w0 s0
        """,
    ),
    _kept(
        "epochs",
        "I1",
        """
        sign_in w0 alice s0
        sign_in w0 alice s1
        revoke_user w2 alice    # more sessions than a request goes through
        """,
    ),
    _kept(
        "journal of log out everywhere",
        "S11",
        """
        sign_in w0 alice s0
        sign_in w0 alice s1
        read w3 s0
        read w3 s1
        revoke_user w2 alice    # the rest is left to the monitor
        read w3 s0
        read w3 s1
        """,
    ),
    _kept(
        "revocations follow a change of id",
        "I1",
        """
        sign_in w0 alice s0
        renew w0 s0
        renew w2 s0
        revoke_first w2 s0      # as it was called at first
        """,
    ),
    _kept(
        "rights do not wait",
        "I8",
        """
        sign_in w0 alice s0
        read w0 s0
        a: grant w0 s0
        step a
        step a
        database down
        finish a
        read w0 s0
        """,
    ),
    _kept(
        "an own question",
        "I2",
        """
        sign_in w0 alice s0
        cut h0 A
        pass 12000
        a: read w2 s0
        3 x step a              # the database has said that it lives
        sign_out w0 s0
        b: fresh w2 s0
        step b
        step b
        finish a
        finish b
        """,
    ),
    _kept(
        "the own digest",
        "I10",
        """
        sign_in w0 alice s0
        sign_in w0 root s1
        read w2 s0
        read w2 s1
        misplace s0
        read w2 s0
        """,
    ),
    _kept(
        "classes of errors",
        "I11",
        """
        sign_in w0 alice s0
        busy w0 3
        fresh w0 s0
        fresh w0 s0
        fresh w0 s0
        """,
    ),
    _kept(
        "budget",
        "I12",
        """
        sign_in w0 alice s0
        freeze primary
        freeze replica
        database hung
        sign_out w0 s0
        """,
    ),
    _kept(
        "what may fail",
        "I13",
        """
        sign_in w0 alice s0
        database down
        sign_out w0 s0
        """,
    ),
    _kept(
        "short digests",
        "I14",
        """
        sign_in w0 alice s0
        sign_out w0 s0
        """,
    ),
    _kept(
        "push of what Redis missed",
        "I6",
        """
        sign_in w0 root s0
        tick all
        full primary on
        withdraw w0 s0
        full primary off
        heal
        """,
    ),
    _kept(
        "what could not be read is not replaced",
        "I16",
        """
        sign_in w0 alice s0
        append w0 s0
        cut h1 A
        cut h1 B
        read w2 s0
        append w2 s0            # this host has never seen the list
        join_all
        recover
        """,
    ),
    _kept(
        "what was written since is not replaced",
        "I16",
        """
        sign_in w0 alice s0
        append w0 s0
        append w2 s0
        cut h0 A
        cut h0 B
        read w0 s0
        append w0 s0            # made from a list that is older than what comes to Redis next
        append w2 s0
        join_all
        recover
        """,
    ),
    _kept(
        "written since: the field, not its category",
        "I17",
        """
        sign_in w0 alice s0
        cut h0 A
        cut h0 B
        read w0 s0
        write w0 s0             # waits in the journal
        append w2 s0            # another key of the category
        join_all
        heal
        """,
    ),
    _kept(
        "one order",
        "I18",
        """
        sign_in w0 alice s0
        add w0 s0
        add w0 s0
        read w1 s0
        tick all
        cut w0 A
        cut w0 B
        read w0 s0
        renew w0 s0             # the counter waits in the journal, under the new id
        add w1 s0
        join_all
        heal
        """,
    ),
    _kept(
        "levels that keep nothing",
        "I19",
        """
        sign_in w0 alice s0
        read w0 s0
        database down
        tick w0                 # it is known to be away, and not only too slow for one request
        cut w0 A
        cut w0 B
        append w0 s0
        """,
    ),
    _kept(
        "the level that was told",
        "I19",
        """
        sign_in w0 alice s0
        append w0 s0
        database down
        cut w0 B
        pass 6000
        tick w0                 # only the primary is left
        fresh w0 s0
        a: append w0 s0
        step a
        step a                  # it has read the list, at level 0
        cut w0 A
        finish a                # at level 4: no store takes it
        """,
    ),
    _kept(
        "I31",
        "I20",
        """
        visit w0 s0
        append w0 s0
        cut h0 A
        cut h0 B
        append w0 s0
        set_clock h0 -10000
        clear w0 s0
        join_all
        heal
        """,
    ),
    _kept(
        "wipes are merged",
        "I20",
        """
        visit w0 s0
        append w0 s0
        cut h0 A
        cut h0 B
        clear w0 s0
        join_all
        heal
        """,
    ),
    _kept(
        "the version beside a wipe",
        "I16",
        """
        visit w0 s0
        append w0 s0
        cut w0 A
        cut w0 B
        clear w0 s0
        append w0 s0
        join_all
        a: add w1 s0            # the journal has the wipe
        tick w1                 # merged
        finish a                # Redis has the list, and is written
        cut w1 A
        cut w1 B
        append w1 s0            # w1 goes by its own copy
        join_all
        recover
        """,
    ),
    _kept(
        "a busy journal may hold something",
        "I18",
        """
        sign_in w0 alice s0
        add w0 s0
        add w0 s0
        read w1 s0
        append w0 s0
        tick all
        cut w1 A
        cut w1 B
        read w1 s0
        renew w1 s0             # what w0 has written since is still to be brought to the new id
        unread h0 9
        add w0 s0
        unread h0 0
        join_all
        heal
        """,
    ),
    _kept(
        "keys are looked for where they were",
        "I17",
        """
        sign_in w0 alice s0
        append_elsewhere w0 s0  # before the table was changed, or by a worker that has the former one
        append w2 s0
        append_elsewhere w1 s0
        append w2 s0
        heal
        """,
    ),
    _kept(
        "the later written one counts",
        "I17",
        """
        visit w0 s0
        blind_elsewhere w0 s0
        pass 1000
        blind w2 s0             # both categories have it
        finds_last w1 s0
        pass 1000
        blind_elsewhere w0 s0
        finds_last w2 s0
        """,
    ),
    _kept(
        "a former place does not always count",
        "I17",
        """
        visit w0 s0
        blind w2 s0
        pass 1000
        blind_elsewhere w0 s0
        pass 1000
        blind w2 s0
        finds_last w1 s0
        """,
    ),
    _kept(
        "what was lost is given back",
        "I25",
        """
        sign_in w0 alice s0
        append w0 s0
        tick all
        flush
        pass 6000
        tick all
        recover
        kept s0
        """,
    ),
    _kept(
        "copies in an outage",
        "I30",
        """
        sign_in w0 alice s0
        append w0 s0
        read w0 s0
        cut w0 A
        cut w0 B
        read w0 s0
        shown w0 s0
        """,
    ),
    _kept(
        "own writes in copies",
        "I30",
        """
        sign_in w0 alice s0
        append w0 s0
        read w0 s0
        append w0 s0
        cut w0 A
        cut w0 B
        read w0 s0
        shown w0 s0
        """,
    ),
    _kept(
        "later versions of siblings",
        "I30",
        """
        sign_in w0 alice s0
        append w0 s0
        read w1 s0
        append w0 s0
        cut h0 A
        cut h0 B
        read w1 s0              # w0 has not shared its copy yet
        unknown w1 s0
        """,
    ),
    _kept(
        "copies are as old as their confirmation",
        "I30",
        """
        sign_in w0 alice s0
        append w0 s0
        read w0 s0
        pass 50000
        cut w0 A
        cut w0 B
        read w0 s0
        shown w0 s0             # the primary said so 50 s ago
        pass 15000              # LOCAL_CACHE_TTL is 60 s
        unknown w0 s0
        """,
    ),
    _kept(
        "shared copies are as old as their confirmation",
        "I30",
        """
        sign_in w0 alice s0
        append w0 s0
        read w0 s0
        pass 50000
        cut h0 A
        cut h0 B
        read w0 s0
        read w1 s0
        tick w0                 # shares its copy
        shown w1 s0
        pass 15000
        unknown w1 s0
        """,
    ),
    _kept(
        "what began after a loss is a part",
        "I25",
        """
        visit w0 s0
        tick all
        write w0 s0
        tick all
        flush                   # behind all connections
        append w2 s0            # this host has never seen the session
        tick w0
        tick w2
        rest
        kept s0
        """,
    ),
    _kept(
        "newer copies stand",
        "I25",
        """
        visit w0 s0
        tick all
        replicate all
        append w0 s0
        append w0 s0
        kill primary
        fail_over               # to a server that has heard of neither
        append w0 s0
        rest
        kept s0
        """,
    ),
    _kept(
        "a record that began after a loss is a part",
        "I25",
        """
        visit w0 s0
        tick all
        append w0 s0
        append w0 s0
        kill primary
        start primary empty     # w0 meets another server, before any round of its monitor
        append w0 s0
        rest
        kept s0
        """,
    ),
    _kept(
        "a loss is looked for",
        "I25",
        """
        visit w0 s0
        tick all
        append w0 s0
        append w0 s0
        flush                   # behind all connections, and no round of a monitor follows
        append w0 s0
        rest
        kept s0
        """,
    ),
    _kept(
        "what was given back is as old as the copy",
        "I25",
        _GIVEN_BACK_TOO_OLD + "append w1 s0\nrest\nkept s0",
    ),
    _kept(
        "later versions than what was given back",
        "I32",
        """
        visit w1 s0             # meets Redis first, and will give back what it has, whatever Redis has
        append w1 s0
        tick w0
        append w0 s0            # the later version
        t: tick w1
        6 x step t              # it has looked at the stores
        flush                   # right before that
        finish t
        doubts w1 s0
        append w1 s0
        rest
        kept s0
        """,
    ),
    _kept("additions wait for what is given back", "I32", _EMPTIED_FOR_ONE_OF_TWO + "rest\nkept s0"),
    _kept("all workers of a host give back", "I32", _EMPTIED_FOR_ONE_OF_TWO + "rest\nkept s0"),
    _kept(
        "what no worker has any more is counted",
        "I25",
        _GIVEN_BACK_TOO_OLD + "crash w0\nappend w0 s0\nrest\nkept s0",
    ),
    _kept(
        "what was not given back is counted",
        "I25",
        """
        visit w0 s0
        tick all
        append w0 s0
        replicate all
        append w0 s0
        crash w0
        kill primary
        fail_over               # to a server that has not heard of the last one
        tick w1
        pass 1000
        tick w1
        rest
        read w1 s0
        kept s0
        """,
    ),
    _kept(
        "what was not given back is counted",
        "I25",
        """
        near
        sign_in w0 alice s0
        tick all
        append w0 s0
        flush
        tick w1                 # w0 may have it, and hangs
        read w1 s0
        read w1 s0              # what this one finds is no hit later
        tick w1
        read w1 s0
        crash w0
        tick w1
        read w1 s0
        kept s0
        """,
    ),
    _kept(
        "a loss is looked for before a merge",
        "I32",
        """
        visit w0 s0
        tick all
        add w0 s0
        tick all
        flush
        add w0 s0
        tick w1                 # has not noticed it, and merges what waits
        rest
        kept s0
        """,
    ),
    _kept(
        "what was seen is there",
        "I32",
        """
        visit w0 s0
        tick all
        add w0 s0
        add w0 s0
        a: add w0 s0
        step a
        step a
        flush                   # between what it has read and what it writes
        finish a
        rest
        kept s0
        """,
    ),
    _kept(
        "additions to nothing are in doubt",
        "I32",
        _EMPTIED_FOR_ONE_OF_TWO
        + """
        pass 11000              # w0 hangs
        tick w1
        tick w1
        rest
        kept s0
        """,
    ),
    _kept(
        "what could not be read waits",
        "I17",
        """
        visit w0 s0
        tick all
        append w0 s0
        read w1 s0
        cut w1 A
        cut w1 B
        append w1 s0
        unread h0 1             # the journal is busy when w0 asks, and free when it saves
        a: append w0 s0
        step a
        tick w0                 # nothing waits any more
        finish a
        heal
        """,
    ),
    _kept(
        "what a replica lacks is unknown",
        "I16",
        """
        visit w0 s0
        tick all
        append w0 s0
        pass 3000
        cut h1 A
        read w2 s0              # from the replica, which has not heard of the list yet
        append w2 s0
        heal
        """,
    ),
    _kept(
        "additions are counted once",
        "merge",
        """
        sign_in w0 alice s0
        tick all
        a: add w0 s0
        4 x step a              # Redis has it
        give_up a               # its answer is lost
        tick all
        heal
        """,
    ),
    _kept(
        "late commands do nothing",
        "I16",
        """
        sign_in w0 alice s0
        append w0 s0
        a: append w0 s0
        3 x step a
        give_up a               # on its way to Redis
        recover
        append w2 s0
        arrive 0
        """,
    ),
    _kept(
        "change ids of a host",
        "near",
        """
        near
        sign_in w0 alice s0
        read w1 s0
        tick w1
        read w1 s0
        hold w1                 # what the server says comes late
        write w0 s0             # by a worker of the same host
        read w1 s0
        """,
    ),
    _kept(
        "change id before the question",
        "near",
        """
        near
        visit w1 s0
        read w0 s0
        tick all
        a: read w0 s0
        step a                  # it is answered
        blind w1 s0
        hold h0
        finish a
        read w0 s0
        """,
    ),
    _kept(
        "silence",
        "near",
        """
        near
        sign_in w0 alice s0
        read w2 s0
        tick w2
        read w2 s0
        cut w2 A                # what the server says gets lost
        write w0 s0
        pass 2000
        read w2 s0
        """,
    ),
    _kept(
        "the end of what vouches",
        "near",
        """
        near
        sign_in w0 alice s0
        sign_in w0 root s1
        read w2 s0
        tick w2
        read w2 s0
        hang_up w2
        write w0 s0
        pass 2000
        tick w2
        tick w2                 # connects anew
        read w2 s1
        read w2 s0
        """,
    ),
    _kept(
        "the read behind an own write",
        "near",
        """
        near
        sign_in w0 alice s0
        sign_in w0 root s1
        read w0 s0
        tick w0
        read w0 s0
        blind w0 s0             # without it no connection is known to have read what is there now
        blind w2 s0
        pass 700
        read w0 s1              # and the server is known to answer
        pass 700
        read w0 s0
        """,
    ),
    _kept(
        "change ids around an own write",
        "near",
        """
        near
        sign_in w0 alice s0
        read w0 s0
        tick w0
        read w0 s0
        a: blind w0 s0
        step a
        step a                  # it is answered
        hold w0
        write w1 s0
        finish a
        read w0 s0
        """,
    ),
    _kept(
        "what was sent is not sent again",
        "merge",
        """
        near
        sign_in w0 alice s0
        read w0 s0
        tick w0
        read w0 s0
        a: add w0 s0
        step a
        step a                  # Redis has it
        give_up a               # its answer is lost
        tick all
        heal
        """,
    ),
    _kept(
        "a hit at level 0 only",
        "near",
        """
        near
        visit w0 s0
        read w0 s0
        tick w0
        read w0 s0
        cut w0 A
        visit w0 s1             # is told that Redis does not answer
        read w0 s0
        """,
    ),
    _kept(
        "the journal before a hit",
        "S11",
        """
        near
        sign_in w0 alice s0
        sign_in w0 root s1
        read w1 s0
        tick w1
        read w1 s0
        database down
        cut w0 A
        sign_out w0 s0          # neither store is told
        read w1 s1              # the server goes on vouching
        read w1 s0
        """,
    ),
    _kept(
        "lease of a hit",
        "I3",
        """
        near
        sign_in w0 alice s0
        sign_in w0 root s1
        read w2 s0
        tick w2
        cut h0 A
        sign_out w0 s0          # the database knows it, Redis was not told
        pass 8500
        read w2 s0              # within its lease
        pass 5500
        read w2 s1
        read w2 s0
        """,
    ),
    _kept(
        "touches that are due",
        "near",
        """
        near
        visit w0 s0
        visit w0 s1
        read w2 s0
        tick w2
        pass 21599500
        read w2 s0              # a quarter of the life of a visitor's data has not passed yet
        pass 900
        read w2 s1
        read w2 s0
        """,
    ),
    _kept(
        "S1",
        "I6",
        """
        sign_in w0 alice s0
        read w0 s0
        database down
        pass 40000
        read w0 s0              # moves the idle expiry in Redis from 120 to 160 s
        pass 90000
        database up
        read w2 s0
        """,
    ),
    _kept(
        "S2",
        "I6",
        """
        sign_in w0 alice s0
        pass 28000
        read w0 s0              # confirmed, and too early to move the expiry
        pass 9000
        read w0 s0              # within the lease
        """,
    ),
    _kept(
        "S3",
        "I6",
        """
        sign_in w0 alice s0
        read w2 s0
        database down
        pass 40000
        read w0 s0              # moves the idle expiry in Redis from 120 to 160 s
        tick w2
        database up
        pass 1000
        tick w2
        pass 1000
        tick w2                 # h1 brings the rows that changed to Redis
        pass 80000
        read w2 s0
        """,
    ),
    _kept(
        "S4",
        "I6",
        """
        sign_in w0 alice s0
        read w0 s0
        database down
        pass 40000
        read w0 s0              # moves the idle expiry in Redis from 120 to 160 s
        pass 90000
        database up
        cut h1 A
        read w2 s0
        """,
    ),
    _kept(
        "S4 of the recovery",
        "I6",
        """
        sign_in w0 alice s0
        read w0 s0
        database down
        pass 40000
        read w0 s0              # moves the idle expiry in Redis from 120 to 160 s
        tick w2
        pass 85000
        database up
        tick w2
        pass 1000
        tick w2
        pass 1000
        tick w2                 # h1 brings the rows that changed to Redis
        read w2 s0
        """,
    ),
    _kept(
        "S5",
        "I3",
        """
        profile no grace
        sign_in w0 alice s0
        read w0 s0
        replicate all
        sign_out w0 s0
        kill primary
        fail_over
        database down
        pass 12000
        read w2 s0              # its first look at Redis at all
        """,
    ),
    _kept(
        "S6",
        "S6",
        """
        profile long
        sign_in w0 alice s0
        database down
        sign_out w0 s0
        tick all
        pass 1800000
        tick all
        pass 1900000            # the first tombstone has run out
        tick all
        pass 45000
        tick all
        """,
    ),
    _kept(
        "S7",
        "I6",
        """
        sign_in w0 alice s0
        cut h0 D
        revoke_user w0 alice
        pass 2000
        sign_in w2 alice s1     # begins later
        join_all
        recover
        """,
    ),
    _kept(
        "S8",
        "S11",
        """
        sign_in w0 alice s0
        read w2 s0
        cut h0 A
        sign_out w0 s0          # dead in the database, alive in Redis
        revoke_user w2 alice
        read w3 s0
        """,
    ),
    _kept(
        "S9",
        "I3",
        """
        profile no grace
        sign_in w0 alice s0
        read w2 s0
        save
        tick all
        sign_out w0 s0
        database down
        restore
        pass 6000
        tick all                # w0 is the first to notice
        pass 6000
        read w2 s0
        """,
    ),
    _kept(
        "S10",
        "I3",
        """
        profile no grace
        sign_in w0 alice s0
        read w2 s0
        cut h0 A
        sign_out w0 s0
        pass 12000
        busy w2 1
        read w2 s0
        """,
    ),
    _kept(
        "an end behind a change of auth",
        "I13",
        """
        sign_in w0 alice s0
        read w1 s0
        a: note w1 s0
        6 x step a              # the database has the change
        sign_out w2 s0
        finish a                # Redis has a tombstone, and there is no data that could go elsewhere
        """,
    ),
    _kept(
        "S11",
        "S11",
        """
        sign_in w0 alice s0
        read w1 s0
        database down
        cut w0 A
        sign_out w0 s0          # neither store is told
        read w1 s0              # a worker of the same host
        """,
    ),
    _kept(
        "session limit",
        "I26",
        """
        profile limited
        sign_in w0 alice s0
        sign_in w1 alice s1
        """,
    ),
    _kept(
        "displaced sessions are made known",
        "I5",
        """
        profile limited
        sign_in w0 alice s0
        read w1 s0
        sign_in w1 alice s1     # ends the first one
        read w1 s0
        """,
    ),
    _kept(
        "a proof by confirmation only",
        "I27",
        """
        sign_in w0 alice s0
        pass 70000
        renew w1 s0
        secure w0 s0
        """,
    ),
    _kept(
        "a proof is noted",
        "I27",
        """
        sign_in w0 alice s0
        pass 70000
        secure w0 s0
        confirm w1 s0
        secure w0 s0
        """,
    ),
    _kept(
        "a proof goes along",
        "I27",
        """
        sign_in w0 alice s0
        pass 70000
        confirm w0 s0
        renew w1 s0
        secure w2 s0
        """,
    ),
    _kept(
        "shorter lives",
        "I28",
        """
        profile privileged
        sign_in w0 root s0
        """,
    ),
    _kept(
        "shorter idle times",
        "I28",
        """
        profile privileged
        sign_in w0 root s0
        pass 15000              # a quarter of what this one may be idle for
        read w1 s0
        """,
    ),
    _kept(
        "shorter idle times in Redis",
        "I28",
        """
        profile privileged
        sign_in w0 root s0
        tick all
        database down
        pass 15000
        read w0 s0              # its use is noted in Redis only
        """,
    ),
    _kept(
        "another id for a shorter life",
        "I28",
        """
        profile privileged
        sign_in w0 root s0
        read w2 s0
        a: grant w2 s0          # an administrator is one anyway, as this worker knows
        step a
        step a
        withdraw w0 s0
        pass 31000              # of another user's session the idle time is longer
        read w0 s0
        finish a
        """,
    ),
    _kept(
        "delivered revocations are told again",
        "I34",
        """
        sign_in w0 alice s0
        remember                # a standby that lags from here on
        sign_out w0 s0
        tick all
        crash w0                # only the journal of h0 knows it
        crash w1
        flush                   # and no tombstone does
        database down
        recover
        go_back
        heal
        """,
    ),
    _kept(
        "delivered revocations are told again",
        "I34",
        """
        sign_in w0 alice s0
        remember
        sign_out w0 s0
        tick all
        disk h0 tight           # it ends a session, so it has the room of the reserve
        flush                   # no tombstone knows it
        database down
        pass 6000
        tick all
        pass 6000
        tick all
        go_back
        database up
        heal
        """,
    ),
    _kept(
        "what a carry became has the room of its entry",
        "I6",
        """
        visit w2 s0
        add w2 s0
        kill primary
        sign_in w2 alice s0     # what the visitor had is to be carried
        disk h1 tight
        heal
        """,
    ),
    _kept(
        "a last look at delivered revocations",
        "I34",
        """
        profile long
        sign_in w0 alice s0
        remember
        sign_out w0 s0
        tick all
        crash w0
        crash w1
        go_back                 # so quickly that no worker takes it for an outage
        pass 3550000            # the tombstone lives for another moment
        tick all
        pass 100000
        heal
        """,
    ),
    _kept(
        "rights of both versions",
        "I4",
        """
        sign_in w0 root s0
        remember
        withdraw w0 s0
        read w0 s0
        go_back
        pass 12000
        read w0 s0
        """,
    ),
    _kept(
        "above the highest version",
        "I10",
        """
        sign_in w0 root s0
        remember
        note w0 s0
        withdraw w0 s0
        read w0 s0
        go_back
        pass 12000
        read w0 s0
        """,
    ),
    _kept(
        "a row that went back",
        "I4",
        """
        sign_in w0 root s0
        remember
        withdraw w0 s0
        read w0 s0
        go_back
        note w0 s0              # by a lease on the later version; the key is put into what the database has
        pass 12000
        read w0 s0
        """,
    ),
    _kept(
        "an epoch that was lost",
        "I9",
        """
        remember
        sign_in w0 alice s0
        revoke_user w0 alice
        tick all
        go_back
        pass 2000
        sign_in w0 alice s1
        read w0 s1
        """,
    ),
    _kept(
        "a proof that is yet to come",
        "I27",
        """
        sign_in w0 alice s0
        pass 63000
        read w0 s0
        set_clock database -86400000
        secure w0 s0            # a password that was entered a minute ago
        """,
    ),
    _kept(
        "the quickest answer tells the time",
        "I9",
        """
        profile exact
        sign_in w0 alice s0
        pass 11000
        a: read w0 s0
        2 x step a
        pass 250
        finish a                # the database may have said long ago what time it is
        b: revoke_user w0 alice
        give_up b               # of which it knows nothing
        finish b
        pass 50
        sign_in w1 alice s1     # begins later
        read w1 s1
        """,
    ),
    _kept(
        "a clock that was set",
        "I25",
        """
        sign_in w0 alice s0
        append w0 s0
        add w0 s0
        append w1 s0
        write w1 s0
        set_clock primary 86400000   # everything in it has run out, and its canary lies there
        append w1 s0
        rest
        kept s0
        """,
    ),
    _kept(
        "a change keeps its life",
        "I29",
        """
        sign_in w0 alice s0
        former h0
        heal
        """,
    ),
    _kept(
        "each entry apart",
        "I6",
        """
        sign_in w0 alice s0
        cut h0 A
        pass 6000
        tick all
        strange h0              # and what was written after it
        write w0 s0
        heal
        """,
    ),
    _kept(
        "revocations that the journal did not take",
        "I33",
        """
        sign_in w0 alice s0
        read w2 s0
        database down
        disk h0 full
        sign_out w0 s0
        heal
        """,
    ),
    _kept(
        "revocations that the journal did not take",
        "I33",
        """
        sign_in w0 alice s0
        read w2 s0
        database down
        disk h0 held            # it may take that later, or never
        sign_out w0 s0
        heal
        """,
    ),
    _kept(
        "the end of a session is waited for at last",
        "I1",
        """
        sign_in w0 alice s0
        database hung
        a: sign_out w0 s0
        pass 100                # Redis is slow to answer, and the database has what is left
        finish a
        """,
    ),
    _kept(
        "log out everywhere that the journal did not take",
        "I33",
        """
        sign_in w2 alice s0     # of which w0 knows nothing
        pass 2000
        database down
        disk h0 full
        revoke_user w0 alice
        heal
        """,
    ),
)
