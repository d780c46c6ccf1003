"""Two addresses for measuring and testing: one says which worker answers, one takes its time."""

import os
import time

from flask import Blueprint, request, session
from flask.typing import ResponseReturnValue
from flask_login import current_user

from example_app.session import history, live, ui_language

probes = Blueprint("probes", __name__)


@probes.get("/whoami")
def whoami() -> ResponseReturnValue:
    """Answer what this worker knows of the visitor, as JSON."""
    return {
        "user": current_user.id if current_user.is_authenticated else None,
        "pid": os.getpid(),
        "level": live().level,
        "lang": ui_language(),
        "usage_count": session.get("usage_count", 0),
        "history_length": len(history()),
    }


@probes.get("/slow")
def slow() -> ResponseReturnValue:
    """Read the session, wait ``?seconds=``, write to it: a request that others overtake."""
    seen = session.get("bookmarked_count", 0)
    time.sleep(min(max(request.args.get("seconds", 1.0, type=float), 0.0), 10.0))
    session["bookmarked_count"] = seen + 1
    return {"bookmarked_count": seen + 1}
