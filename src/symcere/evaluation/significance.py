"""Is the difference real? Over users: paired tests, bootstrap, Holm; over data sets: Friedman and Nemenyi."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from jaxtyping import Float
from numpy import ndarray

from symcere import rng
from symcere.errors import ConfigError


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
    return paired_tests(a, b[:, None], level=level, seed=seed)[0]


def paired_tests(
    a: Float[ndarray, " users"], others: Float[ndarray, "users others"], *, level: float = 0.95, seed: int = 0
) -> list[PairedTest]:
    """Test system a against several others, with the same resamples of users for all.

    Args:
        a: Values of one system; row i of a and of the others is the same user.
        others: Values of the others, a column each.
        level: Coverage of the bootstrap interval.
        seed: Seed of the resampling.

    Returns:
        One test a column, as of `paired_test`; no p is corrected for their number.
    """
    difference = a[:, None] - others
    n = len(difference)
    mean = difference.mean(0) if n else np.zeros(others.shape[1])
    low, high = bootstrap(difference, level=level, seed=seed)
    tests = []
    for j, d in enumerate(difference.T):
        if n < 2 or not d.any():
            tests.append(PairedTest(float(mean[j]), float(mean[j]), float(mean[j]), 1.0, 1.0, n))
            continue
        constant = bool(np.ptp(d) == 0)  # the same non-zero difference everywhere: t is infinite
        p_t = 0.0 if constant else float(scipy.stats.ttest_1samp(d, 0).pvalue)
        p_wilcoxon = float(scipy.stats.wilcoxon(d).pvalue)
        tests.append(PairedTest(float(mean[j]), float(low[j]), float(high[j]), p_t, p_wilcoxon, n))
    return tests


def bootstrap(
    values: Float[ndarray, "users columns"], *, level: float = 0.95, seed: int = 0, n_draws: int = 2_000
) -> tuple[Float[ndarray, " columns"], Float[ndarray, " columns"]]:
    """Interval of the mean of each column: percentiles of the means of resampled users.

    Args:
        values: One row a user; a resample takes whole rows, so columns stay paired.
        level: Coverage.
        seed: Seed of the resampling.
        n_draws: Number of resamples.

    Returns:
        Lower and upper ends; both the mean itself where a column is constant, 0 where there is no user.
    """
    n, n_columns = values.shape
    if not n:
        return np.zeros(n_columns), np.zeros(n_columns)
    draws = rng.stream(seed, "bootstrap")
    means = np.empty((n_draws, n_columns))
    for row in means:
        row[:] = np.bincount(draws.integers(0, n, n), minlength=n) @ values / n
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high


@dataclass(frozen=True)
class MeanTest:
    """A difference between two systems in the mean over data sets, each data set counting once.

    Args:
        difference: Mean over data sets of the mean over users.
        low: Lower end of the 95 % interval.
        high: Upper end.
        p: Two-sided p of no difference on these data sets; users are drawn at random, data sets are not.
        n_datasets: Number of data sets.
    """

    difference: float
    low: float
    high: float
    p: float
    n_datasets: int


def mean_test(differences: Sequence[Float[ndarray, " _"]], *, level: float = 0.95) -> MeanTest:
    """Test the mean over data sets of paired differences, by the normal law: z = mean / standard error.

    Args:
        differences: For each data set, one difference a user; at least one data set.
        level: Coverage of the interval.

    Returns:
        The test; p is 1 where nothing differs.

    Example:
        >>> test = mean_test([np.array([0.0, 2.0]), np.array([1.0, 3.0])])
        >>> round(test.difference, 2), round(test.p, 4)
        (1.5, 0.0339)
    """
    n = len(differences)
    mean = float(np.mean([d.mean() for d in differences]))
    error = float(np.sqrt(sum(d.var(ddof=1) / len(d) for d in differences if len(d) > 1))) / n
    p = 2 * float(scipy.stats.norm.sf(abs(mean) / error)) if error else float(mean == 0)
    half = float(scipy.stats.norm.ppf((1 + level) / 2)) * error
    return MeanTest(mean, mean - half, mean + half, p, n)


def gain_interval(
    own: Sequence[Float[ndarray, " _"]], base: Sequence[Float[ndarray, " _"]], *, level: float = 0.95
) -> tuple[float, float]:
    """Interval of a relative gain in the mean over data sets, each data set counting once.

    Args:
        own: For each data set, one value a user; at least one data set.
        base: Those of another system, of the same users; its mean is not 0.
        level: Coverage.

    Returns:
        Lower and upper end of mean of own / mean of base - 1, 0.1 for 10 %: by the normal law of the log of that
        ratio, paired over users (delta method). Users are drawn at random, data sets are not.

    Example:
        >>> own, base = np.array([0.0, 1.0, 0.5, 0.7]), np.array([0.0, 0.6, 0.1, 0.4])
        >>> [round(end, 2) for end in gain_interval([own], [base])]
        [0.36, 1.94]
    """
    mine, theirs = (float(np.mean([values.mean() for values in side])) for side in (own, base))
    if not mine:
        return -1.0, -1.0
    spread = [a / mine - b / theirs for a, b in zip(own, base, strict=True)]
    error = float(np.sqrt(sum(d.var(ddof=1) / len(d) for d in spread if len(d) > 1))) / len(spread)
    half = float(scipy.stats.norm.ppf((1 + level) / 2)) * error
    return mine / theirs * math.exp(-half) - 1, mine / theirs * math.exp(half) - 1


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


@dataclass(frozen=True)
class Friedman:
    """Do systems differ over data sets, judged by their ranks alone?

    Args:
        chi_square: Friedman's statistic, corrected for ties.
        p: Its p, by chi-square with k - 1 degrees of freedom.
        p_f: p of Iman and Davenport's F of the same ranks, which is less conservative where data sets are few.
        ranks: Average rank of each system; 1 is best, equal values share the mean of their ranks.
        n_datasets: Number of data sets.
    """

    chi_square: float
    p: float
    p_f: float
    ranks: tuple[float, ...]
    n_datasets: int


def friedman(values: Float[ndarray, "datasets systems"]) -> Friedman:
    """Friedman's test over data sets.

    Args:
        values: Value of each system on each data set; higher is better. At least two of each.

    Returns:
        Statistic, p-values and average ranks; p is 1 where all values of each data set are equal.

    Raises:
        ConfigError: If there are fewer than two data sets or systems.

    Source:
        Demšar, Statistical Comparisons of Classifiers over Multiple Data Sets, JMLR 2006.

    Example:
        >>> friedman(np.array([[3.0, 2.0, 1.0], [9.0, 8.0, 8.0]])).ranks
        (1.0, 2.25, 2.75)
    """
    n, k = values.shape
    if n < 2 or k < 2:
        raise ConfigError(f"Friedman's test needs at least 2 data sets and 2 systems; found {n} and {k}. Add some.")
    ranks = scipy.stats.rankdata(-values, axis=1)
    spread = n * float(((ranks.mean(0) - (k + 1) / 2) ** 2).sum())
    total = float(((ranks - (k + 1) / 2) ** 2).sum())
    average = tuple(float(rank) for rank in ranks.mean(0))
    if not total:
        return Friedman(0.0, 1.0, 1.0, average, n)
    chi_square = n * (k - 1) * spread / total
    rest = n * (k - 1) - chi_square
    f = (n - 1) * chi_square / rest if rest > 1e-12 else np.inf
    p_f = float(scipy.stats.f.sf(f, k - 1, (k - 1) * (n - 1)))
    return Friedman(chi_square, float(scipy.stats.chi2.sf(chi_square, k - 1)), p_f, average, n)


def nemenyi(n_systems: int, n_datasets: int, *, alpha: float = 0.05) -> float:
    """Critical difference of average ranks: q * sqrt(k (k + 1) / (6 N)), for all pairs of systems at once.

    Args:
        n_systems: Number of systems k, at least 2.
        n_datasets: Number of data sets N.
        alpha: Chance of finding any difference where there is none.

    Returns:
        Systems whose average ranks differ by at least this much differ significantly.

    Source:
        Demšar, JMLR 2006, table 5: q is the studentised range over sqrt(2).

    Example:
        >>> round(nemenyi(4, 14), 2)
        1.25
    """
    q = float(scipy.stats.studentized_range.ppf(1 - alpha, n_systems, np.inf)) / np.sqrt(2)
    return float(q * np.sqrt(n_systems * (n_systems + 1) / (6 * n_datasets)))
