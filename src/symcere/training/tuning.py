"""Choices made on valid: the popularity dial, and one of several candidates."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray

from symcere import rng
from symcere.data.dataset import Dataset, HeldOut
from symcere.errors import ConfigError
from symcere.evaluation import metrics
from symcere.ranking import Scorer, places
from symcere.recommender import Recommender, Scored, unit_rows, with_unit_spread
from symcere.training.config import POPULARITY_WEIGHTS
from symcere.workers import ALONE, Workers

System = TypeVar("System", bound=Scored)

_K = 10


def valid_ndcg(system: Scorer, train: Dataset, valid: HeldOut) -> float:
    """Mean NDCG@10 on valid; items seen in train are not ranked. The number that every choice is made by."""
    return float(_of_places(lambda user: [system.score(user)], train, valid).ndcg.mean())


class OfUsers(NamedTuple):
    """What valid says of a system with the dial at each of some values, user by user; users in ascending order.

    NDCG@10 is what counts, and moves with the few lists whose first ten change. The rank over all items moves with
    every list, and tells a change from chance by several times as many standard errors.

    Args:
        ndcg: NDCG@10.
        log_rank: Mean over the held-out items of a user of the log of their rank among all that is ranked, the best
            being 1; lower is better.
    """

    ndcg: Float[ndarray, "dials users"]
    log_rank: Float[ndarray, "dials users"]


def ndcg_of_users(
    system: Scored, popularity_weights: Sequence[float], train: Dataset, valid: HeldOut
) -> Float[ndarray, "dials users"]:
    """NDCG@10 of each user of valid, with the dial at each of some values.

    Args:
        system: Any system with the dial.
        popularity_weights: The values.
        train: Its train part; what users have seen there is not ranked.
        valid: Whose users, and which items they chose.

    Returns:
        A row a dial; users in ascending order.
    """
    return of_users(system, popularity_weights, train, valid).ndcg


def of_users(system: Scored, popularity_weights: Sequence[float], train: Dataset, valid: HeldOut) -> OfUsers:
    """The same, and the rank over all items."""
    return _of_places(lambda user: system.scores_at(user, popularity_weights), train, valid)


def at_best_dial(
    system: System, popularity_weights: Sequence[float], train: Dataset, valid: HeldOut
) -> tuple[System, Float[ndarray, " users"]]:
    """Set the dial of a system to the value that is best on valid; the earlier wins a tie.

    Args:
        system: Any system with the dial.
        popularity_weights: Values to try.
        train: Its train part.
        valid: What decides.

    Returns:
        The system with its dial set, and NDCG@10 of each user of valid.
    """
    values = ndcg_of_users(system, popularity_weights, train, valid)
    best = int(values.mean(axis=1).argmax())
    return system.with_popularity_weight(popularity_weights[best]), values[best]


def check_decides(valid: HeldOut) -> None:
    """ConfigError where valid is empty, and nothing can be chosen by it."""
    if not len(valid.user):
        raise ConfigError("valid holds no interactions, and has to decide when to stop and where the dial is.")


def _of_places(scores_of: Callable[[ndarray], Iterable[ndarray]], train: Dataset, valid: HeldOut) -> OfUsers:
    """The same under several views of the scores."""
    check_decides(valid)
    relevant = valid.matrix
    degree = np.diff(relevant.indptr)
    user = np.repeat(np.arange(len(degree)), degree)
    asked = degree > 0
    ndcg, log_rank = [], []
    for place in places(scores_of, user, relevant.indices, train.seen):
        hits = np.zeros((len(degree), _K), dtype=bool)
        hits[user[place < _K], place[place < _K]] = True
        ndcg.append(metrics.ndcg(hits[asked], degree[asked]))
        log_rank.append(np.bincount(user, np.log1p(place), len(degree))[asked] / degree[asked])
    return OfUsers(np.array(ndcg), np.array(log_rank))


def choose_popularity_weight(
    system: System, train: Dataset, valid: HeldOut, popularity_weights: Sequence[float], workers: Workers = ALONE
) -> tuple[System, float]:
    """Set the dial of a system to the value that is best on valid.

    Args:
        system: Any system with the dial.
        train: Its train part.
        valid: What decides.
        popularity_weights: Values to try; the earlier wins a tie.
        workers: Who shares the work; all have the same system.

    Returns:
        The system with its dial set, and its valid NDCG@10.
    """
    if workers.size == 1:
        system, values = at_best_dial(system, popularity_weights, train, valid)
        return system, float(values.mean())
    users = np.unique(valid.user)
    own = _of_users(valid, users[workers.share(len(users))])
    total = np.zeros(len(popularity_weights))
    if len(own.user):
        total = ndcg_of_users(system, popularity_weights, train, own).sum(axis=1)
    ndcg = workers.sum(torch.from_numpy(total)).numpy() / len(users)
    best = int(ndcg.argmax())
    return system.with_popularity_weight(popularity_weights[best]), float(ndcg[best])


def some_users(held_out: HeldOut, n_users: int, seed: int) -> HeldOut:
    """The pairs of so many users at most, drawn by the seed; all of it where it has no more."""
    users = np.unique(held_out.user)
    if len(users) <= n_users:
        return held_out
    return _of_users(held_out, rng.stream(seed, "valid-users").choice(users, n_users, replace=False))


def _of_users(held_out: HeldOut, users: Int[ndarray, " some"]) -> HeldOut:
    kept = np.isin(held_out.user, users)
    return dataclasses.replace(held_out, user=held_out.user[kept], item=held_out.item[kept])


def choose(candidates: Iterable[System], train: Dataset, valid: HeldOut) -> tuple[System, float]:
    """Return the candidate with the best valid NDCG@10, and that value; the earlier wins a tie.

    Args:
        candidates: At least one; only the best so far is kept in memory.
        train: Their train part.
        valid: What decides.

    Returns:
        The best candidate, and its valid NDCG@10.
    """
    scored = ((candidate, valid_ndcg(candidate, train, valid)) for candidate in candidates)
    return functools.reduce(lambda best, other: other if other[1] > best[1] else best, scored)


def with_unit_rows(system: Recommender, train: Dataset, valid: HeldOut) -> Recommender:
    """Rank by cosine what was trained by inner product; its unit and its dial are chosen anew.

    Args:
        system: Any system of vectors.
        train: Its train part.
        valid: Decides the dial.

    Returns:
        The system on unit rows; zero rows stay.
    """
    user, item = unit_rows(system.user_emb), unit_rows(system.item_emb)
    unit = with_unit_spread(dataclasses.replace(system, user_emb=user, item_emb=item, towers=None))
    return choose_popularity_weight(unit, train, valid, POPULARITY_WEIGHTS)[0]
