"""Journals of one host."""

from __future__ import annotations

from tests.support.journal_fixtures import durable, forced, journal, sibling

__all__ = ["durable", "forced", "journal", "sibling"]
