"""A finding: a question, its answer in one computed sentence, a figure or a table, and the data behind it."""

from dataclasses import dataclass, field

import polars as pl


@dataclass(frozen=True, eq=False)
class Finding:
    """One entry of the page.

    Args:
        name: Short and file-safe: the anchor on the page, and the name of the CSV.
        question: What a reader wants to know, as a question.
        answer: The answer, computed from the data: never written by hand.
        data: What the figure shows, for the CSV.
        figure: SVG with a text for readers who cannot see it; "" where the table says it all.
        shown: Rows of `data` that stand on the page as a table; 0 for none.
        method: How it was measured, in a few words; and what it cannot say.
    """

    name: str
    question: str
    answer: str
    data: pl.DataFrame
    figure: str = ""
    shown: int = 0
    method: str = ""


@dataclass(frozen=True, eq=False)
class Section:
    """Findings under one heading."""

    title: str
    findings: tuple[Finding, ...]
    lead: str = ""
    notes: tuple[str, ...] = field(default=())
