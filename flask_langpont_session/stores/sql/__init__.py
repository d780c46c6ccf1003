"""The database, which decides who is signed in."""
