"""Profiles: the weighted mean of the vectors of a node's train reviews, gathered as vectors pass by."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import polars as pl
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.sparse import csr_array

from symcere.errors import ConfigError, DataError
from symcere.text.corpus import Corpus, blocks
from symcere.text.words import count_words, words

Weighting: TypeAlias = Callable[[Corpus], Float[ndarray, " table_rows"]]
"""Positive weight of every review of a corpus' table; only ratios matter."""

_COUNTED = 200_000  # reviews whose words are counted for inverse frequencies: a random sample of them


@dataclass(frozen=True)
class Recency:
    """A review weighs half as much for each half-life that it is older than the newest train review.

    A review without a timestamp counts as old as the oldest.

    Args:
        half_life_days: Days; positive.

    Raises:
        ConfigError: If the half-life is not positive.
    """

    half_life_days: int | float = 365

    def __post_init__(self) -> None:
        """Check the half-life."""
        if not self.half_life_days > 0:
            raise ConfigError(f"The half-life of recency must be positive; found {self.half_life_days}.")

    def __call__(self, corpus: Corpus) -> Float[ndarray, " table_rows"]:
        """0.5 ** (age / half-life)."""
        seconds = _column(corpus, "timestamp", "recency")
        age = np.nanmax(seconds) - np.nan_to_num(seconds, nan=np.nanmin(seconds))
        return np.asarray(0.5 ** (age / (86_400 * self.half_life_days)))


@dataclass(frozen=True)
class Helpfulness:
    """A review weighs 1 + log(1 + votes of readers who found it helpful); no vote known counts as none."""

    def __call__(self, corpus: Corpus) -> Float[ndarray, " table_rows"]:
        """1 + log(1 + votes)."""
        return np.asarray(1 + np.log1p(np.nan_to_num(_column(corpus, "helpful", "helpfulness"), nan=0)))


@dataclass(frozen=True)
class Length:
    """A review weighs log(1 + characters): a long review says more, but not in proportion."""

    def __call__(self, corpus: Corpus) -> Float[ndarray, " table_rows"]:
        """log(1 + characters)."""
        return _by_text(corpus, np.log1p(corpus.length))


@dataclass(frozen=True)
class InverseFrequency:
    """A review weighs the mean inverse document frequency of its words: rare words say more."""

    def __call__(self, corpus: Corpus) -> Float[ndarray, " table_rows"]:
        """Mean over words of log((1 + texts) / (1 + texts with the word))."""
        texts = corpus.sample(_COUNTED)
        n, counts = len(texts), count_words(texts)
        rarity = np.empty(len(corpus))
        for block in blocks(len(corpus)):
            rarity[block] = [
                np.mean([np.log((1 + n) / (1 + counts[word])) for word in words(text)] or [0.0])
                for text in corpus.take(block)
            ]
        return _by_text(corpus, rarity)


NAMED = (Recency, Helpfulness, Length, InverseFrequency)
"""Weightings that are known by what they print; of a function of yours that is an address."""


def review_weights(corpus: Corpus, weightings: Sequence[Weighting]) -> Float[ndarray, " table_rows"]:
    """Product of weightings for every review of a corpus' table, scaled to mean 1 and kept within 1/1000 and 1000.

    Weights are rounded to 11 bits, as float16 vectors are: so sums of products are exact, and a profile does not
    depend on the order in which reviews pass by.

    Args:
        corpus: The texts.
        weightings: None at all for a plain mean.

    Returns:
        The weights.
    """
    weight = np.ones(len(corpus.table))
    for weighting in weightings:
        weight = weight * weighting(corpus)
    if not weightings:
        return weight
    return np.asarray(np.clip(weight / weight.mean(), 1e-3, 1e3).astype(np.float16), dtype=np.float64)


class Pool:
    """Sums of review vectors of each node, over chunks of distinct vectors in any order.

    Args:
        node: Node of each review.
        row: Which vector each of these reviews has.
        weight: Of each of these reviews.
        n_nodes: Number of nodes.
        n_rows: Number of vectors.
        text_dim: Length of a vector.
    """

    def __init__(
        self,
        node: Int[ndarray, " reviews"],
        row: Int[ndarray, " reviews"],
        weight: Float[ndarray, " reviews"],
        n_nodes: int,
        n_rows: int,
        text_dim: int,
    ) -> None:
        by_row = np.argsort(row, kind="stable")
        self.node, self.weight = node[by_row], weight[by_row]
        self.end = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=n_rows))])
        self.total = np.zeros((n_nodes, text_dim))
        self.weight_of_node = np.bincount(node, weights=weight, minlength=n_nodes)
        self.heard = np.zeros(n_nodes)  # the same of vectors that are not zero

    def add(self, rows: Int[ndarray, " chunk"], vectors: Float[ndarray, "chunk text_dim"]) -> None:
        """Add the vectors of a chunk to the nodes whose reviews have them.

        Args:
            rows: Which vectors these are.
            vectors: float64.
        """
        n = self.end[rows + 1] - self.end[rows]
        local = np.repeat(np.arange(len(rows)), n)
        review = np.arange(len(local)) + np.repeat(self.end[rows] - np.cumsum(n) + n, n)
        node, at = np.unique(self.node[review], return_inverse=True)
        chosen = csr_array((self.weight[review], (at, local)), shape=(len(node), len(rows)))
        self.total[node] += chosen @ vectors
        self.heard[node] += (chosen @ np.asarray(vectors.any(1, keepdims=True), dtype=np.float64))[:, 0]

    def mean(self) -> Float[ndarray, "n_nodes text_dim"]:
        """Return the weighted mean of each node, zero where it has no vector; the sums are used up."""
        self.total /= np.maximum(self.weight_of_node, 1e-300)[:, None]
        return self.total


def _column(corpus: Corpus, name: str, what: str) -> Float[ndarray, " table_rows"]:
    column = corpus.table[name].cast(pl.Float64)
    if column.null_count() == len(column):
        raise DataError(
            f"Profiles weighted by {what} need the column {name!r}, which is empty in every train review. Name it "
            f"with --columns {name}=COLUMN, or leave {what} out of --profile."
        )
    return column.to_numpy()


def _by_text(corpus: Corpus, value: Float[ndarray, " texts"]) -> Float[ndarray, " table_rows"]:
    out = np.ones(len(corpus.table))
    out[corpus.review] = value[corpus.text]
    return out
