"""``flask langpont …``."""

from .commands import langpont as langpont
