"""Report formats: one file each, one row each in `REPORTS`."""

from __future__ import annotations

from dumpleak.reports.base import DiffReport, InfoReport, Report, StatReport, TrendReport
from dumpleak.reports.ci.junit import JunitReport
from dumpleak.reports.ci.markdown import MarkdownReport
from dumpleak.reports.ci.sarif import SarifReport
from dumpleak.reports.csv_report import CsvReport
from dumpleak.reports.json_report import JsonReport
from dumpleak.reports.page.report import HtmlReport
from dumpleak.reports.profiles.collapsed import CollapsedReport
from dumpleak.reports.profiles.pprof import PprofReport
from dumpleak.reports.profiles.speedscope import SpeedscopeReport
from dumpleak.reports.profiles.umdh import UmdhDecimalReport, UmdhReport
from dumpleak.reports.text.report import TextReport

# The first is the default.
REPORTS: dict[str, type[Report]] = {"text": TextReport, "json": JsonReport, "csv": CsvReport}

# What one command can also write.
INFO_REPORTS: dict[str, type[InfoReport]] = {**REPORTS, "html": HtmlReport}
STAT_REPORTS: dict[str, type[StatReport]] = {
    **REPORTS,
    "pprof": PprofReport,
    "speedscope": SpeedscopeReport,
    "collapsed": CollapsedReport,
}
DIFF_REPORTS: dict[str, type[DiffReport]] = {
    **REPORTS,
    "html": HtmlReport,
    "markdown": MarkdownReport,
    "junit": JunitReport,
    "sarif": SarifReport,
    "umdh": UmdhReport,
    "umdh-d": UmdhDecimalReport,
    "pprof": PprofReport,
    "speedscope": SpeedscopeReport,
    "collapsed": CollapsedReport,
}
TREND_REPORTS: dict[str, type[TrendReport]] = {
    **REPORTS,
    "html": HtmlReport,
    "markdown": MarkdownReport,
    "junit": JunitReport,
    "sarif": SarifReport,
}

# Formats that other tools know for lists of blocks.
OF_BLOCKS = frozenset({"umdh", "umdh-d"})

# Formats that show what `Snapshot.details` holds.
DETAILED_REPORTS = frozenset({"html"})

__all__ = [
    "DETAILED_REPORTS",
    "DIFF_REPORTS",
    "INFO_REPORTS",
    "OF_BLOCKS",
    "REPORTS",
    "STAT_REPORTS",
    "TREND_REPORTS",
    "DiffReport",
    "Report",
]
