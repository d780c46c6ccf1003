"""Other packages' own test suites, run with this interface in place of Flask's."""
