"""An outage on purpose, of one process: what each feature of the table gets meanwhile, and whether that was promised.

It is not imported before an operator asks for it."""
