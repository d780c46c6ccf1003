"""Flask sessions side by side: time, traffic, lost updates, memory. Run ``python -m benchmarks``."""
