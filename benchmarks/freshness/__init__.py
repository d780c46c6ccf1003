"""Measures how fresh a read of one process is after another process has had the answer to its write."""
