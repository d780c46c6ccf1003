"""An outage on purpose, of one process: tests whether each feature of the table gets what is promised.

It is not imported before an operator asks for it.
"""
