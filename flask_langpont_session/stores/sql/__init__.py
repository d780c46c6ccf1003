"""The database, which decides whether a session is signed in."""
