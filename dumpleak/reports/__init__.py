"""Report formats: one file each, one row each in `REPORTS`."""

from __future__ import annotations

from dumpleak.reports.base import Report
from dumpleak.reports.csv_report import CsvReport
from dumpleak.reports.json_report import JsonReport
from dumpleak.reports.text_report import TextReport

# The first is the default.
REPORTS: dict[str, type[Report]] = {"text": TextReport, "json": JsonReport, "csv": CsvReport}

__all__ = ["REPORTS", "Report"]
