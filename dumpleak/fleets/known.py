"""Placeholder."""

from __future__ import annotations


class Known:
    """Placeholder."""
