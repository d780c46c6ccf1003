"""The load of ``python -m benchmarks.throughput`` where wrk is not installed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from .load_client import Load, main

VIEW, BODY = os.environ.get("LOAD_VIEW", ""), os.environ.get("LOAD_BODY", "")
"""The path, and what each body looks like, as a regular expression that is a pattern of Lua, too."""


class Throughput(Load):
    """One view of many users. Counts answers, and those that are not as they should be."""

    def path(self, number: int) -> str:
        return f"{VIEW}?theme-{number % 1000:03d}"

    def count(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.found["requests"] += 1
        self.found["wrong"] += status != 200 or re.fullmatch(BODY, body.decode()) is None


if __name__ == "__main__":
    main(Throughput)
