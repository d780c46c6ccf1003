"""The commands of ``flask langpont``."""
