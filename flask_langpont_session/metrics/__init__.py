"""Counting, and publishing the counts."""
