"""Figure 3 as a small simulation: what does the unit norm do to the objective and the subjective part of a text?

A text is t = a o + b s: its objective part o is what its user likes, plus noise; its subjective part s is anything. a
and b learn by gradient steps on the in-batch NCE between likes and texts, once with cosines and once with inner
products. With these the loss can fall by making a longer and leaving b alone; with cosines only their ratio counts.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float
from numpy import ndarray

from symcere import rng
from symcere.analysis.finding import Finding
from symcere.evaluation.figures import OURS_COLOUR, drawing

_N, _DIM, _NOISE, _STEPS, _RATE, _TEMPERATURE = 256, 16, 0.5, 200, 0.2, 0.35


@dataclass(frozen=True, eq=False)
class Course:
    """How learning went.

    Args:
        share: Objective share a^2 / (a^2 + b^2) of the squared length, before each step and at the end.
        length: Length of (a, b), likewise.
    """

    share: Float[ndarray, " steps"]
    length: Float[ndarray, " steps"]


def learn(share: float, *, unit: bool, seed: int = 0) -> Course:
    """Let the two parts learn.

    Args:
        share: Objective share of the squared length in the beginning, between 0 and 1.
        unit: Whether vectors are compared by cosine.
        seed: Of likes, noise and feelings.

    Returns:
        The course.
    """
    draws = rng.stream(seed, "mechanism")
    likes = _unit(draws.normal(size=(_N, _DIM)))
    objective = _unit(likes + _NOISE * _unit(draws.normal(size=(_N, _DIM))))
    subjective = _unit(draws.normal(size=(_N, _DIM)))
    target = np.concatenate([likes, np.zeros_like(likes)], axis=1)
    # feelings have a little in common with likes by chance: without it b would have no gradient at all
    target = _unit(target + 0.1 * np.concatenate([np.zeros_like(likes), draws.normal(size=(_N, _DIM))], axis=1))

    def loss(parts: ndarray) -> float:
        text = np.concatenate([parts[0] * objective, parts[1] * subjective], axis=1)
        scores = target @ (_unit(text) if unit else text).T / _TEMPERATURE
        own = np.diagonal(scores)
        return float((_log_sum(scores) + _log_sum(scores.T) - 2 * own).mean() / 2)

    parts = np.sqrt(np.array([share, 1 - share]))
    course = [parts]
    for _ in range(_STEPS):
        parts = parts - _RATE * _gradient(loss, parts)
        course.append(parts)
    every = np.array(course)
    squared = every**2
    return Course(squared[:, 0] / squared.sum(1), np.sqrt(squared.sum(1)))


def mechanism_finding(share: float, *, seed: int = 0) -> Finding:
    """Figure 3, begun at a measured share.

    Args:
        share: Objective share of the weight of words, as measured where no training had a say.
        seed: Of the simulation.

    Returns:
        The finding.
    """
    begin = float(np.clip(share, 0.05, 0.95))
    unit, free = (learn(begin, unit=which, seed=seed) for which in (True, False))
    aim = (1 + begin) / 2 if begin < 0.9 else 1 - (1 - begin) / 10
    fast, slow = (_first_above(course.share, aim) for course in (unit, free))
    verdict = (
        "the unit norm puts the weight onto the objective part faster"
        if fast < slow
        else "free lengths put the weight onto the objective part faster"
        if fast > slow
        else "the unit norm makes no difference"
    )
    answer = (
        f"In the simulation, {verdict}: from an objective share of {begin:.2f} it comes to {aim:.2f} in "
        f"{_steps(fast)} with cosines and in {_steps(slow)} with inner products, whose vectors meanwhile grow (to "
        f"{free.length[-1]:.1f} times their length in the end); after {_STEPS} steps the shares are "
        f"{unit.share[-1]:.3f} and {free.share[-1]:.3f}."
    )
    steps = np.arange(_STEPS + 1)
    table = pl.DataFrame(
        {"step": steps, "share, unit norm": unit.share, "share, free length": free.share, "length, free": free.length}
    )
    with drawing(7.2, 2.9, answer) as (figure, text):
        left, right = figure.subplots(1, 2)
        for axes, name, of_unit, of_free in (
            (left, "objective share of squared length", unit.share, free.share),
            (right, "length of (a, b)", unit.length, free.length),
        ):
            axes.plot(steps, of_unit, color=OURS_COLOUR, lw=2.2, label="cosine (unit norm)")
            axes.plot(steps, of_free, color="#d55e00", ls="--", label="inner product")
            axes.set_xlabel("gradient step")
            axes.set_ylabel(name)
            axes.grid(color="#888888", alpha=0.3)
        right.legend(loc="center right")
    return Finding(
        "mechanism",
        "Why would a unit norm push the weight onto facts? (Figure 3, a simulation)",
        answer,
        table,
        text[0],
        0,
        "No data but the share it begins at, the objective share of word weights in the frozen encoder; "
        f"{_N} pairs of {_DIM} + {_DIM} dimensions, plain gradient steps, temperature {_TEMPERATURE}. Whether the "
        "trained model does this on real words is what the first figure measures.",
    )


def _first_above(share: Float[ndarray, " steps"], aim: float) -> int:
    """First step at which a share has come to an aim; one more than there are where it never does."""
    there = np.flatnonzero(share >= aim)
    return int(there[0]) if len(there) else _STEPS + 1


def _steps(n: int) -> str:
    return f"{n} step{'s' * (n != 1)}" if n <= _STEPS else f"more than {_STEPS} steps"


def _gradient(loss: Callable[[ndarray], float], at: Float[ndarray, "2"]) -> Float[ndarray, "2"]:
    """Central differences: there are but two numbers."""
    step = 1e-5
    return np.array([(loss(at + step * e) - loss(at - step * e)) / (2 * step) for e in np.eye(2)])


def _log_sum(scores: Float[ndarray, "rows columns"]) -> Float[ndarray, " rows"]:
    top = scores.max(1, keepdims=True)
    return np.asarray(np.log(np.exp(scores - top).sum(1)) + top[:, 0])


def _unit(x: Float[ndarray, "rows dim"]) -> Float[ndarray, "rows dim"]:
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12))
