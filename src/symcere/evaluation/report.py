"""The report of a run as Markdown and as one self-contained HTML page."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import jinja2

from symcere.data.interactions import Step
from symcere.data.items import Items
from symcere.evaluation.compare import Report
from symcere.evaluation.significance import PairedTest

COLUMNS = ("ndcg@10", "recall@10", "recall@20", "arp@10", "coverage@10")
"""The measures of the main table; all others stand in results.json."""

DECISIVE = "ndcg@10"
"""The measure by which systems are compared and models selected."""


@dataclass(frozen=True)
class Example:
    """Recommendations of one user: (item id, score, whether the item is held out for this user)."""

    user_id: str
    n_train: int
    items: tuple[tuple[str, float, bool], ...]


@dataclass(frozen=True)
class Page:
    """All that a report shows.

    Args:
        title: Name of the review file.
        command: The command that made it.
        split: Name of the split.
        seeds: Seeds of split and fit.
        steps: Counts after each step of ingestion.
        n_without_text: Reviews without text among those left.
        n_without_time: Reviews without a usable timestamp among those left.
        n_users: Users of the split.
        n_items: Items of the split.
        report: Test results.
        ours: The system that the others are compared with.
        seconds: System -> mean seconds to fit; imported runs have none.
        valid: System -> mean valid NDCG@10; imported runs have none.
        settings: System -> settings; imported runs have none.
        dials: System -> chosen popularity weight of each seed.
        skipped: System -> why it was left out.
        examples: Recommendations of a few users.
        encoder: Name of the text encoder.
        noise: Kind of noise in the train texts -> its rate.
        warnings: What results on this split cannot promise.
        items: Titles of the items.
    """

    title: str
    command: str
    split: str
    seeds: tuple[int, ...]
    steps: tuple[Step, ...]
    n_without_text: int
    n_without_time: int
    n_users: int
    n_items: int
    report: Report
    ours: str
    seconds: Mapping[str, float]
    valid: Mapping[str, float]
    settings: Mapping[str, Mapping[str, Any]]
    dials: Mapping[str, list[float]]
    skipped: Mapping[str, str]
    examples: tuple[Example, ...]
    encoder: str
    noise: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    items: Items = field(default_factory=Items)

    @property
    def best_baseline(self) -> str | None:
        """The other system with the best test value: the hardest to beat, chosen after the fact."""
        others = [system for system in self.report.systems if system != self.ours]
        return self.report.best(DECISIVE, among=others) if others else None

    @cached_property
    def tests(self) -> dict[str, tuple[PairedTest, float]]:
        """Other system -> (paired test of ours against it, p after Holm)."""
        return self.report.against(self.ours, DECISIVE)

    @property
    def test_against_best(self) -> tuple[PairedTest, float] | None:
        """The paired test against the best baseline."""
        return self.tests[self.best_baseline] if self.best_baseline else None

    @property
    def verdict(self) -> str:
        """One computed sentence: who is ahead, by how much, and whether it is more than chance."""
        test = self.test_against_best
        if test is None or self.best_baseline is None:
            return f"{self.ours} has {DECISIVE} {self.report.mean(self.ours, DECISIVE):.4f}; nothing was compared."
        base = self.report.mean(self.best_baseline, DECISIVE)
        own = self.report.mean(self.ours, DECISIVE)
        side = "ahead of" if own > base else "behind" if own < base else "level with"
        sure = "significant" if test[1] < 0.05 else "not significant"
        gain = f" ({own / base - 1:+z.1%})" if base else ""
        return (
            f"{self.ours} is {side} the best baseline, {self.best_baseline}, in {DECISIVE}: {own:.4f} against "
            f"{base:.4f}{gain}; 95 % interval of the difference {test[0].low:+z.4f} to {test[0].high:+z.4f}, paired "
            f"t p {_relation(test[0].p_t)}, after Holm over all baselines p {_relation(test[1])}: {sure}."
        )

    @property
    def rows(self) -> list[list[str]]:
        """The main table as text: system, measures, seconds."""
        return [
            [
                name,
                *(f"{self.report.mean(name, label):{_format(label)}}" for label in COLUMNS),
                f"{self.seconds[name]:.1f}" if name in self.seconds else "–",
            ]
            for name in self.report.systems
        ]

    @property
    def best_of(self) -> dict[str, float]:
        """Best value of each accuracy column, to be printed bold."""
        return {
            label: max(self.report.mean(name, label) for name in self.report.systems)
            for label in COLUMNS
            if not label.startswith("arp")
        }


def p_text(p: float) -> str:
    """A p-value as it is printed: three decimals, or a bound.

    Args:
        p: A p-value.

    Returns:
        Text.

    Example:
        >>> p_text(0.0123), p_text(1e-9)
        ('0.012', '< 0.001')
    """
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _relation(p: float) -> str:
    text = p_text(p)
    return text if text.startswith("<") else f"= {text}"


def to_markdown(page: Page) -> str:
    """The report as Markdown."""
    return template("report.md.jinja", escape=False).render(_context(page))


def to_html(page: Page) -> str:
    """The report as one HTML page: no script, no content from elsewhere; all text escaped."""
    return template("report.html.jinja", escape=True).render(_context(page))


def _format(label: str) -> str:
    return ".1f" if label.startswith("arp") else ".3f" if label.startswith("coverage") else ".4f"


def _context(page: Page) -> dict[str, Any]:
    top = max(page.report.mean(name, DECISIVE) for name in page.report.systems) or 1.0
    return {
        "page": page,
        "columns": COLUMNS,
        "decisive": DECISIVE,
        "p_text": p_text,
        "bars": [
            (name, page.report.mean(name, DECISIVE), page.report.mean(name, DECISIVE) / top)
            for name in page.report.systems
        ],
    }


@cache
def template(name: str, *, escape: bool, package: str = "evaluation") -> jinja2.Template:
    """A template beside the modules of a package; an unknown name in it is an error, `cell` makes text fit a cell."""
    folder = Path(__file__).parent.parent / package
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=escape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|").replace("\n", " ")[:80]
    return environment.get_template(name)
