"""What a worker keeps of the sessions it serves, and what it knows of those that are over."""
