"""Values of the dimensions of metrics, and what is computed from metrics, as pages and templates have it."""

from __future__ import annotations

OPERATION_VALUES = ("read", "write", "delete", "touch", "regenerate", "verify", "other")
"""Values of the dimension Operation. ``read`` asks Redis; ``verify`` asks the database whether a session still lives;
``write`` saves to either, ``delete`` ends a session in either; ``touch`` notes in Redis that a session is in use;
``regenerate`` puts a session of a new id into the database, as a sign-in does."""

BACKEND_VALUES = ("replica", "local", "database", "default")
"""Values of the dimension Backend: what was used instead of the primary. ``local`` is this host's copies and
journal, ``default`` the default of the configuration or of the code."""

STORE_VALUES = ("primary", "replica", "database")
"""Values of the dimension Store."""

ERROR_RATE = "IF(operations > 0, 100 * errors / operations, 0)"
"""The metric ErrorRate in percent, by metric math over the sums of Errors and Operations: a share cannot be added
up over processes, so it is not published."""
