"""The same outages for three ways to keep a session, and their effects on users."""
