"""What the workers of one host share: the journal of an outage, in files."""
