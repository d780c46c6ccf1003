"""One site for tests and benchmarks: hosts of workers behind proxies, their application, and its browsers."""
