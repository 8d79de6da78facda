"""The shape of the space: how far the modalities lie apart, how many directions they fill, what lengths hold."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from symcere import rng
from symcere.analysis.learned import Learned
from symcere.recommender import unit_rows

_PAIRS = 50_000  # of nodes, drawn: what uniformity is estimated on
_PROBED = 4_000  # nodes of each modality at most that the probe sees


def modality_gap(a: Float[ndarray, "rows dim"], b: Float[ndarray, "rows dim"]) -> float:
    """Distance of the means of two sets of vectors, |mean a - mean b|; 0 for the same set, at most 2 on the sphere.

    Args:
        a: Vectors of one modality.
        b: Vectors of the other.

    Returns:
        The distance.

    Source:
        Liang et al., Mind the Gap, NeurIPS 2022.

    Example:
        >>> modality_gap(np.array([[1.0, 0.0]]), np.array([[-1.0, 0.0]]))
        2.0
    """
    return float(np.linalg.norm(a.mean(0) - b.mean(0)))


def probe_accuracy(a: Float[ndarray, "rows dim"], b: Float[ndarray, "rows dim"], *, seed: int = 0) -> float:
    """How well a line tells two sets of vectors apart: 5-fold accuracy; .5 where it cannot, 1 where it can.

    Args:
        a: Vectors of one modality.
        b: Vectors of the other, as many.
        seed: Of the folds, and of the rows where there are many; a row of a and its row of b share a fold.

    Returns:
        Accuracy on rows that the classifier has not seen.
    """
    from sklearn.linear_model import RidgeClassifier

    order = rng.stream(seed, "probe").permutation(len(a))[:_PROBED]
    spread = np.concatenate([a, b]).std(0).mean() or 1.0
    right = 0
    for held in np.array_split(order, 5):
        seen = np.setdiff1d(order, held)
        label = np.repeat([0, 1], len(seen))
        probe = RidgeClassifier(1e-3).fit(np.concatenate([a[seen], b[seen]]) / spread, label)
        told = probe.predict(np.concatenate([a[held], b[held]]) / spread)
        right += int((told == np.repeat([0, 1], len(held))).sum())
    return right / (2 * len(order))


def spectrum(x: Float[ndarray, "rows dim"]) -> Float[ndarray, " dim"]:
    """Variance along each principal direction, largest first, as a share of all of it."""
    values = np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2
    return np.asarray(values / max(values.sum(), 1e-300))


def effective_rank(share: Float[ndarray, " dim"]) -> float:
    """exp(entropy of the singular values' shares): how many directions count; dim where all count alike.

    Args:
        share: Variances along the principal directions, as of `spectrum`; their roots are the singular values.

    Returns:
        1 to dim.

    Source:
        Roy and Vetterli, The effective rank, EUSIPCO 2007.

    Example:
        >>> round(effective_rank(np.array([0.5, 0.5, 0.0])), 6), effective_rank(np.array([1.0, 0.0]))
        (2.0, 1.0)
    """
    root = np.sqrt(share[share > 0])
    p = root / root.sum()
    return float(np.exp(-(p * np.log(p)).sum()))


def participation_ratio(share: Float[ndarray, " dim"]) -> float:
    """(sum of variances)^2 / sum of squared variances: 1 where one direction has all, dim where all have the same.

    Args:
        share: Variances along the principal directions.

    Returns:
        1 to dim.

    Example:
        >>> participation_ratio(np.array([0.5, 0.5, 0.0]))
        2.0
    """
    return float(share.sum() ** 2 / max((share**2).sum(), 1e-300))


def alignment(a: Float[ndarray, "pairs dim"], b: Float[ndarray, "pairs dim"]) -> float:
    """Mean squared distance of pairs on the unit sphere: 0 where they coincide, 2 at right angles.

    Args:
        a: Vectors.
        b: Their partners.

    Returns:
        0 to 4.

    Source:
        Wang and Isola, Alignment and uniformity on the hypersphere, ICML 2020.
    """
    return float(np.square(unit_rows(a) - unit_rows(b)).sum(1).mean())


def uniformity(x: Float[ndarray, "rows dim"], *, seed: int = 0) -> float:
    """Log of the mean of exp(-2 squared distance) over random pairs on the unit sphere: 0 where all coincide.

    Args:
        x: Vectors.
        seed: Of the pairs.

    Returns:
        At most 0; lower is more uniform.

    Source:
        Wang and Isola, ICML 2020.
    """
    one, other = rng.stream(seed, "uniformity").integers(0, len(x), (2, _PAIRS))
    distinct = one != other
    unit = unit_rows(x)
    distance = np.square(unit[one[distinct]] - unit[other[distinct]]).sum(1)
    return float(np.log(np.exp(-2 * distance).mean())) if len(distance) else 0.0


@dataclass(frozen=True)
class Rank:
    """A rank correlation with its 95 % interval (bootstrap over nodes)."""

    value: float
    low: float
    high: float


def rank_correlation(a: Float[ndarray, " nodes"], b: Float[ndarray, " nodes"], *, seed: int = 0) -> Rank:
    """Spearman's correlation of two values of nodes.

    Args:
        a: One value of each node.
        b: The other.
        seed: Of the resamples.

    Returns:
        1 where both rise together; 0 where either is constant.
    """
    from scipy.stats import rankdata

    ranks = np.stack([rankdata(a), rankdata(b)])

    def correlation(some: ndarray) -> float:
        x, y = ranks[:, some] - ranks[:, some].mean(1, keepdims=True)
        size = np.sqrt((x @ x) * (y @ y))
        return float(x @ y / size) if size else 0.0

    draws = rng.stream(seed, "spearman")
    resampled = [correlation(draws.integers(0, len(a), len(a))) for _ in range(200)]
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Rank(correlation(np.arange(len(a))), float(low), float(high))


@dataclass(frozen=True)
class Shape:
    """The numbers of one fit's space.

    Args:
        gap_raw: Modality gap of vectors as the towers give them, each modality scaled to mean length 1.
        gap_unit: The same on the unit sphere.
        probe_raw: Accuracy of a linear probe, as the towers give them.
        probe_unit: The same on the unit sphere.
        cross: Alignment of the graph vectors of users and the texts of items of train pairs, and the other way round.
        graph: Alignment of the graph vectors of train pairs.
        uniform_graph: Uniformity of the graph vectors.
        uniform_text: Uniformity of the text vectors.
        rank_graph: Effective rank of the graph vectors as the model compares them.
        rank_text: That of the text vectors.
        participation_graph: Their participation ratio.
        participation_text: That of the text vectors.
    """

    gap_raw: float
    gap_unit: float
    probe_raw: float
    probe_unit: float
    cross: float
    graph: float
    uniform_graph: float
    uniform_text: float
    rank_graph: float
    rank_text: float
    participation_graph: float
    participation_text: float


def shape_of(learned: Learned, *, seed: int = 0) -> Shape:
    """Measure the space of a fit.

    Args:
        learned: The fit.
        seed: Of what is drawn.

    Returns:
        Its numbers; the vectors of nodes without text are left out of those of text.
    """
    graph, text = both(learned)
    unit = unit_rows(graph), unit_rows(text)
    scaled = tuple(x / max(float(np.linalg.norm(x, axis=1).mean()), 1e-12) for x in (graph, text))
    compared = tuple(spectrum(learned.towers.scaled(x)) for x in (graph, text))
    user, item = learned.train.user, learned.train.item + learned.n_users
    one, other = ((a, b) for a, b in ((user, item), (item, user)))
    cross = [alignment(learned.graph[a[learned.told[b]]], learned.texts[b[learned.told[b]]]) for a, b in (one, other)]
    return Shape(
        modality_gap(*scaled),
        modality_gap(*unit),
        probe_accuracy(*scaled, seed=seed),
        probe_accuracy(*unit, seed=seed),
        float(np.mean(cross)),
        alignment(learned.graph[user], learned.graph[item]),
        uniformity(graph, seed=seed),
        uniformity(text, seed=seed),
        *(effective_rank(share) for share in compared),
        *(participation_ratio(share) for share in compared),
    )


def both(learned: Learned) -> tuple[Float[ndarray, "nodes dim"], Float[ndarray, "nodes dim"]]:
    """Graph and text vectors of the nodes that have both, as the towers give them."""
    there: Bool[ndarray, " nodes"] = learned.told & (learned.degree > 0)
    return learned.graph[there], learned.texts[there]


def drawn_nodes(learned: Learned, n: int, *, seed: int) -> Int[ndarray, " nodes"]:
    """Some of the nodes that have both modalities, drawn by the seed."""
    there = np.flatnonzero(learned.told & (learned.degree > 0))
    return np.sort(rng.stream(seed, "map").permutation(there)[:n])
