"""Is the difference real? Paired tests over users, Holm's correction, bootstrap intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy import stats

from symcere import rng


@dataclass(frozen=True)
class PairedTest:
    """Comparison of two systems on the same users.

    Args:
        difference: Mean of a - b.
        low: Lower end of the bootstrap interval of the difference.
        high: Upper end.
        p_t: Two-sided p of the paired t test (is the mean difference 0?): the one that tables quote.
        p_wilcoxon: Two-sided p of the Wilcoxon signed-rank test; ties at 0 are dropped.
        n_users: Number of pairs.
    """

    difference: float
    low: float
    high: float
    p_t: float
    p_wilcoxon: float
    n_users: int


def paired_test(
    a: Float[ndarray, " users"], b: Float[ndarray, " users"], *, level: float = 0.95, seed: int = 0
) -> PairedTest:
    """Test whether system a differs from system b, user by user.

    Args:
        a: Values of one system; row i of a and b is the same user.
        b: Values of the other.
        level: Coverage of the bootstrap interval (percentiles of 2,000 resamples of users).
        seed: Seed of the resampling.

    Returns:
        Difference, interval and p-values; both p are 1 where the systems agree on every user.
    """
    difference = a - b
    n = len(difference)
    if n < 2 or not difference.any():
        mean = float(difference.mean()) if n else 0.0
        return PairedTest(mean, mean, mean, 1.0, 1.0, n)
    draws = rng.stream(seed, "bootstrap")
    means = np.array([difference[draws.integers(0, n, n)].mean() for _ in range(2_000)])
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    constant = bool(np.ptp(difference) == 0)  # the same non-zero difference everywhere: t is infinite
    return PairedTest(
        difference=float(difference.mean()),
        low=float(low),
        high=float(high),
        p_t=0.0 if constant else float(stats.ttest_rel(a, b).pvalue),
        p_wilcoxon=float(stats.wilcoxon(difference).pvalue),
        n_users=n,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values for their number: Holm's step-down method, valid under any dependence.

    Args:
        p_values: Raw p-values of one family of tests.

    Returns:
        Adjusted values in the same order, never above 1.

    Source:
        Holm, Scandinavian Journal of Statistics 1979.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    scaled = np.asarray(p_values)[order] * np.arange(len(order), 0, -1)
    adjusted = np.empty(len(order))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(scaled))
    return [float(value) for value in adjusted]
