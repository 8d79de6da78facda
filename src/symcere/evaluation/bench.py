"""What many data sets say together: one system against its baselines and its own twins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from symcere.errors import ConfigError
from symcere.evaluation.compare import Report
from symcere.evaluation.report import DECISIVE
from symcere.evaluation.significance import (
    Friedman,
    MeanTest,
    PairedTest,
    friedman,
    holm,
    mean_test,
    nemenyi,
    paired_tests,
)

ALPHA = 0.05
"""The level of every test."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """Test results of several systems on one data set under one split.

    Args:
        dataset: Name of the data set.
        split: Name of the split.
        seeds: Seeds of split and fit, in the order of the report's `by_seed`.
        report: Values of every user and means of every seed.
        settings: System -> the settings that its search chose, as JSON values.
        valid: System -> mean valid NDCG@10.
        seconds: System -> mean seconds to fit.
        dials: System -> chosen popularity weight of each seed.
        n_users: Users of the split.
        n_items: Items of the split.
        n_reviews: Reviews after the filters.
        warnings: What results on this split cannot promise.
        skipped: System -> why it was left out.
        controls: Ours and its twins where these have fewer seeds: what each part is worth is told by these alone.
    """

    dataset: str
    split: str
    seeds: tuple[int, ...]
    report: Report
    settings: Mapping[str, Mapping[str, Any]]
    valid: Mapping[str, float]
    seconds: Mapping[str, float]
    dials: Mapping[str, Sequence[float]]
    n_users: int
    n_items: int
    n_reviews: int
    warnings: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)
    controls: "Outcome | None" = None

    @property
    def with_twins(self) -> "Outcome":
        """The results that hold ours and its twins under the same seeds."""
        return self.controls or self

    @property
    def name(self) -> str:
        """Data set and split."""
        return f"{self.dataset} ({self.split})"

    def has(self, system: str) -> bool:
        """Whether the system was measured here."""
        return system in self.report.values

    def mean(self, system: str, label: str = DECISIVE) -> float:
        """Mean over seeds; not a number where the system, or the measure, is missing."""
        return self.report.mean(system, label) if label in self.report.by_seed.get(system, {}) else float("nan")

    def per_user(self, system: str, label: str = DECISIVE) -> Float[ndarray, " users"]:
        """One value a user.

        Args:
            system: A system.
            label: A per-user measure.

        Returns:
            Values in the order of the report's users.

        Raises:
            ConfigError: If the system was not measured here, or the measure is not one value a user.
        """
        if not self.has(system):
            raise ConfigError(f"{system} must be measured on {self.name}; found {', '.join(self.report.systems)}.")
        value = self.report.values[system].get(label)
        if not isinstance(value, ndarray):
            raise ConfigError(
                f"{label} must be one value a user for paired tests, as ndcg is; it is not on {self.name}."
            )
        return value


@dataclass(frozen=True)
class Comparison:
    """Ours against one other system on one data set.

    Args:
        test: The paired test of ours - other.
        p_t: p of its t test after Holm's correction over the family.
        p_wilcoxon: p of its Wilcoxon test after Holm's correction over the same family.
        family: Number of tests in the family.
    """

    test: PairedTest
    p_t: float
    p_wilcoxon: float
    family: int

    @property
    def verdict(self) -> str:
        """A win or a loss where the t test is significant after Holm, else tie."""
        if self.p_t >= ALPHA or not self.test.difference:
            return "tie"
        return "win" if self.test.difference > 0 else "loss"


def against(outcome: Outcome, ours: str, others: Sequence[str], label: str = DECISIVE) -> dict[str, Comparison]:
    """Test ours against each of the others on one data set: these tests are one family for Holm's correction.

    Args:
        outcome: The results of one data set under one split.
        ours: The system of interest.
        others: Whom it is compared with; those that were not measured are left out, and out of the family.
        label: A per-user measure.

    Returns:
        Other system -> comparison.

    Raises:
        ConfigError: If ours was not measured, or the measure is not one value a user.
    """
    own = outcome.per_user(ours, label)
    there = [name for name in others if outcome.has(name)]
    if not there:
        return {}
    tests = paired_tests(own, np.stack([outcome.per_user(name, label) for name in there], axis=1))
    p_t, p_wilcoxon = holm([test.p_t for test in tests]), holm([test.p_wilcoxon for test in tests])
    return {
        name: Comparison(test, t, wilcoxon, len(there))
        for name, test, t, wilcoxon in zip(there, tests, p_t, p_wilcoxon, strict=True)
    }


@dataclass(frozen=True, eq=False)
class Summary:
    """Several data sets together. A data set counts once: where it has several splits, they are averaged first.

    Args:
        label: What was measured.
        ours: The system of interest.
        baselines: Whom it is compared with.
        outcomes: The results; every figure below is over these.
        tests: For each outcome, baseline -> comparison; Holm's family is the baselines of that outcome.
        missing: System -> names of the outcomes that lack it; it is in no mean and no rank.
        means: Complete system -> mean over data sets.
        friedman: The test over data sets of the complete systems, in the order of `means`; none for one data set.
        critical_difference: Nemenyi's for their average ranks, at 5 %; none for one data set.
        mean_tests: Baseline -> (test of ours - baseline in the mean over data sets, p after Holm over baselines).
    """

    label: str
    ours: str
    baselines: tuple[str, ...]
    outcomes: tuple[Outcome, ...]
    tests: tuple[Mapping[str, Comparison], ...]
    missing: Mapping[str, tuple[str, ...]]
    means: Mapping[str, float]
    friedman: Friedman | None
    critical_difference: float | None
    mean_tests: Mapping[str, tuple[MeanTest, float]]

    @property
    def datasets(self) -> list[str]:
        """Names, in the order given, each once."""
        return list(dict.fromkeys(outcome.dataset for outcome in self.outcomes))

    @property
    def ranks(self) -> dict[str, float]:
        """Complete system -> average rank over data sets; empty for one data set."""
        return dict(zip(self.means, self.friedman.ranks, strict=True)) if self.friedman else {}

    @cached_property
    def win_tie_loss(self) -> dict[str, tuple[int, int, int]]:
        """Baseline -> on how many outcomes ours is significantly ahead, not significantly apart, and behind."""
        counts = {}
        for name in self.baselines:
            verdicts = [tests[name].verdict for tests in self.tests if name in tests]
            counts[name] = (verdicts.count("win"), verdicts.count("tie"), verdicts.count("loss"))
        return counts

    @property
    def total(self) -> tuple[int, int, int]:
        """Wins, ties and losses over all baselines and outcomes."""
        win, tie, loss = (sum(counts[at] for counts in self.win_tie_loss.values()) for at in range(3))
        return win, tie, loss

    def gain(self, baseline: str) -> float:
        """Relative gain of ours in the mean over data sets, 0.1 for 10 %; over the data sets that have both.

        Args:
            baseline: The other system.

        Returns:
            Mean of ours / mean of the baseline - 1; not a number where the latter is 0 or missing.
        """
        there = [outcome for outcome in self.outcomes if outcome.has(baseline)]
        base = over_means(there, baseline, self.label)
        return over_means(there, self.ours, self.label) / base - 1 if base else float("nan")

    def gains(self, baseline: str) -> list[float]:
        """Relative gain of ours on each outcome; not a number where the baseline has 0 or is missing."""
        bases = [outcome.mean(baseline, self.label) for outcome in self.outcomes]
        own = [outcome.mean(self.ours, self.label) for outcome in self.outcomes]
        return [mine / base - 1 if base else float("nan") for mine, base in zip(own, bases, strict=True)]

    @property
    def best_baseline(self) -> str | None:
        """The complete baseline with the highest mean: the hardest to beat, chosen after the fact."""
        complete = [name for name in self.baselines if name in self.means]
        return max(complete, key=lambda name: self.means[name]) if complete else None

    def apart(self, baseline: str) -> bool:
        """Whether the average ranks of ours and the baseline differ by the critical difference or more."""
        if self.critical_difference is None or baseline not in self.ranks:
            return False
        return abs(self.ranks[self.ours] - self.ranks[baseline]) >= self.critical_difference


def over_datasets(
    outcomes: Sequence[Outcome],
    ours: str,
    baselines: Sequence[str],
    label: str = DECISIVE,
    *,
    tests: Sequence[Mapping[str, Comparison]] | None = None,
) -> Summary:
    """Say what several data sets say together: means, ranks, wins, gains, and how sure they are.

    Args:
        outcomes: One or more results; those of the same data set are averaged before they are ranked, because
            Friedman's test needs independent blocks.
        ours: The system of interest; every outcome must have it.
        baselines: Whom it is compared with; one that an outcome lacks is in no mean and no rank, and is named.
        label: A per-user measure.
        tests: What `against` says of each outcome, where it is known already.

    Returns:
        The summary.

    Raises:
        ConfigError: If there is no outcome, one lacks ours, or two are of the same data set and split.
    """
    if not outcomes:
        raise ConfigError("A summary needs the outcome of at least one data set.")
    names = [outcome.name for outcome in outcomes]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(
            f"Each data set and split must stand once; {twice} stands twice. Join its seeds in one report."
        )
    if tests is None:
        tests = [against(outcome, ours, baselines, label) for outcome in outcomes]
    lacking = {name: tuple(outcome.name for outcome in outcomes if not outcome.has(name)) for name in baselines}
    missing = {name: lacks for name, lacks in lacking.items() if lacks}
    complete = [ours, *(name for name in baselines if name not in missing)]
    groups = list(_by_dataset(outcomes).values())
    values = np.array([[over_means(group, name, label) for name in complete] for group in groups])
    enough = len(groups) > 1 and len(complete) > 1
    return Summary(
        label=label,
        ours=ours,
        baselines=tuple(baselines),
        outcomes=tuple(outcomes),
        tests=tuple(tests),
        missing=missing,
        means={name: float(mean) for name, mean in zip(complete, values.mean(0), strict=True)},
        friedman=friedman(values) if enough else None,
        critical_difference=nemenyi(len(complete), len(groups), alpha=ALPHA) if enough else None,
        mean_tests=mean_tests(outcomes, ours, baselines, label),
    )


def mean_tests(
    outcomes: Sequence[Outcome], ours: str, others: Sequence[str], label: str = DECISIVE
) -> dict[str, tuple[MeanTest, float]]:
    """Test ours against each of the others in the mean over data sets: one family for Holm's correction.

    Args:
        outcomes: The results; a user counts once in a data set, with the mean of the user's splits.
        ours: The system of interest.
        others: Whom it is compared with; each over the outcomes that have it, left out where none has.
        label: A per-user measure.

    Returns:
        Other system -> (test, p after Holm).
    """
    tests = {}
    for name in others:
        there = [outcome for outcome in outcomes if outcome.has(name)]
        if there:
            groups = _by_dataset(there).values()
            tests[name] = mean_test([_user_differences(group, ours, name, label) for group in groups])
    adjusted = holm([test.p for test in tests.values()])
    return {name: (test, p) for (name, test), p in zip(tests.items(), adjusted, strict=True)}


def over_means(outcomes: Sequence[Outcome], system: str, label: str = DECISIVE) -> float:
    """Mean of a system over data sets, each counting once; not a number where it is missing from one."""
    groups = _by_dataset(outcomes).values()
    means = [np.mean([outcome.mean(system, label) for outcome in group]) for group in groups]
    return float(np.mean(means)) if means else float("nan")


def _by_dataset(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.dataset, []).append(outcome)
    return groups


def _user_differences(group: Sequence[Outcome], ours: str, other: str, label: str) -> Float[ndarray, " _"]:
    """One number a user whose mean is the mean over splits of the mean difference over each split's users."""
    ids = [np.asarray(outcome.report.users) for outcome in group]
    users = np.unique(np.concatenate(ids))
    total = np.zeros(len(users))
    for tested, outcome in zip(ids, group, strict=True):
        difference = outcome.per_user(ours, label) - outcome.per_user(other, label)
        total[np.searchsorted(users, tested)] += difference * len(users) / len(tested) / len(group)
    return total
