"""Flask sessions side by side: time, traffic, lost updates and memory. Run ``python -m benchmarks``."""
