"""Helpers for tests of several kinds: clocks, programs, processes, values."""
