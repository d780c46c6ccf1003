"""Counts of what requests and stores did, kept in memory. What publishes them is in ``ops/exporters/``."""
