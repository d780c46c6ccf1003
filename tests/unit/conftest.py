"""What many unit tests need."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

from tests.support.journal_fixtures import clock, journals_are_closed, path, patient_journal

__all__ = ["clock", "journals_are_closed", "path", "patient_journal"]

# How long an example takes says how busy the machine is. All else is as it was chosen, in CI by Hypothesis itself.
settings.register_profile("any machine", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")
