"""Real servers on this machine, for the tests, the benchmarks and the outage lab."""
