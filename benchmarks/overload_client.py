"""The load of ``python -m benchmarks.overload`` where wrk is not installed: a quarter of the requests compute."""

from __future__ import annotations

from collections.abc import Mapping

from .load_client import Load, main


class Overload(Load):
    """Counts strangers, levels and statuses."""

    def path(self, number: int) -> str:
        return "/compute" if number % 4 == 0 else "/write" if number % 10 == 1 else "/read"

    def count(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        if status != 200:
            self.found["failed" if status >= 500 else "errors"] += 1
            return
        self.found["strangers"] += headers["x-user"] == "-"
        self.found["level" + headers["x-level"]] += 1


if __name__ == "__main__":
    main(Overload)
