"""A measure is a metric with its cut-off: a value that prints its own label, such as ndcg@10."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from symcere.errors import ConfigError
from symcere.evaluation import metrics


@dataclass(frozen=True, eq=False)
class Ranked:
    """All that a measure may see of a system: rankings of the users with held-out items, never a score."""

    ranking: Int[ndarray, "users k"]
    hits: Bool[ndarray, "users k"]
    n_relevant: Int[ndarray, " users"]
    relevant_item: Int[ndarray, " relevant"]
    popularity: Float[ndarray, " n_items"]

    def first(self, k: int) -> "Ranked":
        """The same rankings, cut after k items."""
        return Ranked(self.ranking[:, :k], self.hits[:, :k], self.n_relevant, self.relevant_item, self.popularity)


@dataclass(frozen=True)
class Measure:
    """A metric at a cut-off.

    Args:
        name: Name of the metric.
        k: Cut-off, at least 1.
        compute: From rankings cut at k to one value a user, or to one number for the whole system.

    Raises:
        ConfigError: If k is below 1.
    """

    name: str
    k: int
    compute: Callable[[Ranked], Float[ndarray, " users"] | float]

    def __post_init__(self) -> None:
        """Check the cut-off."""
        if self.k < 1:
            raise ConfigError(f"The cut-off of {self.name} must be at least 1; found {self.k}.")

    @property
    def label(self) -> str:
        """Name and cut-off: ndcg@10."""
        return f"{self.name}@{self.k}"

    def __str__(self) -> str:
        return self.label

    def values(self, ranked: Ranked) -> Float[ndarray, " users"] | float:
        """The metric of rankings of at least k items."""
        return self.compute(ranked.first(self.k))


def ndcg(k: int) -> Measure:
    """Normalised discounted cumulative gain of the first k."""
    return Measure("ndcg", k, lambda r: metrics.ndcg(r.hits, r.n_relevant))


def recall(k: int) -> Measure:
    """Share of the relevant items found in the first k."""
    return Measure("recall", k, lambda r: metrics.recall(r.hits, r.n_relevant))


def precision(k: int) -> Measure:
    """Share of the first k that is relevant."""
    return Measure("precision", k, lambda r: metrics.precision(r.hits))


def hit_rate(k: int) -> Measure:
    """Whether any relevant item is in the first k."""
    return Measure("hit_rate", k, lambda r: metrics.hit_rate(r.hits))


def mrr(k: int) -> Measure:
    """Reciprocal rank of the first relevant item within the first k."""
    return Measure("mrr", k, lambda r: metrics.mrr(r.hits))


def average_precision(k: int) -> Measure:
    """Average precision of the first k (its mean over users is MAP)."""
    return Measure("map", k, lambda r: metrics.average_precision(r.hits, r.n_relevant))


def arp(k: int) -> Measure:
    """Average popularity (train degree) of the first k."""
    return Measure("arp", k, lambda r: metrics.arp(r.ranking, r.popularity))


def coverage(k: int) -> Measure:
    """Share of all items that appear in some user's first k."""
    return Measure("coverage", k, lambda r: metrics.coverage(r.ranking, len(r.popularity)))


def gini(k: int) -> Measure:
    """Inequality of exposure among the first k; 0 = equal."""
    return Measure("gini", k, lambda r: metrics.gini(r.ranking, len(r.popularity)))


def group_recall(group: int, k: int) -> Measure:
    """Recall of held-out interactions with head (0), mid (1) or tail (2) items in the first k."""
    name = ("head_recall", "mid_recall", "tail_recall")[group]
    return Measure(name, k, lambda r: float(_by_group(r)[group]))


def pop_reo(k: int) -> Measure:
    """Spread of recall over head, mid and tail, those that have held-out interactions; 0 = equal opportunity."""
    return Measure("pop_reo", k, lambda r: metrics.pop_reo(_by_group(r)[_held_out(r)]))


def _by_group(ranked: Ranked) -> Float[ndarray, "3"]:
    group = metrics.popularity_group(ranked.popularity)
    return metrics.group_recall(ranked.ranking, ranked.hits, ranked.relevant_item, group)


def _held_out(ranked: Ranked) -> Int[ndarray, " groups"]:
    """The groups that have held-out interactions."""
    return np.unique(metrics.popularity_group(ranked.popularity)[ranked.relevant_item])


def standard_measures() -> list[Measure]:
    """The measures of every report, accuracy first.

    Returns:
        ndcg, recall at 10 and 20; precision, hit rate, mrr, map at 10; then popularity and exposure at 10.
    """
    accuracy = [ndcg(10), recall(10), recall(20), ndcg(20), precision(10), hit_rate(10), mrr(10)]
    groups = [group_recall(group, 10) for group in range(3)]
    return [*accuracy, average_precision(10), arp(10), coverage(10), gini(10), *groups, pop_reo(10)]


def mean(values: Float[ndarray, " users"] | float) -> float:
    """One number for the table: the mean over users, or the system's own value."""
    return float(np.mean(values))
