"""The page: one HTML file that needs nothing else, with the data of each figure beside it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from symcere.analysis.finding import Finding, Section
from symcere.analysis.why import Reason
from symcere.data.items import Items
from symcere.evaluation.report import template


@dataclass(frozen=True, eq=False)
class AnalysisPage:
    """What the page shows.

    Args:
        title: What was analysed.
        command: The command line.
        about: Facts of the run, as label -> text.
        sections: Findings under their headings.
        reasons: Recommendations with their reasons.
        items: Titles.
        notes: What the page cannot promise, in sentences.
        seconds: What it took.
    """

    title: str
    command: str
    about: Mapping[str, str]
    sections: Sequence[Section]
    reasons: Sequence[Reason]
    items: Items
    notes: Sequence[str]
    seconds: float

    @property
    def findings(self) -> list[Finding]:
        """All findings in order."""
        return [finding for section in self.sections for finding in section.findings]

    @property
    def summary(self) -> dict[str, Any]:
        """Questions, answers and reasons as JSON values."""
        answers = [{"name": each.name, "question": each.question, "answer": each.answer} for each in self.findings]
        return {
            "findings": answers,
            "reasons": [asdict(reason) for reason in self.reasons],
            "notes": list(self.notes),
        }


def write_page(page: AnalysisPage, folder: Path) -> None:
    """Write index.html, a CSV a finding, and all answers and reasons as findings.json, into an existing folder."""
    for finding in page.findings:
        (folder / f"{finding.name}.csv").write_bytes(finding.data.write_csv().encode())
    (folder / "index.html").write_text(to_html(page), encoding="utf-8")
    (folder / "findings.json").write_text(json.dumps(page.summary, indent=2) + "\n", encoding="utf-8")


def to_html(page: AnalysisPage) -> str:
    """The page as HTML: no script, no content from elsewhere; all text escaped."""
    return template("analysis.html.jinja", escape=True, package="analysis").render(
        page=page, rows_of=_rows_of, share_of=_share_of, bar=_bar
    )


def _rows_of(finding: Finding) -> list[list[str]]:
    """The rows of a finding's table as text."""
    return [[_cell(value) for value in row] for row in finding.data.head(finding.shown).iter_rows()]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def _share_of(reason: Reason, part: str) -> str:
    """Share of a part in the sum of all parts' sizes."""
    size = sum(abs(value) for value in reason.parts.values()) or 1.0
    return f"{reason.parts[part] / size:.0%}"


def _bar(value: float, largest: float) -> str:
    """Width of a bar in per cent of its room."""
    return f"{100 * max(value, 0.0) / max(largest, 1e-12):.1f}"
