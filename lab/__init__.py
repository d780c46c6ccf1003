"""The outage lab: the example application beside switches that break real servers. ``python -m lab``."""
