"""The places that hold records: Redis, the SQL database, this worker's memory and this host's journal."""
