"""Alerts about stores, by SNS. Imported only where a topic is set."""
