"""What deletion and insertion say of the reasons, as a finding of the page."""

import numpy as np
import polars as pl
from jaxtyping import Float
from numpy import ndarray

from symcere import rng
from symcere.analysis.faithfulness import ORDERS, SHARES, Curves
from symcere.analysis.finding import Finding
from symcere.analysis.why import MOST_REVIEWS
from symcere.evaluation.figures import INK, OURS_COLOUR, drawing

_LOOKS = ((OURS_COLOUR, "o", "-"), ("#d55e00", "s", "--"), ("#888888", "^", ":"))


def faithfulness_finding(found: Curves) -> Finding:
    """Whether the words named as reasons move the score.

    Args:
        found: The curves.

    Returns:
        The finding; without a figure where there were no recommendations to test.
    """
    question = "Are the reasons true: does the score move with the words that are said to carry it?"
    n = len(found.n_words)
    if n < 2:
        answer = f"Not to be said: only {n} recommended items have reviews of 10 words or more."
        return Finding("faithfulness", question, answer, pl.DataFrame({"recommendations": [n]}))
    rows = []
    for kind, curves in (("deletion", found.deletion), ("insertion", found.insertion)):
        for order in ORDERS:
            low, high = _interval(curves[order])
            rows += [
                {"curve": kind, "order": order, "share": share, "score": mean, "low": a, "high": b}
                for share, mean, a, b in zip(SHARES, curves[order].mean(0), low, high, strict=True)
            ]
    table = pl.DataFrame(rows)
    said = []
    for kind in ("deletion", "insertion"):
        area = found.area(kind, ORDERS[0])
        low, high = (float(end) for end in _interval(area[:, None])[:, 0])
        moves = "more than" if low > 0 else "less than" if high < 0 else "not measurably more than"
        said.append(
            f"{kind} of its words in the order of the reasons moves the score {moves} in a random order of the same "
            f"frequencies (area {area.mean():+z.3f}, {low:+z.3f} to {high:+z.3f}, more in {(area > 0).mean():.0%})"
        )
    lexicon = found.area("deletion", ORDERS[1])
    low, high = (float(end) for end in _interval(lexicon[:, None])[:, 0])
    answer = (
        f"Over {n} recommendations, {said[0]}, and {said[1]}. The corpus-level anchors as an order: area of deletion "
        f"{lexicon.mean():+z.3f} ({low:+z.3f} to {high:+z.3f})."
    )
    with drawing(7.2, 3.4, answer) as (figure, text):
        panels = figure.subplots(1, 2, sharey=True)
        for axes, (kind, curves) in zip(
            panels, (("deletion", found.deletion), ("insertion", found.insertion)), strict=True
        ):
            for order, (colour, marker, dash) in zip(ORDERS, _LOOKS, strict=True):
                low_, high_ = _interval(curves[order])
                axes.plot(SHARES, curves[order].mean(0), color=colour, marker=marker, ms=4, ls=dash, label=order)
                axes.fill_between(SHARES, low_, high_, color=colour, alpha=0.15, lw=0)
            axes.axhline(0, color=INK, lw=0.8, ls=":")
            axes.set_title(kind, loc="left", fontsize=10)
            axes.set_xlabel("share of the item's words")
            axes.grid(color="#888888", alpha=0.3)
        panels[0].set_ylabel("score above that without text")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(ORDERS))
    return Finding(
        "faithfulness",
        question,
        answer,
        table,
        text[0],
        0,
        f"One recommendation a user, drawn from the first ten. Words are blanked in {_where(found)}; what neighbours "
        "tell is held. Random orders exchange words within a level of document frequency. Bands and intervals: 95 %, "
        "users resampled.",
    )


def _where(found: Curves) -> str:
    """Of which reviews words were left out, and what that makes of the score."""
    if found.exact:
        return "all train reviews of the item, and the whole score is computed again, exactly"
    return (
        f"the train reviews of the item, of more than {MOST_REVIEWS} in as many drawn at random that stand for all, "
        "and the whole score is computed again"
    )


def _interval(value: Float[ndarray, "n columns"]) -> Float[ndarray, "2 columns"]:
    """95 % bootstrap interval of the mean over rows."""
    often = rng.stream(0, "curves").multinomial(len(value), np.full(len(value), 1 / len(value)), 1_000)
    return np.asarray(np.quantile(often @ value / len(value), [0.025, 0.975], axis=0))
