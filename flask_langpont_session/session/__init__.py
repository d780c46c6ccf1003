"""The session as a view sees it, by Flask's contract."""
