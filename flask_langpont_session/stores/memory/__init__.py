"""The memory of one worker: the sessions that it serves, and those that it knows to be over."""
