"""What a user's type checkers see of the package; see :mod:`.application`."""
