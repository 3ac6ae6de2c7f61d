"""What the formats for CI have in common: which sites they show, in which words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import TypeAlias

from dumpleak.compare.answers import Comparison
from dumpleak.compare.site_trends import SiteTrend
from dumpleak.compare.trend import Trend
from dumpleak.gate.gate import AnySite, Finding, Gate, Judged
from dumpleak.model.sites import Site
from dumpleak.model.units import format_bytes, format_count

JudgedAnswer: TypeAlias = Judged[Comparison] | Judged[Trend]

DEFAULT_TOP = 100  # findings; a failed build must not write a log of 56,000 lines
FINGERPRINT_BYTES = 16
_LINE = re.compile(r"(.+)\((\d+)\)")


@dataclass(frozen=True)
class Findings:
    """The sites that grew, worst first.

    Attributes:
        shown: As many as are shown: those that fail the gate first.
        left_out: How many more there are.
    """

    shown: list[Finding]
    left_out: int


def findings(judged: JudgedAnswer, top: int | None) -> Findings:
    """Sites that grew; those that fail the gate first, suppressed ones last."""
    result = judged.gate or Gate().judge(judged.answer)
    ranked = sorted(result.findings, key=lambda f: (not f.failed, bool(f.suppressed)))
    limit = DEFAULT_TOP if top is None else top
    return Findings(ranked[:limit], max(len(ranked) - limit, 0))


def told(site: AnySite, members: str) -> str:
    """One sentence on a site; `members` is what it has, "blocks"."""
    change = (
        f"{format_bytes(site.delta_bytes, True)} and {format_count(site.delta_count, True)} {members} "
        f"(from {format_bytes(site.base.bytes)} in {format_count(site.base.count)} to "
        f"{format_bytes(site.current.bytes)} in {format_count(site.current.count)})"
    )
    word = {"leaked": "leaked", "suspect": "is suspect"}.get(site.confidence, "grew")
    shape = f", {site.shape}" if isinstance(site, SiteTrend) else ""
    return f"{site.site.name} {word}: {change}{shape}"


def fingerprint(site: Site) -> str:
    """A number that a site keeps in later builds, as far as names go; hexadecimal.

    Offsets in functions move with every build and are left out, as are the frames before the one that names
    the site: they are an allocator's, and change with the system. Without symbols a frame is an offset in its
    module, and then the site is another one after a build.
    """
    parts = [site.kind, site.name if not site.frames else "", site.type or "", site.tag or ""]
    first = site.frames.index(site.name) if site.name in site.frames else 0
    parts += [re.sub(r"\+0x[0-9a-f]+$", "", f) if "!" in f else f for f in site.frames[first:]]
    text = "\n".join(parts).encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=FINGERPRINT_BYTES).hexdigest()


def source_line(site: Site) -> tuple[str, int] | None:
    """File and line of the frame that names a site; None where they are not known."""
    text = site.name if site.kind == "source" else ""
    if site.name in site.frames and site.lines:
        text = site.lines[site.frames.index(site.name)]
    match = _LINE.fullmatch(text)
    return (match[1], int(match[2])) if match and int(match[2]) else None


def xml_text(text: str) -> str:
    """Text without characters that XML 1.0 cannot hold, which are shown as escapes."""
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", _escaped, text)


def _escaped(match: re.Match[str]) -> str:
    return f"\\x{ord(match[0]):02x}"
