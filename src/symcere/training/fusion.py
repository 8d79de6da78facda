"""How much the text counts: asked of valid once the towers are learned."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from symcere.data.dataset import Dataset, HeldOut
from symcere.graph import NormAdj, norm_adj, propagate
from symcere.recommender import Recommender, with_unit_spread
from symcere.text.features import TextFeatures
from symcere.towers import Towers
from symcere.training.tuning import OfUsers, of_users

LADDERS = ((1 / 2, 1 / 4, 1 / 8, 1 / 64), (2.0, 4.0))
"""How often the weights of all text are counted, instead of once; each ladder is climbed while valid NDCG@10 rises,
or the ranks are clearly better than counted once.
1/64 is as good as nothing for whom the graph knows, and all there is of whom it does not."""

ERRORS = 2.0
"""Standard errors of the mean gain in NDCG@10, over the users of valid, from which on a direction is believed; at any
step of a ladder, for a short one changes few lists and is sooner told apart from noise than the best one."""

RANK_ERRORS = 3.0
"""The same for the log of the rank, which knows several times as much: where reviews are noise it is 5 to 11 standard
errors ahead, so that there is power to spare for not being fooled where they are not."""

MISSED = 1.0
"""Standard errors of the log of the rank by which a 64th of the text has to be worse than all of it; text that is not
missed more than that may say nothing, and all is learned once more to find out."""


class Checked(NamedTuple):
    """What valid says of the text of a system.

    Args:
        system: The system itself; or one of the same towers in which all text counts another number of times, and its
            dial.
        in_the_way: Whether text has to count less, or would not be missed.
    """

    system: Recommender
    in_the_way: bool


def check_text(
    system: Recommender,
    train: Dataset,
    text: TextFeatures,
    valid: HeldOut,
    popularity_weights: Sequence[float],
    adj: NormAdj | None = None,
) -> Checked:
    """Let text count less or more than its weights say, where that is clearly better on valid.

    Weights that suit a shop of short histories are too large where histories are long or reviews are noise, and the
    joined vectors are worse then than those of the graph alone. Small data, on which a choice would fit the noise of
    valid, keeps its weights: nothing there is clearly better. What is taken is the best by NDCG@10; whether a
    direction is clear, the rank over all items says sooner.

    Args:
        system: A fitted SymCERE, its dial set.
        train: Its train part.
        text: Its profiles.
        valid: What decides.
        popularity_weights: Dials tried with each.
        adj: Its graph on the processor, where it is at hand; made anew otherwise.

    Returns:
        What becomes of the system, and whether its text is in the way.
    """
    towers = system.towers
    if towers is None or not (towers.text_weight or towers.propagated_weight or towers.neighbourhood_weight):
        return Checked(system, in_the_way=False)
    if not (text.user.any() or text.item.any()):  # there is nothing to count
        return Checked(system, in_the_way=False)
    parts = _parts_of(towers, text, _graph(train, adj))
    before = of_users(system, [system.popularity_weight, *popularity_weights], train, valid)

    def counted(times: float) -> _Counted:
        other = _joined(system, towers, parts, times)
        asked = of_users(other, popularity_weights, train, valid)
        dial = int(asked.ndcg.mean(1).argmax())
        other = other.with_popularity_weight(popularity_weights[dial])
        return _Counted(other, asked.ndcg[dial], _log_rank(before) - _log_rank(asked))

    rises: dict[float, ndarray] = {}
    for ladder in LADDERS:
        best, highest, is_clear = system, before.ndcg[0].mean(), False
        for times in ladder:
            other, ndcg, rises[times] = counted(times)
            ranks_clearly = _is_clear(rises[times], RANK_ERRORS)
            is_clear |= ranks_clearly or _is_clear(ndcg - before.ndcg[0], ERRORS)
            if ndcg.mean() > highest:
                best, highest = other, ndcg.mean()
            elif not ranks_clearly:
                break
        if best is not system:
            break
    if best is not system and is_clear:
        return Checked(best, counts_less(best))
    least = LADDERS[0][-1]
    return Checked(system, _is_clear(rises[least] if least in rises else counted(least).rises, -MISSED))


def count_text(
    system: Recommender, train: Dataset, text: TextFeatures, times: float, adj: NormAdj | None = None
) -> Recommender:
    """Let all text count so many times; its dial stays.

    Args:
        system: A fitted SymCERE.
        train: Its train part.
        text: Its profiles.
        times: How often; 1 as its weights say.
        adj: As of `check_text`.

    Returns:
        The system itself; or one of the same towers in which all text counts that many times.
    """
    towers = system.towers
    if towers is None or times == 1:
        return system
    return _joined(system, towers, _parts_of(towers, text, _graph(train, adj)), times)


def counts_less(system: Recommender) -> bool:
    """Whether valid let all text of a system count less than its weights say."""
    return system.towers is not None and system.towers.text_times < 1


def learned_apart(system: Recommender) -> Recommender:
    """The system, which says of itself that its graph and its text were learned apart."""
    assert system.towers is not None  # the caller fitted SymCERE
    return dataclasses.replace(system, towers=dataclasses.replace(system.towers, apart=True))


def _graph(train: Dataset, adj: NormAdj | None) -> NormAdj:
    """The graph that is at hand, or one made anew."""
    return adj or norm_adj(train.user, train.item, len(train.users), len(train.items))


def _log_rank(asked: OfUsers) -> Float[ndarray, " users"]:
    """Log of the rank with the dial where it is best."""
    return np.asarray(asked.log_rank[asked.log_rank.mean(1).argmin()])


def _is_clear(gain: Float[ndarray, " users"], errors: float) -> bool:
    return len(gain) > 1 and bool(gain.mean() > errors * gain.std(ddof=1) / np.sqrt(len(gain)))


class _Counted(NamedTuple):
    """A system with its text counted otherwise, at its best dial; what valid says of it, user by user."""

    system: Recommender
    ndcg: Float[ndarray, " users"]
    rises: Float[ndarray, " users"]  # by so much in the log of the rank


class _Parts(NamedTuple):
    """Vectors of all nodes by the graph tower; those of the text with their weights; those of the third tower."""

    graph: Float[ndarray, "nodes dim"]
    text: Float[ndarray, "nodes dim"]
    near: Float[ndarray, "nodes near_dim"]


def _parts_of(towers: Towers, text: TextFeatures, adj: NormAdj) -> _Parts:
    def average(x: ndarray, *, include_ego: bool = False) -> ndarray:
        rows = torch.from_numpy(np.ascontiguousarray(x))
        return propagate(adj, rows, towers.n_layers, include_ego=include_ego).numpy()

    sides = (text.user, text.item)
    joined = towers.text_weight * towers.scaled(np.concatenate([towers.project(side) for side in sides]))
    if towers.propagated_weight:
        sent = np.concatenate([towers.text_sent(side) for side in sides])
        joined += towers.propagated_weight * towers.heard(average(sent))
    near = np.concatenate([towers.project_near(side) for side in sides])
    return _Parts(
        towers.scaled(average(towers.layer0, include_ego=towers.include_ego)),
        joined,
        towers.scaled(average(near, include_ego=True)) if near.shape[1] else near,
    )


def _joined(system: Recommender, towers: Towers, parts: _Parts, times: float) -> Recommender:
    """The system with all of its text counted so many times."""
    counted = towers.counting_text(times)
    served = counted.scaled(parts.graph + np.float32(times) * parts.text)
    if parts.near.shape[1]:
        served = counted.beside(served, parts.near)
    user_emb, item_emb = np.split(served, [len(system.users)])
    joined = dataclasses.replace(system, user_emb=user_emb, item_emb=item_emb, towers=counted)
    return joined if towers.unit else with_unit_spread(joined)
