"""Routes that give way to those of the application at the same path, whenever it adds them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from flask import Flask
from werkzeug.routing import Rule

log = logging.getLogger(__name__)


@contextmanager
def yielding(app: Flask) -> Iterator[None]:
    """The routes that are added meanwhile yield to all others."""
    rule_class = app.url_rule_class
    app.url_rule_class = _YieldingRule
    try:
        yield
    finally:
        app.url_rule_class = rule_class
    for rule in app.url_map.iter_rules():
        if isinstance(rule, _YieldingRule):
            rule.yielded()  # what is there already comes first, and ours would never be asked


class _YieldingRule(Rule):
    """Matches no method for which the application has a route at this path. Werkzeug would take the first of two."""

    _offered: set[str] | None = None
    _is_told = False

    @property
    def methods(self) -> set[str] | None:
        if self.map is None or self._offered is None:  # not in a map yet
            return self._offered
        return self._offered - self.yielded()

    @methods.setter
    def methods(self, offered: set[str] | None) -> None:
        self._offered = offered

    def yielded(self) -> set[str]:
        """What the application has routes for, at this path. If that is more than OPTIONS, the log says so, once."""
        offered = self._offered or set()
        routes = [rule for rule in self.map.iter_rules() if self._is_at(rule)]
        taken = offered & set().union(*(rule.methods or offered for rule in routes))
        if taken - {"OPTIONS"} and not self._is_told:
            self._is_told = True
            log.warning(
                "the application has a route of its own at %s, which is served in place of the session's health page; "
                "set LANGPONT_SESSION_HEALTH_URL_PREFIX to another path, or to None",
                self.rule,
            )
        return taken

    def _is_at(self, rule: Rule) -> bool:
        here, there = ((r.rule.rstrip("/"), r.subdomain, r.host) for r in (self, rule))
        return here == there and not (isinstance(rule, _YieldingRule) or rule.build_only or rule.websocket)
