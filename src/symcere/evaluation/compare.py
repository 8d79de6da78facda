"""Rank every system once on the held-out part, and keep the values of every user."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.sparse import csr_array

from symcere.data.dataset import Dataset, HeldOut, Split, known_matrix
from symcere.errors import ConfigError
from symcere.evaluation.measures import Measure, Ranked, mean
from symcere.evaluation.significance import PairedTest, holm, paired_test
from symcere.ranking import Scorer, hits, rank
from symcere.recommender import Scored

Values = dict[str, Float[ndarray, " users"] | float]


def measure(
    scorer: Scorer, train: Dataset, held_out: HeldOut, measures: Sequence[Measure], *, exclude: csr_array
) -> Values:
    """Rank all items for every user with held-out interactions and compute each measure.

    Args:
        scorer: The system.
        train: For the items' popularity.
        held_out: What counts as relevant; users without held-out interactions are not ranked.
        measures: What to compute.
        exclude: Binary matrix of pairs not to rank: what the user has already seen.

    Returns:
        Label -> one value a user (in the order of their indices), or one number.
    """
    user = np.unique(held_out.user)
    ranking = rank(scorer, user, max(measure.k for measure in measures), exclude)
    return measure_ranked(ranking, user, train, held_out, measures)


def measure_ranked(
    ranking: Int[ndarray, "users k"],
    user: Int[ndarray, " users"],
    train: Dataset,
    held_out: HeldOut,
    measures: Sequence[Measure],
) -> Values:
    """Compute each measure of rankings that were made before.

    Args:
        ranking: Items of each user, best first, -1 where there is none.
        user: The users with held-out interactions, in order.
        train: For the items' popularity.
        held_out: What counts as relevant.
        measures: What to compute.

    Returns:
        Label -> one value a user, or one number.
    """
    relevant = held_out.matrix
    ranked = Ranked(
        ranking=ranking,
        hits=hits(ranking, user, relevant),
        n_relevant=np.diff(relevant.indptr)[user],
        relevant_item=held_out.item,
        popularity=train.popularity,
    )
    return {measure.label: measure.values(ranked) for measure in measures}


def measure_test(scorer: Scorer, split: Split, measures: Sequence[Measure]) -> Values:
    """Measure a system on the test part; what train and valid know of each user is not ranked.

    Args:
        scorer: The system.
        split: The split that it was fitted on.
        measures: What to compute.

    Returns:
        Label -> one value a user (in the order of their indices), or one number.

    Raises:
        ConfigError: If it has learned from test interactions.
    """
    refuse_who_knows_test(scorer, split)
    return measure(scorer, split.train, split.test, measures, exclude=known_matrix(split.train, split.valid))


def refuse_who_knows_test(scorer: Scorer, split: Split) -> None:
    """Refuse to measure a system on what it has learned from.

    Args:
        scorer: A system; one that does not say what it has seen is believed.
        split: The split that it is to be measured on.

    Raises:
        ConfigError: If it has seen test interactions.
    """
    test = split.test.matrix
    if isinstance(scorer, Scored) and scorer.seen.shape == test.shape and (n := (scorer.seen * test).nnz):
        raise ConfigError(
            f"This recommender has learned from {n:,} of {len(split.test):,} test interactions and cannot be "
            "measured on them. Measure one that was fitted on the train part of this split."
        )


@dataclass(frozen=True, eq=False)
class Report:
    """Test results of several systems on the same users.

    Args:
        values: System -> measure label -> one value a user (or one number), averaged over seeds.
        users: User ids of the rows of the per-user values.
        by_seed: System -> measure label -> mean of each seed.
    """

    values: dict[str, Values]
    users: tuple[str, ...]
    by_seed: dict[str, dict[str, list[float]]]

    @property
    def systems(self) -> list[str]:
        """Names, in the order given."""
        return list(self.values)

    @property
    def labels(self) -> list[str]:
        """Labels of the measures."""
        return list(next(iter(self.values.values())))

    def mean(self, system: str, label: str) -> float:
        """Mean over seeds of a measure of a system."""
        return float(np.mean(self.by_seed[system][label]))

    def best(self, label: str, *, among: Sequence[str]) -> str:
        """The system with the highest mean of `label` among some."""
        return max(among, key=lambda system: self.mean(system, label))

    @cached_property
    def table(self) -> pl.DataFrame:
        """One row a system, one column a measure: the means."""
        rows = [{"system": s} | {label: self.mean(s, label) for label in self.labels} for s in self.systems]
        return pl.DataFrame(rows)

    @cached_property
    def per_user(self) -> pl.DataFrame:
        """One row a (system, user), one column a per-user measure."""
        frames = [
            pl.DataFrame(
                {"system": [system] * len(self.users), "user_id": self.users}
                | {label: value for label, value in values.items() if isinstance(value, ndarray)}
            )
            for system, values in self.values.items()
        ]
        return pl.concat(frames)

    def against(self, system: str, label: str) -> dict[str, tuple[PairedTest, float]]:
        """Test one system against each of the others, user by user.

        Args:
            system: The system of interest.
            label: A per-user measure.

        Returns:
            Other system -> (test, p of the t test after Holm's correction over all the others).

        Raises:
            ConfigError: If `label` is not a per-user measure.
        """
        own = self.values[system][label]
        if not isinstance(own, ndarray):
            raise ConfigError(f"{label} is one number a system; a paired test needs values per user, as of ndcg.")
        tests: dict[str, PairedTest] = {}
        for other in self.systems:
            value = self.values[other][label]
            if other != system and isinstance(value, ndarray):
                tests[other] = paired_test(own, value)
        adjusted = holm([test.p_t for test in tests.values()])
        return {other: (test, p) for (other, test), p in zip(tests.items(), adjusted, strict=True)}

    def __str__(self) -> str:
        with pl.Config(tbl_rows=-1, tbl_cols=-1, float_precision=4, tbl_hide_dataframe_shape=True,
                       tbl_hide_column_data_types=True):  # fmt: skip
            return str(self.table)


def compare(systems: Mapping[str, Scorer], split: Split, measures: Sequence[Measure]) -> Report:
    """Measure each system on the test part of one split.

    Args:
        systems: Name -> fitted system.
        split: The split they were fitted on.
        measures: What to compute; ndcg(10), recall(20), ...

    Returns:
        The report; `print(report)` shows the table of means.
    """
    values = {name: measure_test(system, split, measures) for name, system in systems.items()}
    return report_of([(split, values)])


def report_of(runs: Sequence[tuple[Split, Mapping[str, Values]]]) -> Report:
    """Join the results of several seeds: values of a user are averaged over the seeds that tested the user.

    Args:
        runs: One (split, system -> values) for each seed; all with the same users, systems and measures.

    Returns:
        The report.

    Raises:
        ConfigError: If there is no run.
    """
    if not runs:
        raise ConfigError("A report needs the results of at least one seed.")
    tested = [np.unique(split.test.user) for split, _ in runs]
    user = np.unique(np.concatenate(tested))
    users = runs[0][0].train.users
    values: dict[str, Values] = {}
    by_seed: dict[str, dict[str, list[float]]] = {}
    for system, labels in runs[0][1].items():
        values[system], by_seed[system] = {}, {}
        for label, first in labels.items():
            seeds = [result[system][label] for _, result in runs]
            by_seed[system][label] = [mean(value) for value in seeds]
            if isinstance(first, ndarray):
                total, n = np.zeros(len(user)), np.zeros(len(user))
                for rows, value in zip(tested, seeds, strict=True):
                    at = np.searchsorted(user, rows)
                    total[at] += value
                    n[at] += 1
                values[system][label] = total / n
            else:
                values[system][label] = float(np.mean(by_seed[system][label]))
    return Report(values, tuple(users.id(int(u)) for u in user), by_seed)
