"""Redis and Valkey: one server, a replica, Sentinel, clusters."""
