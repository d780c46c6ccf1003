"""Three ways to keep a session, the same outages for each: what their users get."""
