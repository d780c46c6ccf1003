"""A process whose journal lies on a small disk that is full to the last byte; it says what it could do all the same.

Started by ``test_full_disk.py`` as ``python -m tests.integration.full_disk FOLDER``, where the folder is such a disk.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path

from flask_langpont_session.policy.changes import Operation
from flask_langpont_session.policy.errors import StoreError
from flask_langpont_session.stores.host.journal import Journal, PendingWrite, journal_at


def _write(number: int) -> PendingWrite:
    return PendingWrite(
        digest=f"{number:043}",
        kind="u",
        category="translation",
        operation=Operation.SET,
        field="text",
        value=b"1" * 300,
    )


def _fill(journal: Journal, folder: Path) -> tuple[int, str]:
    """Changes until the journal takes no more, then whatever else fits on the disk."""
    kept = 0
    try:
        while True:
            journal.put([_write(kept)])
            kept += 1
    except StoreError as error:
        cause = error.cause
    with suppress(OSError), open(folder / "others", "wb", buffering=0) as others:
        while others.write(b"x" * 512):
            pass
    return kept, cause


def _replay(journal: Journal) -> int:
    """Mark, send and take out all entries, as the recovery does, and return how many there were."""
    done = 0
    while entries := journal.pending_writes(500):
        sent = journal.mark_sent(dict.fromkeys(entries, "write.1"), {})
        journal.forget_writes(sent)
        done += len(sent)
    return done


def _refused(journal: Journal) -> bool:
    try:
        journal.put([_write(1)])
    except StoreError:
        return True
    return False


def main(folder: Path) -> None:
    """Write what happened to the standard output, as JSON."""
    journal = journal_at(folder / "journal.sqlite3")
    journal.open()
    journal.shrink()  # as a monitor does: from then on there is a reserve
    kept, cause = _fill(journal, folder)
    for number in range(200):
        journal.revocations.note(f"r{number:042}")
    revocations = len(journal.revocations.pending())
    refused = [_refused(journal)]
    replayed = _replay(journal)
    refused.append(_refused(journal))
    journal.shrink()
    refused.append(_refused(journal))
    found = {"kept": kept, "cause": cause, "revocations": revocations, "replayed": replayed, "refused": refused}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
