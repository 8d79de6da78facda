"""The tables of a benchmark as plain data, so that Markdown, LaTeX and HTML say the same."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from symcere.evaluation.bench import Comparison, Outcome, Summary, over_means
from symcere.evaluation.report import DECISIVE, p_text
from symcere.evaluation.significance import MeanTest

POPULARITY = ("ndcg@10", "recall@20", "arp@10", "gini@10", "coverage@10", "tail_recall@10")
"""Accuracy beside what is paid for it: mean popularity, inequality of exposure, coverage, and recall of the tail."""

SIGNS = {"win": "▲", "tie": "≈", "loss": "▼"}
"""Behind the value of another system: ours is significantly ahead, not significantly apart, significantly behind."""


@dataclass(frozen=True)
class Cell:
    """One cell: its text, whether it is the best of its column, and a sign behind it."""

    text: str
    best: bool = False
    verdict: str = ""

    @property
    def sign(self) -> str:
        """The sign of the verdict; empty without one."""
        return SIGNS.get(self.verdict, "")


@dataclass(frozen=True)
class Table:
    """A table of any format.

    Args:
        key: A short name for files and labels: letters and hyphens.
        title: What it shows.
        note: What a reader must know.
        head: Names of the columns; the first names the rows.
        rows: Cells of each row.
        ours: The first cell of the row to be marked.
    """

    key: str
    title: str
    note: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    ours: str = ""


def accuracy_table(summary: Summary, *, key: str, by_split: bool = False) -> Table:
    """Means of every system on each data set, in the mean, and average ranks; best first.

    Args:
        summary: Ours and the baselines.
        key: Key of the table.
        by_split: A column for each split, the mean over its data sets, instead of one for each data set.

    Returns:
        The table; each baseline's cell on a data set says how ours compares with it there.
    """
    columns, names = _columns(summary.outcomes, by_split=by_split)
    systems = [summary.ours, *summary.baselines]
    values = {name: [over_means(column, name, summary.label) for column in columns] for name in systems}
    tops = [max(values[name][j] for name in systems if not math.isnan(values[name][j])) for j in range(len(columns))]
    top_mean, ranks = max(summary.means.values()), summary.ranks
    rows = []
    for name in sorted(systems, key=lambda name: -summary.means.get(name, -1.0)):
        cells = [Cell(name)]
        for j, value in enumerate(values[name]):
            verdict = "" if by_split or name not in summary.tests[j] else summary.tests[j][name].verdict
            cells.append(Cell(number(value, "skipped"), value == tops[j], verdict))
        mean = summary.means.get(name, math.nan)
        cells.append(Cell(number(mean), mean == top_mean))
        if ranks:
            cells.append(Cell(f"{ranks[name]:.2f}" if name in ranks else "–", ranks.get(name) == min(ranks.values())))
        rows.append(tuple(cells))
    count = len(summary.baselines)
    note = f"Test {summary.label}, mean over users and seeds. A data set counts once in the mean and in the ranks."
    if not by_split:
        note += (
            f" {SIGNS['win']} {summary.ours} is significantly ahead of this system, {SIGNS['tie']} not significant, "
            f"{SIGNS['loss']} significantly behind: paired t over users, p < 0.05 after Holm over the baselines of "
            f"the data set ({_families(summary.tests)})."
        )
    head = ("system", *names, "mean", *(["rank"] if ranks else []))
    return Table(
        key, f"{summary.label} of {summary.ours} and {count} baselines", note, head, tuple(rows), summary.ours
    )


def gains_table(summary: Summary, *, key: str, by_split: bool = False) -> Table:
    """Relative gain of ours over each baseline: per data set (or split), in the mean, with tests and wins.

    Args:
        summary: Ours and the baselines.
        key: Key of the table.
        by_split: A column for each split.

    Returns:
        The table; the hardest baseline first.
    """
    columns, names = _columns(summary.outcomes, by_split=by_split)
    order = sorted(summary.baselines, key=lambda name: -summary.means.get(name, -1.0))
    rows = []
    for name in order:
        cells = [Cell(name), Cell(percent(summary.gain(name))), *_mean_cells(summary.mean_tests.get(name))]
        cells.append(Cell("–".join(map(str, summary.win_tie_loss[name]))))
        if summary.critical_difference is not None:
            cells.append(Cell(_rank_words(summary, name)))
        for j, column in enumerate(columns):
            base = over_means(column, name, summary.label)
            own = over_means(column, summary.ours, summary.label)
            verdict = "" if by_split or name not in summary.tests[j] else summary.tests[j][name].verdict
            text = "skipped" if math.isnan(base) else percent(own / base - 1 if base else math.nan)
            cells.append(Cell(text, verdict=verdict))
        rows.append(tuple(cells))
    note = (
        f"({summary.ours} / baseline - 1) of {summary.label}; in the mean it is the ratio of the two means. The "
        "interval and p are of the mean difference on these data sets (z over users; p after Holm over the baselines "
        "here, the interval not corrected); "
        "win–tie–loss counts data sets, under each split, by Holm-adjusted paired t; ranks are compared by Nemenyi."
    )
    ranks = ["ranks"] if summary.critical_difference is not None else []
    head = ("baseline", "mean gain", "difference", "95 % interval", "p (Holm)", "win–tie–loss", *ranks, *names)
    return Table(key, f"Gain of {summary.ours} over each baseline", note, head, tuple(rows))


def ablation_table(
    outcomes: Sequence[Outcome],
    ours: str,
    twins: Sequence[str],
    tests: Sequence[Mapping[str, Comparison]],
    means: Mapping[str, tuple[MeanTest, float]],
    *,
    key: str,
    label: str = DECISIVE,
    by_split: bool = False,
) -> Table:
    """Ours minus each twin: what the part that the twin lacks is worth.

    Args:
        outcomes: The results.
        ours: The system of interest.
        twins: Ours without one part each, or with a control in its place.
        tests: For each outcome, twin -> comparison.
        means: Twin -> (test in the mean over data sets, p after Holm over the twins).
        key: Key of the table.
        label: A per-user measure.
        by_split: A column for each split.

    Returns:
        The table.
    """
    columns, names = _columns(outcomes, by_split=by_split)
    rows = []
    for name in twins:
        verdicts = [of_one[name].verdict for of_one in tests if name in of_one]
        counts = (verdicts.count(kind) for kind in SIGNS)
        cells = [Cell(name), *_mean_cells(means.get(name)), Cell("–".join(map(str, counts)))]
        for j, column in enumerate(columns):
            difference = over_means(column, ours, label) - over_means(column, name, label)
            verdict = "" if by_split or name not in tests[j] else tests[j][name].verdict
            cells.append(Cell("skipped" if math.isnan(difference) else f"{difference:+z.4f}", verdict=verdict))
        rows.append(tuple(cells))
    note = (
        f"Test {label} of {ours} minus that of the twin or control. {SIGNS['win']} the part helps "
        f"significantly, {SIGNS['tie']} not significant, {SIGNS['loss']} it harms significantly: paired t, "
        f"p < 0.05 after Holm over the twins of the data set ({_families(tests)}). The p of the mean is by z over "
        "users, Holm over the twins here; its interval is of that one difference, not corrected."
    )
    seeds = {outcome.seeds for outcome in outcomes}
    if len(seeds) == 1:
        note += f" Both under seeds {', '.join(map(str, seeds.pop()))}."
    head = ("twin", "mean difference", "95 % interval", "p (Holm)", "win–tie–loss", *names)
    return Table(key, f"{ours} minus each twin", note, head, tuple(rows))


def popularity_table(outcomes: Sequence[Outcome], systems: Sequence[str], *, key: str, ours: str) -> Table:
    """Accuracy beside popularity and exposure, in the mean over the data sets.

    Args:
        outcomes: One or more results.
        systems: Whom to list.
        key: Key of the table.
        ours: The row to be marked.

    Returns:
        The table.
    """
    values = {name: [over_means(outcomes, name, label) for label in POPULARITY] for name in systems}
    order = sorted(systems, key=lambda name: -values[name][0] if not math.isnan(values[name][0]) else 1.0)
    rows = []
    for name in order:
        texts = [
            f"{v:{'.1f' if label.startswith('arp') else '.4f'}}"
            for v, label in zip(values[name], POPULARITY, strict=True)
        ]
        rows.append((Cell(name), *(Cell("–" if text == "nan" else text) for text in texts)))
    note = (
        "arp: mean train interactions of what is recommended; gini: 0 = every item is recommended equally often; "
        "coverage: share of all items recommended to anybody; tail_recall: recall of held-out interactions with tail "
        "items. – where a system is missing from a data set."
    )
    names = list(dict.fromkeys(outcome.dataset for outcome in outcomes))
    over = f"{len(names)} data sets" if len(names) > 1 else f"the splits of {names[0]}"
    where = outcomes[0].name if len(outcomes) == 1 else f"mean over {over}"
    return Table(key, f"Accuracy and popularity, {where}", note, ("system", *POPULARITY), tuple(rows), ours)


def paired_tests_table(outcome: Outcome, families: Mapping[str, Mapping[str, Comparison]], *, key: str) -> Table:
    """Every paired test of one data set.

    Args:
        outcome: The results.
        families: Name of a family -> other system -> comparison.
        key: Key of the table.

    Returns:
        The table.
    """
    words = {"win": "ahead", "tie": "not significant", "loss": "behind"}
    rows = []
    for family, tests in families.items():
        for name, c in tests.items():
            t = c.test
            texts = (
                name, f"{family} ({c.family})", words[c.verdict], f"{t.difference:+z.4f}", _interval(t.low, t.high),
                p_text(t.p_t), p_text(c.p_t), p_text(t.p_wilcoxon), p_text(c.p_wilcoxon), f"{t.n_users:,}",
            )  # fmt: skip
            rows.append(tuple(Cell(text) for text in texts))
    note = "Interval: percentile bootstrap over users, 2,000 resamples. The verdict is by the Holm-adjusted paired t."
    head = (
        "against", "family (tests)", "verdict", "difference", "95 % interval", "p (t)", "p (t, Holm)", "p (Wilcoxon)",
        "p (Wilcoxon, Holm)", "users",
    )  # fmt: skip
    return Table(key, f"Paired tests, {outcome.name}", note, head, tuple(rows))


def settings_table(outcome: Outcome, *, key: str, ours: str) -> Table:
    """What was chosen on valid, and what it cost.

    Args:
        outcome: The results.
        key: Key of the table.
        ours: The row to be marked.

    Returns:
        The table.
    """
    rows = []
    for name in outcome.report.systems:
        chosen = ", ".join(f"{setting}={value}" for setting, value in outcome.settings.get(name, {}).items())
        dials = ", ".join(f"{dial:g}" for dial in outcome.dials.get(name, ()))
        seconds = outcome.seconds.get(name)
        texts = (number(outcome.valid.get(name, math.nan)), f"{seconds:,.1f}" if seconds is not None else "–", dials)
        rows.append((Cell(name), *(Cell(text) for text in texts), Cell(chosen or "–")))
    note = "Valid is what the search saw. The popularity weight is chosen for each seed."
    head = ("system", f"valid {DECISIVE}", "seconds to fit", "popularity weight", "settings")
    return Table(key, f"Settings, {outcome.name}", note, head, tuple(rows), ours)


def data_table(outcomes: Sequence[Outcome], *, key: str) -> Table:
    """What was measured on: sizes, seeds, and who was skipped.

    Args:
        outcomes: The results.
        key: Key of the table.

    Returns:
        The table.
    """
    rows = []
    for outcome in outcomes:
        counts = (outcome.n_reviews, outcome.n_users, outcome.n_items, len(outcome.report.users))
        seeds, skipped = ", ".join(map(str, outcome.seeds)), ", ".join(outcome.skipped)
        if outcome.controls:
            seeds += f"; twins {', '.join(map(str, outcome.controls.seeds))}"
        texts = (outcome.split, *(f"{count:,}" for count in counts), seeds, skipped or "none")
        rows.append((Cell(outcome.dataset), *(Cell(text) for text in texts)))
    head = ("data set", "split", "reviews", "users", "items", "users tested", "seeds", "skipped systems")
    note = "Users tested are those with held-out items under at least one seed; only they are in means and tests."
    return Table(key, "Data", note, head, tuple(rows))


def results_frame(outcomes: Sequence[Outcome]) -> pl.DataFrame:
    """Every number that is not one user's, in long form.

    Args:
        outcomes: The results.

    Returns:
        One row a (split, dataset, system, seed, measure), with its value.
    """
    rows = [
        (outcome.split, outcome.dataset, system, seed, label, value)
        for whole in outcomes
        for outcome in (whole, *([whole.controls] if whole.controls else []))
        for system, labels in outcome.report.by_seed.items()
        if outcome is whole or not whole.has(system)
        for label, values in labels.items()
        for seed, value in zip(outcome.seeds, values, strict=True)
    ]
    kinds = {"split": pl.String, "dataset": pl.String, "system": pl.String, "seed": pl.Int64, "measure": pl.String}
    return pl.DataFrame(rows, schema=kinds | {"value": pl.Float64}, orient="row")


def paired_frame(
    outcomes: Sequence[Outcome],
    ours: str,
    families: Mapping[str, Sequence[Mapping[str, Comparison]]],
    label: str = DECISIVE,
) -> pl.DataFrame:
    """Every paired test, in long form.

    Args:
        outcomes: The results.
        ours: The system of interest.
        families: Name of a family -> for each outcome, other system -> comparison.
        label: The measure compared.

    Returns:
        One row a (split, dataset, family, other system): difference, interval, raw and adjusted p, verdict.
    """
    rows = [
        (outcome.split, outcome.dataset, label, family, ours, other, t.difference, t.low, t.high,
         t.p_t, c.p_t, t.p_wilcoxon, c.p_wilcoxon, c.family, t.n_users, c.verdict)
        for family, tests in families.items()
        for outcome, of_one in zip(outcomes, tests, strict=True)
        for other, c in of_one.items()
        for t in [c.test]
    ]  # fmt: skip
    words = dict.fromkeys("split dataset measure family system other".split(), pl.String)
    reals = dict.fromkeys("difference low high p_t p_t_holm p_wilcoxon p_wilcoxon_holm".split(), pl.Float64)
    whole = dict.fromkeys("n_tests n_users".split(), pl.Int64)
    return pl.DataFrame(rows, schema={**words, **reals, **whole, "verdict": pl.String}, orient="row")


def number(value: float, missing: str = "–") -> str:
    """Four decimals, or a word where there is no number."""
    return missing if math.isnan(value) else f"{value:.4f}"


def percent(value: float) -> str:
    """A gain with its sign, or a dash where there is none to speak of: 0.1 gives +10.0 %."""
    return "–" if math.isnan(value) else f"{100 * value:+z.1f} %"


def _columns(outcomes: Sequence[Outcome], *, by_split: bool) -> tuple[list[list[Outcome]], list[str]]:
    """The outcomes of each column, and its name."""
    if not by_split:
        unique = len({outcome.split for outcome in outcomes}) == 1
        return [[outcome] for outcome in outcomes], [o.dataset if unique else o.name for o in outcomes]
    splits = list(dict.fromkeys(outcome.split for outcome in outcomes))
    return [[outcome for outcome in outcomes if outcome.split == split] for split in splits], splits


def _families(tests: Sequence[Mapping[str, Comparison]]) -> str:
    sizes = sorted({len(of_one) for of_one in tests})
    return f"{' or '.join(map(str, sizes))} tests each"


def _interval(low: float, high: float) -> str:
    return f"{low:+z.4f} to {high:+z.4f}"


def _mean_cells(tested: tuple[MeanTest, float] | None) -> list[Cell]:
    if tested is None:
        return [Cell("skipped"), Cell("–"), Cell("–")]
    test, p = tested
    return [
        Cell(f"{test.difference:+z.4f}"),
        Cell(_interval(test.low, test.high)),
        Cell(p_text(p) + ("" if p < 0.05 else ", not significant")),
    ]


def _rank_words(summary: Summary, name: str) -> str:
    if name not in summary.ranks:
        return "skipped"
    if not summary.apart(name):
        return "not significant"
    return "ahead" if summary.ranks[summary.ours] < summary.ranks[name] else "behind"
