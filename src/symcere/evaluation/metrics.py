"""The metrics, one definition each: NumPy arrays in, values out. The formulas stand in docs/metrics.md.

`hits` marks the relevant items of a ranking (users x k), best first; `n_relevant` counts all relevant items
of each user, at least 1. No function here ever sees a score.
"""

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

Hits = Bool[ndarray, "users k"]
PerUser = Float[ndarray, " users"]
Counts = Int[ndarray, " users"]
Ranking = Int[ndarray, "users k"]
Popularity = Float[ndarray, " n_items"]


def recall(hits: Hits, n_relevant: Counts) -> PerUser:
    """Share of each user's relevant items found in the first k: hits / n_relevant. Two of four found -> 0.5."""
    return np.asarray(hits.sum(1) / n_relevant)


def precision(hits: Hits) -> PerUser:
    """Share of the first k that is relevant: hits / k, also where fewer than k items could be ranked."""
    return np.asarray(hits.sum(1) / hits.shape[1])


def hit_rate(hits: Hits) -> PerUser:
    """1 where at least one relevant item is in the first k, else 0."""
    return np.asarray(hits.any(1), dtype=np.float64)


def ndcg(hits: Hits, n_relevant: Counts) -> PerUser:
    """Discounted gain over the ideal one, binary gains: sum 1/log2(rank + 1), ideal cut at min(k, n_relevant).

    Args:
        hits: Relevant items of the ranking.
        n_relevant: Relevant items of each user.

    Returns:
        Values in 0..1; hits at ranks 2 and 5 of 5 with 7 relevant give 0.34519.

    Source:
        Järvelin and Kekäläinen, TOIS 2002, with the logarithm of trec_eval.
    """
    discount = 1 / np.log2(np.arange(2, hits.shape[1] + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discount)])
    return np.asarray(hits @ discount / ideal[np.minimum(n_relevant, hits.shape[1])])


def mrr(hits: Hits) -> PerUser:
    """1 / rank of the first relevant item; 0 where none is in the first k."""
    return np.where(hits.any(1), 1 / (hits.argmax(1) + 1), 0.0)


def average_precision(hits: Hits, n_relevant: Counts) -> PerUser:
    """Mean over min(k, n_relevant) of the precision at each relevant rank.

    Args:
        hits: Relevant items of the ranking.
        n_relevant: Relevant items of each user.

    Returns:
        Values in 0..1; 1 when all of the first min(k, n_relevant) items are relevant.
    """
    at = np.arange(1, hits.shape[1] + 1)
    found = (hits * hits.cumsum(1) / at).sum(1)
    return np.asarray(found / np.minimum(n_relevant, hits.shape[1]))


def arp(ranking: Ranking, popularity: Popularity) -> PerUser:
    """Average recommendation popularity: mean train degree of the items recommended to each user.

    Args:
        ranking: Item indices; -1 for none.
        popularity: Train interactions of each item.

    Returns:
        Interactions; 0 for a user to whom nothing is recommended.
    """
    there = ranking >= 0
    total = (popularity[ranking] * there).sum(1)
    return np.asarray(total / np.maximum(there.sum(1), 1))


def exposure(ranking: Ranking, n_items: int) -> Int[ndarray, " n_items"]:
    """How often each item is recommended."""
    return np.bincount(ranking[ranking >= 0], minlength=n_items)


def coverage(ranking: Ranking, n_items: int) -> float:
    """Share of all items that are recommended to at least one user."""
    return float((exposure(ranking, n_items) > 0).mean())


def gini(ranking: Ranking, n_items: int) -> float:
    """Gini index of exposure: 0 when every item is recommended equally often, towards 1 when one takes all.

    Args:
        ranking: Item indices; -1 for none.
        n_items: Number of items.

    Returns:
        sum_i (2i - n - 1) x_i / (n sum x) over exposures x in ascending order; 0 when nothing is recommended.
    """
    x = np.sort(exposure(ranking, n_items))
    total = x.sum()
    return float(((2 * np.arange(1, n_items + 1) - n_items - 1) * x).sum() / (n_items * total)) if total else 0.0


def popularity_group(popularity: Popularity) -> Int[ndarray, " n_items"]:
    """Group of each item by share of train interactions: 0 head (first 50 %), 1 mid (next 30 %), 2 tail.

    Args:
        popularity: Train interactions of each item.

    Returns:
        0, 1 or 2 per item; the most popular item is always head, an item never seen in train always tail.
    """
    order = np.argsort(-popularity, kind="stable")
    before = np.concatenate([[0.0], np.cumsum(popularity[order])[:-1]]) / max(popularity.sum(), 1)
    group = np.empty(len(popularity), dtype=np.int64)
    group[order] = np.where(before < 0.5, 0, np.where(before < 0.8, 1, 2))
    group[popularity == 0] = 2
    return group


def group_recall(
    ranking: Ranking, hits: Hits, relevant_item: Int[ndarray, " relevant"], group: Int[ndarray, " n_items"]
) -> Float[ndarray, "3"]:
    """Share of all held-out interactions with head, mid and tail items that are found (pooled over users).

    Args:
        ranking: Item indices; -1 for none.
        hits: Relevant items of the ranking.
        relevant_item: Item of every held-out interaction.
        group: Group of each item, 0, 1 or 2.

    Returns:
        Recall of head, mid and tail; 0 for a group without held-out interactions.
    """
    found = np.bincount(group[ranking[hits]], minlength=3)
    return found / np.maximum(np.bincount(group[relevant_item], minlength=3), 1)


def pop_reo(recall_by_group: Float[ndarray, "groups"]) -> float:
    """Popularity-rank-based equal opportunity: standard deviation over mean of the groups' recalls; 0 is fair.

    Args:
        recall_by_group: Recall of each group that has held-out interactions: head, mid and tail, or fewer.

    Returns:
        At least 0; 0 when nothing is found at all, or there is but one group.

    Source:
        Zhu et al., Measuring and Mitigating Item Under-Recommendation Bias, SIGIR 2020.
    """
    mean = recall_by_group.mean() if len(recall_by_group) else 0.0
    return float(recall_by_group.std() / mean) if mean > 0 else 0.0
