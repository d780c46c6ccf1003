"""Encryption at rest: what the stores and the journal keep of session values. Imported only where keys are set."""
