"""Deliberate mistakes in rules of the package, and the tests that must notice them: ``python -m tools.mutants``."""
