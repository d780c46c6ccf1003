"""``flask langpont …``: the door that the entry point names. The commands are in ``ops/cli/``."""

from .ops.cli.commands import langpont as langpont
