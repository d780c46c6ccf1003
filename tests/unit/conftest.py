"""Fixtures that many unit tests need."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.support.journal_fixtures import clock, journals_are_closed, path, patient_journal

__all__ = ["clock", "journals_are_closed", "path", "patient_journal"]

# How long an example takes says how busy the machine is. Half as many as usual: these tests run at every edit, outside
# of CI with new examples each time, and what is known to be difficult has a row of its own. All else is as Hypothesis
# chooses it.
settings.register_profile(
    "any machine", settings.default, max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")
