"""The settings, and the checks of them."""
