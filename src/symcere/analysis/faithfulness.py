"""Is a reason true? Words that are said to carry a score are taken away, and the score is computed again.

For a recommendation, the words of the item's reviews are put in an order. Deletion removes them one after the other
from all of the item's reviews, insertion begins without any and adds them; the score is taken at some shares of the
words, and the area between the curves of two orders is how much more one moves it. Beside the order of the reasons
stands the same order with words exchanged at random within each level of document frequency.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from symcere import rng
from symcere.analysis.why import Explainer, Profile
from symcere.ranking import rank

SHARES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
"""Shares of an item's words that are deleted or inserted."""

ORDERS = ("reasons", "corpus anchors", "random of the same frequency")
"""Orders of words: by the drop of this very score; by the weights of the corpus-level lexicon; at random."""

_DRAWS = 4  # random orders of each recommendation, their curves averaged
_K = 10  # recommendations of a user that one is drawn from


@dataclass(frozen=True, eq=False)
class Curves:
    """Scores along the deletion and insertion of words.

    Args:
        deletion: Order -> score above that with all words deleted; a row a recommendation, a column a share.
        insertion: Likewise, from none to all words.
        n_words: Words of each recommendation.
        exact: Whether words were left out of all reviews of the item, not of some that stand for all.
    """

    deletion: Mapping[str, Float[ndarray, "recommendations shares"]]
    insertion: Mapping[str, Float[ndarray, "recommendations shares"]]
    n_words: Int[ndarray, " recommendations"]
    exact: bool = True

    def area(self, kind: str, order: str) -> Float[ndarray, " recommendations"]:
        """Area between the curve of an order and the random one, over the shares: positive if it moves more."""
        curves = self.deletion if kind == "deletion" else self.insertion
        gap = np.trapezoid(curves[order] - curves[ORDERS[2]], SHARES, axis=1)
        return np.asarray(-gap if kind == "deletion" else gap)


def curves(
    explainer: Explainer,
    weights: Mapping[str, float],
    frequency: Callable[[list[str]], Int[ndarray, " words"]],
    *,
    n: int = 150,
    seed: int = 0,
    on_progress: Callable[[float], None] | None = None,
) -> Curves:
    """Delete and insert the words of recommended items.

    Args:
        explainer: Who says why.
        weights: Weight of words in the corpus-level lexicon; a word that is not there comes last.
        frequency: Document frequency of words.
        n: Recommendations: each of another user, drawn by the seed; the item is one of the user's first 10.
        seed: Of the draws.
        on_progress: Told the share done.

    Returns:
        The curves; items whose profile has fewer than 10 words are left out.
    """
    learned, model = explainer.learned, explainer.learned.model
    draws = rng.stream(seed, "faithfulness")
    able = np.flatnonzero(learned.degree[: learned.n_users] > 0)
    users = draws.permutation(able)[:n]
    best = rank(model, users, _K, model.seen)
    kept: dict[str, dict[str, list[ndarray]]] = {kind: {order: [] for order in ORDERS} for kind in ("del", "ins")}
    n_words: list[int] = []
    for place, user in enumerate(users.tolist()):
        items = best[place][best[place] >= 0]
        if on_progress:
            on_progress((place + 1) / len(users))
        if not len(items):
            continue
        item, other = int(draws.choice(items)), learned.final[user]
        profile, drop = explainer.word_drops("item", item, other)
        if len(profile.words) < 10:
            continue
        names = profile.vocabulary
        by_drop = np.argsort(-drop, kind="stable")
        by_weight = np.argsort([-weights.get(name, -np.inf) for name in names], kind="stable")
        level = np.floor(2 * np.log2(np.maximum(frequency(names), 1))).astype(int)
        orders = [by_drop, by_weight, *(_exchanged(by_drop, level, draws) for _ in range(_DRAWS))]
        scores = _scores(explainer, profile, item, other, orders)
        for kind, of_kind in zip(("del", "ins"), scores, strict=True):
            for order, curve in zip(ORDERS, (of_kind[0], of_kind[1], of_kind[2:].mean(0)), strict=True):
                kept[kind][order].append(curve)
        n_words.append(len(names))
    empty = np.zeros((0, len(SHARES)))
    stacked = [
        {order: np.array(curve) if curve else empty for order, curve in of_kind.items()} for of_kind in kept.values()
    ]
    return Curves(stacked[0], stacked[1], np.array(n_words, dtype=np.int64), explainer.reader.exact)


def _exchanged(order: Int[ndarray, " words"], level: Int[ndarray, " words"], draws: np.random.Generator) -> ndarray:
    """The order with the words of each level of document frequency exchanged among themselves."""
    out = order.copy()
    levels = level[order]
    for one in np.unique(levels):
        at = np.flatnonzero(levels == one)
        out[at] = draws.permutation(order[at])
    return out


def _scores(
    explainer: Explainer, profile: Profile, item: int, other: ndarray, orders: list[ndarray]
) -> Float[ndarray, "2 orders shares"]:
    """Score above that without any word, along deletion and insertion in each order."""
    learned = explainer.learned
    n_words = len(profile.words)
    place = np.array([np.argsort(order) for order in orders])  # of each word in each order
    first = np.ceil(np.array(SHARES) * n_words).astype(int)
    deleted = place[:, None, :] < first[:, None]
    gone = np.concatenate([deleted, ~deleted]).reshape(-1, n_words)
    vectors = learned.with_features(learned.n_users + item, profile.without_sets(gone))
    scores = (vectors @ other / learned.model.temperature).reshape(2, len(orders), len(SHARES))
    return np.asarray(scores - scores[:1, :, -1:])
