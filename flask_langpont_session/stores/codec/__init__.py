"""What the stores and the journal keep of session values: plain, or sealed where keys are set."""
