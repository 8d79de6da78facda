"""Popularity: what the dial does to who is shown what, and to accuracy."""

import numpy as np
import polars as pl

from symcere.analysis.finding import Finding
from symcere.analysis.learned import Learned
from symcere.data.dataset import Split
from symcere.evaluation.compare import measure_test
from symcere.evaluation.figures import OURS_COLOUR, drawing
from symcere.evaluation.measures import mean, standard_measures

DIALS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.3)
"""Positions of the dial that are shown beside the chosen one."""

LABELS = (
    "ndcg@10", "recall@10", "arp@10", "coverage@10", "gini@10", "head_recall@10", "mid_recall@10", "tail_recall@10",
    "pop_reo@10",
)  # fmt: skip
"""Measures that are shown."""


def exposure_finding(learned: Learned, split: Split) -> Finding:
    """Accuracy and exposure at dial 0, at the chosen dial, and between.

    Args:
        learned: The fit.
        split: Its split; test is measured here and decides nothing.

    Returns:
        The finding.
    """
    model, chosen = learned.model, learned.model.popularity_weight
    measures = [measure for measure in standard_measures() if measure.label in LABELS]
    rows = []
    for dial in sorted({*DIALS, chosen}):
        values = measure_test(model.with_popularity_weight(dial), split, measures)
        rows.append({"dial": dial, **{label: mean(values[label]) for label in LABELS}})
    # the two that the question is about stand first
    rows.sort(key=lambda row: (row["dial"] != 0, row["dial"] != chosen, row["dial"]))
    table = pl.DataFrame(rows)
    shown = len({0.0, chosen})
    none, here = rows[0], rows[shown - 1]
    question = "What does the popularity dial do to accuracy, and to who is shown?"
    if chosen == 0:
        answer = (
            f"Valid chose the dial at 0, so nothing is bought from popularity: NDCG@10 {none['ndcg@10']:.4f}, mean "
            f"popularity of what is shown {none['arp@10']:.1f}, {none['coverage@10']:.0%} of the items shown."
        )
    else:
        gain = here["ndcg@10"] / none["ndcg@10"] - 1 if none["ndcg@10"] else 0.0
        answer = (
            f"The dial that valid chose, {chosen:g}, changes NDCG@10 from {none['ndcg@10']:.4f} to "
            f"{here['ndcg@10']:.4f} ({gain:+.0%}); for it, what is shown is "
            f"{_times(here['arp@10'], none['arp@10'])} as popular (mean train degree {none['arp@10']:.1f} to "
            f"{here['arp@10']:.1f}), {none['coverage@10']:.0%} to "
            f"{here['coverage@10']:.0%} of the items are shown to anybody, and recall of tail items goes from "
            f"{none['tail_recall@10']:.4f} to {here['tail_recall@10']:.4f}."
        )
    return Finding("popularity-dial", question, answer, table, _figure(table, chosen), shown, _METHOD)


_METHOD = (
    "Test, full ranking; the dial was chosen on valid. arp: mean train degree of the first ten; coverage: share of "
    "all items in anybody's first ten; gini: 0 = every item is shown alike; pop_reo: spread of recall over head, mid "
    "and tail, 0 = equal."
)


def _times(value: float, base: float) -> str:
    return f"{value / base:.1f} times" if base else "not comparably"


def _figure(table: pl.DataFrame, chosen: float) -> str:
    by_dial = table.sort("dial")
    about = "NDCG@10 against mean popularity of what is shown, by dial. " + " ".join(
        f"Dial {dial:g}: ndcg {ndcg:.4f}, arp {arp:.1f}, coverage {coverage:.2f}."
        for dial, ndcg, arp, coverage in by_dial.select("dial", "ndcg@10", "arp@10", "coverage@10").iter_rows()
    )
    with drawing(7.2, 3.2, about) as (figure, text):
        left, right = figure.subplots(1, 2)
        x, y = by_dial["arp@10"].to_numpy(), by_dial["ndcg@10"].to_numpy()
        left.plot(x, y, color=OURS_COLOUR, marker="o", ms=5)
        for dial, a, b in zip(by_dial["dial"].to_list(), x, y, strict=True):
            if dial in (0.0, chosen):
                name = f"dial {dial:g}" + (" (chosen)" if dial == chosen else "")
                left.plot([a], [b], marker="o", ms=12, mfc="none", mec=OURS_COLOUR)
                left.annotate(name, (a, b), xytext=(0, -16), textcoords="offset points", ha="center")
        left.set_xlabel("mean popularity of what is shown (arp@10)")
        left.set_ylabel("ndcg@10")
        left.margins(0.12, 0.2)
        groups, width = ("head", "mid", "tail"), 0.38
        for place, (dial, colour, hatch) in enumerate(((0.0, "#e69f00", "//"), (chosen, OURS_COLOUR, ""))):
            if place and dial == 0:
                continue
            row = table.filter(pl.col("dial") == dial)
            height = [float(row[f"{group}_recall@10"][0]) for group in groups]
            at = np.arange(3) + width * (place - 0.5)
            right.bar(at, height, width, color=colour, hatch=hatch, edgecolor="white", lw=0, label=f"dial {dial:g}")
        right.set_xticks(range(3), groups)
        right.set_ylabel("recall@10 of held-out items")
        right.legend()
        for axes in (left, right):
            axes.grid(axis="y", color="#888888", alpha=0.3)
            axes.set_axisbelow(True)
    return text[0]
