"""Choices made on valid: the popularity dial, and one of several candidates."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import TypeVar

from symcere.data.dataset import Dataset, HeldOut
from symcere.evaluation.compare import measure
from symcere.evaluation.measures import mean, ndcg
from symcere.ranking import Scorer
from symcere.recommender import Recommender, Scored, unit_rows, with_unit_spread
from symcere.training.config import POPULARITY_WEIGHTS

System = TypeVar("System", bound=Scored)


def valid_ndcg(system: Scorer, train: Dataset, valid: HeldOut) -> float:
    """Mean NDCG@10 on valid; items seen in train are not ranked. The number that every choice is made by."""
    return mean(measure(system, train, valid, [ndcg(10)], exclude=train.seen)["ndcg@10"])


def choose_popularity_weight(
    system: System, train: Dataset, valid: HeldOut, popularity_weights: Sequence[float]
) -> tuple[System, float]:
    """Set the dial of a system to the value that is best on valid.

    Args:
        system: Any system with the dial.
        train: Its train part.
        valid: What decides.
        popularity_weights: Values to try; the earlier wins a tie.

    Returns:
        The system with its dial set, and its valid NDCG@10.
    """
    return choose((system.with_popularity_weight(weight) for weight in popularity_weights), train, valid)


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
    unit = with_unit_spread(dataclasses.replace(system, user_emb=user, item_emb=item))
    return choose_popularity_weight(unit, train, valid, POPULARITY_WEIGHTS)[0]
