"""The tables of this package, one module per version of them, for an application that keeps its schema by Alembic.

``flask langpont init-db`` makes the tables and is all that most applications need. Where migrations rule the schema,
one revision of the application calls what belongs to a version of the package::

    from alembic import op

    from flask_langpont_session.migrations import v0001

    def upgrade():
        v0001.upgrade(op)

    def downgrade():
        v0001.downgrade(op)

So the tables come and go with the application's own, in its own chain of revisions; the package needs no Alembic. A
module that was released is never changed: what comes later is a ``v0002``. To keep ``alembic revision --autogenerate``
from dropping these tables, leave them out by ``include_name``, or hand it ``LangPontSession.metadata`` beside the
application's own; docs/databases.md has both.
"""

from __future__ import annotations

from pkgutil import iter_modules


def versions() -> list[str]:
    """Return the names of the modules here, in order: of every version of the tables."""
    return sorted(module.name for module in iter_modules(__path__))
