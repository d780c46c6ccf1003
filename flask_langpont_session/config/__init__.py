"""The settings, and what is wrong with them."""
