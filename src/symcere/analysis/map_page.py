"""Figure 1: where graph and text vectors lie, as findings of the page."""

import importlib.util
import warnings
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float, Int
from numpy import ndarray

from symcere.analysis.finding import Finding
from symcere.analysis.geometry import Shape
from symcere.analysis.learned import Learned
from symcere.evaluation.figures import OURS_COLOUR, TEXT_COLOUR, drawing
from symcere.recommender import unit_rows


def map_finding(learned: Learned, nodes: Int[ndarray, " nodes"], shape: Shape) -> Finding:
    """Figure 1: graph and text vectors on one map, before and after normalisation.

    Args:
        learned: The fit.
        nodes: Nodes to draw: a point of each modality for each.
        shape: Its numbers, for the answer.

    Returns:
        The finding.
    """
    raw = [x[nodes] / np.linalg.norm(x[nodes], axis=1).mean() for x in (learned.graph, learned.texts)]
    unit = [unit_rows(x) for x in raw]
    answer = (
        f"Graph and text vectors lie {_apart(shape.gap_unit)}: on the sphere their means are {shape.gap_unit:.2f} "
        f"apart (2 at most; {shape.gap_raw:.2f} before normalisation), and a line tells them apart in "
        f"{shape.probe_unit:.0%} of the cases ({shape.probe_raw:.0%} before; 50 % is chance)."
    )
    maps = [(name, _plane(np.concatenate(pair))) for name, pair in (("before", raw), ("after", unit))]
    table = _table_of(learned, nodes, {f"pca {name} normalisation": xy for name, xy in maps})
    return Finding(
        "map",
        "Do graph and text vectors share one space? (Figure 1)",
        answer,
        table,
        _maps_figure(learned, nodes, [(f"{name} normalisation", xy) for name, xy in maps], answer),
        0,
        f"PCA of both modalities together, {len(nodes)} users and items drawn at random; before normalisation each "
        "modality is scaled to mean length 1.",
    )


def has_umap() -> bool:
    """Whether UMAP is installed."""
    return importlib.util.find_spec("umap") is not None


def umap_finding(learned: Learned, nodes: Int[ndarray, " nodes"], seed: int) -> Finding:
    """Figure 1 by UMAP, where that is installed; the finding says so where it is not.

    Args:
        learned: The fit.
        nodes: Nodes to draw.
        seed: Of the map.

    Returns:
        The finding.
    """
    question = "And with near neighbours kept instead of variance? (Figure 1 by UMAP)"
    if not has_umap():
        answer = 'Not drawn: umap-learn is not installed. pip install "symcere[umap]" adds it.'
        return Finding("map-umap", question, answer, pl.DataFrame({"nodes": [len(nodes)]}))
    from sklearn.neighbors import NearestNeighbors

    both = unit_rows(np.concatenate([learned.graph[nodes], learned.texts[nodes]]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what it imports, and that a seed costs its threads
        from umap import UMAP

        xy = UMAP(n_neighbors=min(15, len(both) - 1), metric="cosine", random_state=seed).fit_transform(both)
    _, near = NearestNeighbors(n_neighbors=min(11, len(both))).fit(both).kneighbors(both)
    modality = np.repeat([0, 1], len(nodes))
    mixed = float((modality[near[:, 1:]] != modality[:, None]).mean())
    answer = (
        f"Of the ten nearest neighbours of a vector, {mixed:.0%} are of the other modality; 50 % would be one mixed "
        "cloud, 0 % two separate ones."
    )
    figure = _maps_figure(learned, nodes, [("after normalisation", np.asarray(xy))], answer)
    table = _table_of(learned, nodes, {"umap": np.asarray(xy)})
    return Finding(
        "map-umap",
        question,
        answer,
        table,
        figure,
        0,
        "UMAP of the unit vectors by cosine; the share is counted in all dimensions.",
    )


def _apart(gap: float) -> str:
    return "in one cloud" if gap < 0.3 else "partly apart" if gap < 0.8 else "in two clouds"


def _plane(x: Float[ndarray, "rows dim"]) -> Float[ndarray, "rows 2"]:
    """The two leading principal components; each points to where its largest entry is."""
    centred = x - x.mean(0)
    _, _, direction = np.linalg.svd(centred, full_matrices=False)
    xy = centred @ direction[:2].T
    return np.asarray(xy * np.sign(xy[np.abs(xy).argmax(0), np.arange(xy.shape[1])]))


def _table_of(learned: Learned, nodes: ndarray, maps: dict[str, ndarray]) -> pl.DataFrame:
    ids = [*learned.train.users.ids, *learned.train.items.ids]
    columns: dict[str, object] = {
        "id": [ids[node] for node in nodes] * 2,
        "kind": np.where(nodes < learned.n_users, "user", "item").tolist() * 2,
        "modality": np.repeat(["graph", "text"], len(nodes)),
        "train interactions": np.tile(learned.degree[nodes], 2),
    }
    for name, xy in maps.items():
        columns |= {f"{name} {axis + 1}": xy[:, axis] for axis in range(xy.shape[1])}
    return pl.DataFrame(columns)


def _maps_figure(learned: Learned, nodes: ndarray, maps: list[tuple[str, ndarray]], about: str) -> str:
    degree = np.tile(np.log10(np.maximum(learned.degree[nodes], 1)), 2)
    is_text = np.repeat([False, True], len(nodes))
    with drawing(7.6, 3.3 * len(maps), about) as (figure, text):
        grid = figure.subplots(len(maps), 2, squeeze=False)
        for row, (name, xy) in zip(grid, maps, strict=True):
            for mine, colour, marker, label in (
                (~is_text, OURS_COLOUR, "o", "graph"),
                (is_text, TEXT_COLOUR, "^", "text"),
            ):
                x, y = xy[mine].T
                look: dict[str, Any] = {"s": 9, "marker": marker, "lw": 0, "rasterized": True}
                row[0].scatter(x, y, c=colour, alpha=0.6, label=label, **look)
                scale = {"cmap": "cividis", "vmin": degree.min(), "vmax": degree.max()}
                shown = row[1].scatter(x, y, c=degree[mine], alpha=0.8, **scale, **look)
            row[0].set_title(f"{name}: by modality", loc="left", fontsize=10)
            row[1].set_title(f"{name}: by popularity", loc="left", fontsize=10)
            row[0].legend(loc="best", markerscale=2)
            figure.colorbar(shown, ax=row[1], label="log10 train interactions")
            for axes in row:
                axes.set_xticks([])
                axes.set_yticks([])
    return text[0]
