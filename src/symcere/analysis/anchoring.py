"""Semantic anchoring: how much of the alignment between a review and its user and item hangs on each of its words.

The alignment of a review r with a node n is what its text has in common with n beyond what it has with anybody:

    a(n, r) = cos(g_n, t(r)) - mean over the nodes m of that side of cos(g_m, t(r)),     t(r) = r's text, projected

A word's drop in r is a(n, r) - a(n, r without the word), mean over the user and the item of r. That is what LIME
estimates from random deletions; here each deletion is computed, exactly (symcere.text.deletion). A word's weight is
the mean drop over the reviews that have it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import csr_array

from symcere import rng
from symcere.analysis.learned import Learned
from symcere.data.dataset import Side
from symcere.recommender import unit_rows
from symcere.text.deletion import Gone
from symcere.text.features import TextFeatures
from symcere.text.reader import Reader, Reviews

N_BOOTSTRAP = 400
"""Resamples behind each interval."""

_BLOCK = 4_096  # variants at a time
_LEAST_DRAWN = 3  # occurrences behind an interval: that of one has no width, and would make any word an anchor


@dataclass(frozen=True, eq=False)
class Lens:
    """One way to look at the alignment of reviews.

    Args:
        name: What the page calls it.
        targets: For user and item of each opened review, what its text is compared with; centred over the side.
        project: Vectors of texts -> the space of the targets.
    """

    name: str
    targets: tuple[Float[ndarray, "reviews dim"], Float[ndarray, "reviews dim"]]
    project: Callable[[Float[ndarray, "texts text_dim"]], Float[ndarray, "texts dim"]]

    def alignment(
        self, place: Int[ndarray, " some"], vectors: Float[ndarray, "some text_dim"]
    ) -> Float[ndarray, " some"]:
        """Alignment of texts with user and item of the reviews at `place`: the mean of both."""
        text = unit_rows(self.project(vectors))
        return np.asarray(sum((target[place] * text).sum(1) for target in self.targets) / 2)


def learned_lens(name: str, learned: Learned, user: Int[ndarray, " reviews"], item: Int[ndarray, " reviews"]) -> Lens:
    """Look through a fit: graph vectors against projected texts."""
    graph, n_users = unit_rows(learned.graph), learned.n_users
    user_side, item_side = graph[:n_users], graph[n_users:]
    targets = (user_side[user] - user_side.mean(0), item_side[item] - item_side.mean(0))
    return Lens(name, targets, learned.towers.project)


def frozen_lens(
    name: str, text: TextFeatures, reader: Reader, reviews: Reviews, user: ndarray, item: ndarray
) -> Lens:
    """Look through the encoder alone: the profile of the node, without the review, against the review."""
    vectors = reviews.vectors()

    def others(side: Side, profiles: ndarray, node: ndarray) -> ndarray:
        share = reader.shares(side)[reviews.reviews][:, reader.block_of_column]
        left = np.maximum(1 - share, 0)
        rest = np.where(left > 1e-6, (profiles[node] - share * vectors) / np.maximum(left, 1e-6), 0)
        return np.asarray(unit_rows(rest) - unit_rows(profiles).mean(0))

    targets = (others("user", text.user, user), others("item", text.item, item))
    return Lens(name, targets, lambda x: x)


@dataclass(frozen=True, eq=False)
class Drops:
    """What leaving out each word of each review does, through several lenses.

    Args:
        vocabulary: Words.
        n_reviews: Opened reviews that have each word, whether the occurrence was drawn or not.
        place: Review of each occurrence, by place among those opened.
        word: Word of each occurrence.
        drop: Lens -> drop of the alignment at each occurrence.
        user: User of each opened review.
        item: Item of each opened review.
    """

    vocabulary: tuple[str, ...]
    n_reviews: Int[ndarray, " words"]
    place: Int[ndarray, " occurrences"]
    word: Int[ndarray, " occurrences"]
    drop: Mapping[str, Float[ndarray, " occurrences"]]
    user: Int[ndarray, " reviews"]
    item: Int[ndarray, " reviews"]


def drops(
    reviews: Reviews,
    lenses: Sequence[Lens],
    *,
    at_most: int | None = None,
    seed: int = 0,
    on_progress: Callable[[float], None] | None = None,
) -> Drops:
    """Leave out every word of every review, once a time.

    Args:
        reviews: The opened reviews.
        lenses: Ways to look; every deletion is computed once for all of them.
        at_most: Occurrences at most, drawn by the seed: for encoders that must read each variant.
        seed: Of the draw.
        on_progress: Told the share done.

    Returns:
        The drops.
    """
    place, word = reviews.occurrences
    n_reviews = np.bincount(word, minlength=len(reviews.vocabulary))
    if at_most is not None and len(place) > at_most:
        kept = np.sort(rng.stream(seed, "occurrences").choice(len(place), at_most, replace=False))
        place, word = place[kept], word[kept]
    whole = reviews.vectors()
    every = np.arange(len(reviews))
    before = {lens.name: lens.alignment(every, whole) for lens in lenses}
    drop = {lens.name: np.empty(len(place)) for lens in lenses}
    for start in range(0, len(place), _BLOCK):
        some = slice(start, start + _BLOCK)
        vectors = reviews.without(place[some], Gone.one_each(word[some]))
        for lens in lenses:
            drop[lens.name][some] = before[lens.name][place[some]] - lens.alignment(place[some], vectors)
        if on_progress:
            on_progress(min((start + _BLOCK) / len(place), 1.0))
    known = reviews.reader.train.known_reviews
    user, item = known.user[reviews.reviews], known.item[reviews.reviews]
    return Drops(reviews.vocabulary, n_reviews, place, word, drop, user, item)


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights of words through one lens.

    Args:
        words: The words, those in too few reviews left out.
        n_reviews: Reviews that have each: its document frequency, also where drops are of a part of them.
        mean: Mean drop over the reviews that have it, as far as they were drawn.
        resampled: The same mean under each resample of the reviews.
    """

    words: tuple[str, ...]
    n_reviews: Int[ndarray, " words"]
    mean: Float[ndarray, " words"]
    resampled: Float[ndarray, "words resamples"]

    @property
    def interval(self) -> tuple[Float[ndarray, " words"], Float[ndarray, " words"]]:
        """95 % bootstrap interval of each mean."""
        low, high = np.quantile(self.resampled, [0.025, 0.975], axis=1)
        return low, high

    @property
    def table(self) -> pl.DataFrame:
        """Words with weight and interval, the surest first: ordered by the lower end."""
        low, high = self.interval
        table = {"word": self.words, "reviews": self.n_reviews, "weight": self.mean, "low": low, "high": high}
        return pl.DataFrame(table).sort("low", "word", descending=[True, False])


def word_weights(found: Drops, lens: str, *, least: int = 10, seed: int = 0) -> Weights:
    """Aggregate drops to weights of words, with intervals over users and items.

    Reviews of one item speak of the same things, and those of one user in the same words; so users and items are
    resampled, and a review counts as often as its user times its item (Owen's pigeonhole bootstrap).

    Args:
        found: The drops.
        lens: Which.
        least: Reviews that a word must be in; three of them, or all where fewer are asked for, must have been drawn.
        seed: Of the resamples, which are the same for every lens.

    Returns:
        The weights.

    Source:
        Owen, The pigeonhole bootstrap, Annals of Applied Statistics 2007; Poisson draws for multinomial ones.
    """
    n_words = len(found.vocabulary)
    drawn = np.bincount(found.word, minlength=n_words)
    kept = np.flatnonzero((found.n_reviews >= least) & (drawn >= min(least, _LEAST_DRAWN)))
    row = np.full(n_words, -1)
    row[kept] = np.arange(len(kept))
    mine = row[found.word] >= 0
    at = (row[found.word[mine]], found.place[mine])
    shape = (len(kept), len(found.user))
    drop = csr_array((found.drop[lens][mine], at), shape=shape)
    there = csr_array((np.ones(int(mine.sum())), at), shape=shape)
    draws = rng.stream(seed, "bootstrap")
    users, items = (draws.poisson(1.0, (int(node.max()) + 1, N_BOOTSTRAP)) for node in (found.user, found.item))
    often = (users[found.user] * items[found.item]).astype(np.float64)
    mean = np.asarray(drop.sum(1)) / np.maximum(drawn[kept], 1)
    n = there @ often
    resampled = np.where(n > 0, (drop @ often) / np.maximum(n, 1), mean[:, None])
    return Weights(tuple(found.vocabulary[word] for word in kept), found.n_reviews[kept], mean, resampled)


@dataclass(frozen=True, eq=False)
class Contrast:
    """Objective against subjective words of the same document frequency.

    Args:
        objective: Mean weight of objective words, in the document frequencies of the subjective ones.
        subjective: Mean weight of subjective words.
        low: Lower end of the 95 % interval of the difference, over users, items and words.
        high: Its upper end.
        above: Probability that an objective word outweighs a subjective one of the same frequency; .5 = neither.
        above_low: Lower end of its interval.
        above_high: Its upper end.
        n_objective: Objective words compared.
        n_subjective: Subjective words compared.
        resampled: `above` under each resample, the same resamples for every lens.
    """

    objective: float
    subjective: float
    low: float
    high: float
    above: float
    above_low: float
    above_high: float
    n_objective: int
    n_subjective: int
    resampled: Float[ndarray, " resamples"] = field(repr=False)


def contrast(
    weights: Weights, objective: Bool[ndarray, " words"], subjective: Bool[ndarray, " words"], *, seed: int = 0
) -> Contrast | None:
    """Compare two classes of words, matched by document frequency.

    Words are put into strata, two a doubling of the document frequency. A stratum counts by its subjective words, and
    only where it has words of both classes.

    Args:
        weights: Weights of words.
        objective: Which are objective.
        subjective: Which are subjective.
        seed: Of the resamples of words; those of reviews are the weights' own.

    Returns:
        The comparison; None where no stratum has both.
    """
    stratum = np.floor(2 * np.log2(np.maximum(weights.n_reviews, 1))).astype(int)
    strata = [
        (np.flatnonzero(objective & (stratum == level)), np.flatnonzero(subjective & (stratum == level)))
        for level in np.unique(stratum)
    ]
    strata = [(a, b) for a, b in strata if len(a) and len(b)]
    if not strata:
        return None
    share = np.array([len(b) for _, b in strata], dtype=float)
    share /= share.sum()

    def compared(value: ndarray, pairs: Sequence[tuple[ndarray, ndarray]]) -> tuple[float, float, float]:
        means = np.array([[value[a].mean(), value[b].mean(), _above(value[a], value[b])] for a, b in pairs])
        one, other, above = share @ means
        return float(one), float(other), float(above)

    draws = rng.stream(seed, "words")
    resampled = np.array(
        [
            compared(
                weights.resampled[:, number], [(draws.choice(a, len(a)), draws.choice(b, len(b))) for a, b in strata]
            )
            for number in range(weights.resampled.shape[1])
        ]
    )
    one, other, above = compared(weights.mean, strata)
    low, high = centred_interval(one - other, resampled[:, 0] - resampled[:, 1])
    above_low, above_high = centred_interval(above, resampled[:, 2])
    n_objective, n_subjective = (sum(len(pair[side]) for pair in strata) for side in (0, 1))
    return Contrast(
        one, other, low, high, above, above_low, above_high, n_objective, n_subjective, resampled[:, 2]
    )  # fmt: skip


def centred_interval(value: float, resampled: Float[ndarray, " resamples"]) -> tuple[float, float]:
    """95 % interval around a value by the spread of its resamples.

    Resampled weights are noisier than the weights themselves, which draws a probability of outweighing towards .5; so
    the resamples are moved to where their median is the value.

    Args:
        value: What was measured.
        resampled: The same under each resample.

    Returns:
        Its ends.
    """
    low, high = np.quantile(resampled, [0.025, 0.975]) - np.median(resampled) + value
    return float(low), float(high)


def recovered_share(weights: Weights, planted: Sequence[str]) -> float:
    """Share of planted words that are anchors: whose interval lies above the weight of every other kind of word.

    A word is an anchor where the lower end of its interval, taken for all planted words at once (Bonferroni), is
    above the mean weight of the words that were not planted, and above 0.

    Args:
        weights: Weights of words.
        planted: Words that the world was made from; those without a weight count as not found.

    Returns:
        0 to 1.
    """
    from scipy.stats import norm

    is_planted = np.isin(weights.words, planted)
    rest = weights.mean[~is_planted].mean() if (~is_planted).any() else 0.0
    low = weights.mean - norm.isf(0.025 / max(len(planted), 1)) * weights.resampled.std(axis=1)
    return float((low[is_planted] > max(rest, 0.0)).sum() / max(len(planted), 1))


def _above(a: Float[ndarray, " a"], b: Float[ndarray, " b"]) -> float:
    """Probability that a value of a is above one of b; ties count half."""
    ordered = np.sort(b)
    return float((np.searchsorted(ordered, a) + np.searchsorted(ordered, a, side="right")).mean() / 2 / len(b))
