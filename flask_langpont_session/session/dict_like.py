"""What a dict has, and a mapping has not: Flask's own session is a dict, and applications use it as one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from flask.sessions import SessionMixin


class DictLike(SessionMixin):
    """A session that is no dict, with what else applications do with a dict: copy it, and join it with another."""

    def copy(self) -> dict[str, Any]:
        """What is in it now, as a dict."""
        return dict(self)

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**self, **other}

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**other, **self}

    def __ior__(self, other: Mapping[str, Any]) -> Self:
        self.update(other)
        return self
