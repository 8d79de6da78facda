"""What the drops of words say, as findings of the page."""

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl
from numpy import ndarray

from symcere.analysis.anchoring import Contrast, Drops, Weights, centred_interval, contrast, word_weights
from symcere.analysis.finding import Finding
from symcere.analysis.lexicon import Classes, classes_of
from symcere.data.items import Items
from symcere.evaluation.figures import INK, OURS_COLOUR, drawing

SHUFFLED = "shuffled text"
FROZEN = "frozen encoder"
OBJECTIVE = "objective-subjective"
"""Names that the page and others share."""

TOP = 30
_LOOKS = {"objective": ("#0072b2", "o"), "subjective": ("#d55e00", "s"), "other": ("#888888", "x")}


def anchoring_findings(found: Drops, ours: str, items: Items, *, least: int = 10) -> tuple[Finding, ...]:
    """Findings on anchors: objective against subjective words, the lexicon, and weight by frequency.

    Args:
        found: Drops through the lens `ours` and those of controls.
        ours: Name of the fit's own lens.
        items: Titles and categories: their words count as objective.
        least: Reviews that a word must be in.

    Returns:
        Two findings, and a third where the texts are English.
    """
    weights = {lens: word_weights(found, lens, least=least) for lens in found.drop}
    own = weights[ours]
    if not len(own.words):
        empty = pl.DataFrame({"word": [], "reviews": []})
        answer = f"No word is in {least} reviews: there is nothing to say of words on data this small."
        return (Finding("anchors", "Which words carry the alignment?", answer, empty),)
    classes = classes_of(own.words, own.n_reviews, items)
    table = _lexicon(weights, ours, classes)
    made = [_anchors(table, ours)]
    if classes.english:
        contrasts = {
            lens: compared
            for lens, each in weights.items()
            if (compared := contrast(each, classes.objective, classes.subjective))
        }
        if ours in contrasts:
            made = [_objective(contrasts, ours), *made, _by_frequency(own, classes)]
    return tuple(made)


def _lexicon(weights: Mapping[str, Weights], ours: str, classes: Classes) -> pl.DataFrame:
    own = weights[ours]
    low, high = own.interval
    kind = [classes.name(place) for place in range(len(own.words))]
    columns = {
        "word": own.words,
        "class": kind,
        "reviews": own.n_reviews,
        "weight": own.mean,
        "low": low,
        "high": high,
    }
    others = {f"weight, {lens}": each.mean for lens, each in weights.items() if lens != ours}
    return pl.DataFrame({**columns, **others}).sort("low", "word", descending=[True, False])


def _objective(contrasts: Mapping[str, Contrast], ours: str) -> Finding:
    own = contrasts[ours]
    rows = [
        {
            "seen by": lens, "objective": each.objective, "subjective": each.subjective, "gap from": each.low,
            "gap to": each.high, "P": each.above, "P from": each.above_low, "P to": each.above_high,
            "objective words": each.n_objective, "subjective words": each.n_subjective,
        }
        for lens, each in contrasts.items()
    ]  # fmt: skip
    sides = (
        "more than" if own.low > 0 else "less than" if own.high < 0 else "not measurably otherwise than",
        f"{own.objective:z.5f} against {own.subjective:z.5f} of the alignment a word, difference "
        f"{own.low:+z.5f} to {own.high:+z.5f}",
    )
    answer = (
        f"Objective words carry the alignment {sides[0]} words of feeling in equally many reviews ({sides[1]}); an "
        f"objective word outweighs a subjective one with probability {own.above:.2f} "
        f"({own.above_low:.2f} to {own.above_high:.2f})."
    )
    for control in (each for each in contrasts if each != ours):
        answer += " " + _beside(control, contrasts[control], own)
    label = "P: an objective word outweighs a subjective one of equal frequency"
    about = f"{label}. " + " ".join(
        f"{lens}: {each.above:.3f} ({each.above_low:.3f} to {each.above_high:.3f})."
        for lens, each in contrasts.items()
    )
    with drawing(7.2, 0.9 + 0.42 * len(contrasts), about) as (figure, text):
        axes = figure.add_subplot()
        axes.set_yticks(range(len(contrasts)), list(contrasts))
        axes.set_ylim(len(contrasts) - 0.5, -0.5)
        axes.axvline(0.5, color=INK, lw=0.8, ls=":")
        for place, (lens, each) in enumerate(contrasts.items()):
            colour = OURS_COLOUR if lens == ours else "#888888"
            axes.hlines(place, each.above_low, each.above_high, color=colour, lw=2)
            axes.plot([each.above], [place], marker="o" if lens == ours else "s", ms=7, color=colour)
        axes.set_xlabel(label)
        axes.grid(axis="x", color="#888888", alpha=0.3)
    return Finding(
        OBJECTIVE,
        "Does the alignment hang on facts rather than on feelings?",
        answer,
        pl.DataFrame(rows),
        text[0],
        len(rows),
        "Weight of a word: how far cos(graph vector, projected text), above its mean over all nodes, falls when the "
        "word is blanked in a review; mean over user and item and over the reviews that have it. Objective: not in "
        "VADER's lexicon, and a noun, a name or a term of the items; subjective: in the lexicon. Matched by document "
        "frequency; 95 % intervals, users, items and words resampled. The frozen encoder compares a review with the "
        "profile of its node without it.",
    )


def _beside(name: str, control: Contrast, own: Contrast) -> str:
    """One sentence on a control."""
    n = min(len(own.resampled), len(control.resampled))
    gap = own.above - control.above
    low, high = centred_interval(gap, own.resampled[:n] - control.resampled[:n])
    sure = "ours is above it" if low > 0 else "ours is below it" if high < 0 else "no measurable difference to ours"
    return f"{name[:1].upper()}{name[1:]}: {control.above:.2f} ({sure}, {low:+z.2f} to {high:+z.2f})."


def _anchors(table: pl.DataFrame, ours: str) -> Finding:
    top = table.head(TOP)
    counted = top["class"].value_counts().sort("count", descending=True)
    shares = ", ".join(f"{count} {name}" for name, count in counted.iter_rows())
    sure = int((table["low"] > 0).sum())
    first = ", ".join(top["word"].head(8).to_list())
    answer = (
        f"Of {len(table):,} words, {sure:,} carry alignment for certain (interval above 0); the surest are {first}. "
        f"Of the first {len(top)}, {shares}."
    )
    about = "Weight of the surest anchors with 95 % interval. " + " ".join(
        f"{word} ({kind}) {weight:.4f}." for word, kind, weight in top.select("word", "class", "weight").iter_rows()
    )
    with drawing(7.2, 0.8 + 0.21 * len(top), about) as (figure, text):
        axes = figure.add_subplot()
        axes.set_yticks(
            range(len(top)), [f"{word}  ({n:,})" for word, n in top.select("word", "reviews").iter_rows()]
        )
        axes.set_ylim(len(top) - 0.5, -0.5)
        for kind, (colour, marker) in _LOOKS.items():
            at = np.flatnonzero((top["class"] == kind).to_numpy())
            if len(at):
                low, high, weight = (top[name].to_numpy()[at] for name in ("low", "high", "weight"))
                axes.hlines(at, low, high, color=colour, lw=1.6)
                axes.plot(weight, at, marker=marker, ms=5.5, ls="none", color=colour, label=kind)
        axes.axvline(0, color=INK, lw=0.8, ls=":")
        axes.set_xlabel("mean drop of the alignment without the word")
        axes.grid(axis="x", color="#888888", alpha=0.3)
        axes.legend(loc="lower right")
    method = (
        f"In brackets: reviews that have the word. Ordered by the lower end of the 95 % interval ({ours}). The CSV "
        "has every word, and its weight in each control."
    )
    return Finding("anchors", "Which words carry the alignment?", answer, table, text[0], 0, method)


def _by_frequency(own: Weights, classes: Classes) -> Finding:
    groups: Sequence[tuple[str, ndarray]] = (("objective", classes.objective), ("subjective", classes.subjective))
    level = np.floor(np.log2(own.n_reviews)).astype(int)
    rows = [
        {
            "class": kind, "reviews_from": 2**step, "words": int(here.sum()),
            "mean_weight": float(own.mean[here].mean()),
            "low": float(np.quantile(own.resampled[here].mean(0), 0.025)),
            "high": float(np.quantile(own.resampled[here].mean(0), 0.975)),
        }
        for kind, mine in groups for step in np.unique(level) if (here := mine & (level == step)).any()
    ]  # fmt: skip
    table = pl.DataFrame(rows)
    both = table.pivot("class", index="reviews_from", values="mean_weight").drop_nulls()
    above = (
        int((both["objective"] > both["subjective"]).sum()) if {"objective", "subjective"} <= set(both.columns) else 0
    )
    answer = (
        f"Objective words weigh more than subjective ones in {above} of {len(both)} levels of document frequency "
        "that have both: "
        + ("rarity alone does not explain it." if above == len(both) else "not at every frequency.")
    )
    about = "Mean weight by document frequency. " + " ".join(
        f"{row['class']}, from {row['reviews_from']} reviews: {row['mean_weight']:.5f}." for row in rows
    )
    with drawing(7.2, 3.6, about) as (figure, text):
        axes = figure.add_subplot()
        for kind, _ in groups:
            mine = table.filter(pl.col("class") == kind)
            colour, marker = _LOOKS[kind]
            x, y = mine["reviews_from"].to_numpy(), mine["mean_weight"].to_numpy()
            dash = "-" if kind == "objective" else "--"
            axes.plot(x, y, color=colour, marker=marker, ls=dash, label=kind)
            axes.fill_between(x, mine["low"].to_numpy(), mine["high"].to_numpy(), color=colour, alpha=0.15, lw=0)
        axes.set_xscale("log", base=2)
        axes.set_xlabel("reviews that have the word (from, doubling)")
        axes.set_ylabel("mean weight")
        axes.axhline(0, color=INK, lw=0.8, ls=":")
        axes.grid(color="#888888", alpha=0.3)
        axes.legend(loc="upper right")
    return Finding(
        "weight-by-frequency",
        "Is it only that facts are rare words?",
        answer,
        table,
        text[0],
        0,
        "Rare words move a review further whatever they mean, so classes are compared level by level.",
    )
