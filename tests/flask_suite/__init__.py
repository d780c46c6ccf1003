"""Flask's own session tests, run with this interface in place of Flask's."""
