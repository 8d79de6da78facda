"""The shape of the space as findings of the page: the spectrum, lengths, and a table of numbers."""

from dataclasses import fields

import numpy as np
import polars as pl
from jaxtyping import Float
from numpy import ndarray

from symcere.analysis.finding import Finding
from symcere.analysis.geometry import Shape, drawn_nodes, rank_correlation, shape_of, spectrum
from symcere.analysis.learned import Learned
from symcere.analysis.map_page import map_finding, umap_finding
from symcere.evaluation.figures import OURS_COLOUR, TEXT_COLOUR, drawing
from symcere.recommender import unit_rows

_DRAWN = 700  # nodes on the map: as many points of each modality
_LABELS = {
    "gap_raw": "modality gap, each modality scaled to mean length 1",
    "gap_unit": "modality gap on the unit sphere",
    "probe_raw": "accuracy of a linear probe, before normalisation",
    "probe_unit": "accuracy of a linear probe, on the unit sphere",
    "cross": "alignment of train pairs, graph with text",
    "graph": "alignment of train pairs, graph with graph",
    "uniform_graph": "uniformity of graph vectors",
    "uniform_text": "uniformity of text vectors",
    "rank_graph": "effective rank of graph vectors",
    "rank_text": "effective rank of text vectors",
    "participation_graph": "participation ratio of graph vectors",
    "participation_text": "participation ratio of text vectors",
}


def geometry_findings(learned: Learned, free: Learned | None, *, umap: bool, seed: int) -> tuple[Finding, ...]:
    """Findings on the space of a fit.

    Args:
        learned: The fit.
        free: Its twin without the sphere; None if there is none.
        umap: Whether to draw the map by UMAP too, where it is installed.
        seed: Of all that is drawn.

    Returns:
        Map, spectrum, lengths and numbers; and the map by UMAP if asked for.
    """
    shape = shape_of(learned, seed=seed)
    other = shape_of(free, seed=seed) if free else None
    nodes = drawn_nodes(learned, _DRAWN, seed=seed)
    made = [map_finding(learned, nodes, shape)]
    if umap:
        made.append(umap_finding(learned, nodes, seed))
    return (*made, _spectrum(learned, free, shape, other), _lengths(learned, free, seed), _numbers(shape, other))


def _spectrum(learned: Learned, free: Learned | None, shape: Shape, other: Shape | None) -> Finding:
    lines = {"graph, unit": learned.graph, "text, unit": learned.texts}
    shares = {name: _variance(unit_rows(x[_known(learned)])) for name, x in lines.items()}
    if free:
        of_free = {"graph, trained without": free.graph, "text, trained without": free.texts}
        shares |= {name: _variance(x[_known(free)]) for name, x in of_free.items()}
    dim = learned.graph.shape[1]
    answer = (
        f"With the unit norm the graph vectors fill {shape.rank_graph:.0f} of {dim} directions by effective rank "
        f"(participation ratio {shape.participation_graph:.0f}), the text vectors {shape.rank_text:.0f} "
        f"({shape.participation_text:.0f})"
    )
    if other:
        answer += (
            f"; trained without it, {other.rank_graph:.0f} ({other.participation_graph:.0f}) and "
            f"{other.rank_text:.0f} ({other.participation_text:.0f}). The unit norm spreads the graph vectors "
            f"{_versus(shape.rank_graph, other.rank_graph)} by effective rank, "
            f"{_versus(shape.participation_graph, other.participation_graph)} by participation ratio"
        )
    answer += "."
    columns: dict[str, object] = {"dimension": np.arange(1, dim + 1)}
    for name, (variance, spectral) in shares.items():
        columns |= {f"variance, {name}": variance, f"spectrum, {name}": spectral}
    table = pl.DataFrame(columns)
    looks = (("-", OURS_COLOUR), ("-", TEXT_COLOUR), ("--", OURS_COLOUR), ("--", TEXT_COLOUR))
    with drawing(7.6, 3.4, answer) as (figure, text):
        left, right = figure.subplots(1, 2)
        for (name, (variance, spectral)), (dash, colour) in zip(shares.items(), looks, strict=False):
            left.plot(range(1, dim + 1), variance, ls=dash, color=colour, label=name)
            right.semilogy(range(1, dim + 1), np.maximum(spectral, 1e-8), ls=dash, color=colour, label=name)
        left.set_xlabel("dimension, by its variance")
        left.set_ylabel("share of all variance")
        right.set_xlabel("principal direction")
        right.set_ylabel("share of all variance (log)")
        left.set_ylim(bottom=0)
        figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(shares))
        for axes in (left, right):
            axes.axhline(1 / dim, color="#888888", lw=0.8, ls=":")
            axes.grid(color="#888888", alpha=0.3)
    return Finding(
        "spectrum",
        "Does the unit norm spread what is learned over more dimensions? (Figure 4)",
        answer,
        table,
        text[0],
        0,
        "Total variance scaled to 1 in each, so that curves are on the same scale; the dotted line is an even "
        "spread. Effective rank: exp of the entropy of singular values; participation ratio: (sum of variances)^2 / "
        "sum of squares.",
    )


def _known(learned: Learned) -> ndarray:
    return np.asarray(learned.told & (learned.degree > 0))


def _variance(x: Float[ndarray, "rows dim"]) -> tuple[ndarray, ndarray]:
    variance = np.sort(x.var(0))[::-1]
    directions = spectrum(x)
    whole = np.zeros(x.shape[1])
    whole[: len(directions)] = directions
    return variance / max(variance.sum(), 1e-300), whole


def _versus(value: float, base: float) -> str:
    ratio = value / max(base, 1e-12)
    return "no differently (within 5 %)" if abs(ratio - 1) < 0.05 else f"{ratio:.2f} times as wide"


def _lengths(learned: Learned, free: Learned | None, seed: int) -> Finding:
    n, rows = learned.n_users, []
    for name, fit in (("ours", learned), ("no sphere", free)):
        for modality, x in (("graph", fit.graph), ("text", fit.texts)) if fit else ():
            for kind, side in (("items", slice(n, None)), ("users", slice(0, n))):
                there = learned.degree[side] > 0
                found = rank_correlation(
                    np.linalg.norm(x[side][there], axis=1), learned.degree[side][there], seed=seed
                )
                row = {"fit": name, "vectors": f"{modality} of {kind}", "spearman": found.value}
                rows.append({**row, "low": found.low, "high": found.high})
    table = pl.DataFrame(rows)
    own = rows[0]
    answer = f"Before normalisation, the length of an item's graph vector {_goes(own)} with its popularity"
    if free:
        answer += f"; trained without the sphere it {_goes(rows[4])}"
    answer += ". The score of the unit vectors cannot see it: popularity enters by the dial alone."
    with drawing(7.2, 3.3, answer) as (figure, text):
        panels = figure.subplots(1, 2, squeeze=False)[0]
        for axes, (name, fit) in zip(panels, (("ours", learned), ("no sphere", free)), strict=True):
            if fit is None:
                axes.axis("off")
                continue
            degree, length = learned.degree[n:], np.linalg.norm(fit.graph[n:], axis=1)
            there = (degree > 0) & (length > 0)
            axes.scatter(degree[there], length[there], s=8, color=OURS_COLOUR, alpha=0.5, lw=0, rasterized=True)
            axes.set(xscale="log", yscale="log", xlabel="train interactions of the item")
            axes.set_title(f"items, {name}", loc="left", fontsize=10)
            axes.grid(color="#888888", alpha=0.3)
        panels[0].set_ylabel("length of the graph vector")
    return Finding(
        "lengths", "Does popularity hide in the length of vectors?", answer, table, text[0], len(rows),
        "Spearman's correlation of length and train interactions, with a bootstrap interval over nodes.",
    )  # fmt: skip


def _goes(row: dict[str, object]) -> str:
    value, low, high = (float(str(row[key])) for key in ("spearman", "low", "high"))
    how = "rises" if low > 0 else "falls" if high < 0 else "does not measurably go"
    return f"{how} (Spearman {value:+z.2f}, {low:+z.2f} to {high:+z.2f})"


def _numbers(shape: Shape, other: Shape | None) -> Finding:
    names = [each.name for each in fields(Shape)]
    columns: dict[str, object] = {
        "number": [_LABELS[name] for name in names],
        "ours": [getattr(shape, name) for name in names],
    }
    if other:
        columns["no sphere"] = [getattr(other, name) for name in names]
    answer = (
        f"Train pairs lie at a mean squared distance of {shape.graph:.2f} by graph and {shape.cross:.2f} across "
        f"modalities (2 = unrelated); uniformity is {shape.uniform_graph:.2f} for graph and {shape.uniform_text:.2f} "
        "for text vectors (lower is more uniform)"
    )
    if other:
        answer += (
            f"; without the sphere {other.graph:.2f}, {other.cross:.2f}, {other.uniform_graph:.2f} and "
            f"{other.uniform_text:.2f}"
        )
    answer += "."
    method = "Alignment (mean squared distance) and uniformity: Wang and Isola 2020, on unit vectors."
    return Finding(
        "numbers", "How aligned and how uniform is the space?", answer, pl.DataFrame(columns), "", len(names), method
    )
