"""The package as a user's type checkers see it; see :mod:`.application`."""
