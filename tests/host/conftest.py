"""Journals of one host, beside other processes."""

from __future__ import annotations

from tests.support.journal_fixtures import (
    clock,
    durable,
    forced,
    journal,
    journals_are_closed,
    path,
    patient_journal,
    sibling,
)

__all__ = ["clock", "durable", "forced", "journal", "journals_are_closed", "path", "patient_journal", "sibling"]
