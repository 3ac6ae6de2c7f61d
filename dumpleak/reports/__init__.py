"""Answers written: `document.py` says how to add one, or a format for all of them.

Here are the formats of other tools, a row each, that only some answers have.
"""

from __future__ import annotations

from dumpleak.reports.base import DiffReport, StatReport, TrendReport
from dumpleak.reports.ci.junit import JunitReport
from dumpleak.reports.ci.markdown import MarkdownReport
from dumpleak.reports.ci.sarif import SarifReport
from dumpleak.reports.profiles.collapsed import CollapsedReport
from dumpleak.reports.profiles.pprof import PprofReport
from dumpleak.reports.profiles.speedscope import SpeedscopeReport
from dumpleak.reports.profiles.umdh import UmdhDecimalReport, UmdhReport

STAT_REPORTS: dict[str, type[StatReport]] = {
    "pprof": PprofReport,
    "speedscope": SpeedscopeReport,
    "collapsed": CollapsedReport,
}
CI_FORMATS: dict[str, type[MarkdownReport | JunitReport | SarifReport]] = {
    "markdown": MarkdownReport,
    "junit": JunitReport,
    "sarif": SarifReport,
}
DIFF_REPORTS: dict[str, type[DiffReport]] = {
    **CI_FORMATS,
    "umdh": UmdhReport,
    "umdh-d": UmdhDecimalReport,
    "pprof": PprofReport,
    "speedscope": SpeedscopeReport,
    "collapsed": CollapsedReport,
}
TREND_REPORTS: dict[str, type[TrendReport]] = {**CI_FORMATS}

# Formats that other tools know for lists of blocks.
OF_BLOCKS = frozenset({"umdh", "umdh-d"})

__all__ = ["CI_FORMATS", "DIFF_REPORTS", "OF_BLOCKS", "STAT_REPORTS", "TREND_REPORTS"]
