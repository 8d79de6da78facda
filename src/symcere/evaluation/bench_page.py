"""The pages of a benchmark: Markdown, LaTeX, CSV, and one HTML page with its figures in it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from symcere.errors import ConfigError
from symcere.evaluation.bench import Comparison, Outcome, Summary, against, mean_tests, over_datasets, over_means
from symcere.evaluation.bench_tables import (
    Table,
    ablation_table,
    accuracy_table,
    data_table,
    gains_table,
    paired_frame,
    paired_tests_table,
    percent,
    popularity_table,
    results_frame,
    settings_table,
)
from symcere.evaluation.figures import Point, critical_difference_figure, dot_figure, pareto_figure, stand_alone
from symcere.evaluation.report import DECISIVE, p_text, template
from symcere.evaluation.significance import bootstrap


@dataclass(frozen=True)
class Goal:
    """A figure that was promised beforehand, and what was found."""

    claim: str
    found: str
    reached: bool


@dataclass(frozen=True)
class Picture:
    """A figure of the page: a short name for its file, what it shows, what a reader must know, and its SVG."""

    key: str
    title: str
    note: str
    svg: str


@dataclass(frozen=True)
class Section:
    """One split, or all of them.

    Args:
        title: Its heading.
        verdict: Computed sentences: who is ahead, and how sure that is.
        remarks: What was skipped, and what the split cannot promise.
        tables: Shown at once.
        pictures: Shown below them.
        details: Tables folded away.
    """

    title: str
    verdict: tuple[str, ...]
    remarks: tuple[str, ...]
    tables: tuple[Table, ...]
    pictures: tuple[Picture, ...]
    details: tuple[Table, ...] = ()


@dataclass(frozen=True, eq=False)
class BenchPage:
    """All that a benchmark shows.

    Args:
        title: Its heading.
        command: The command that made it.
        outcomes: The results of every data set under every split.
        ours: The system of interest.
        baselines: Whom it is compared with.
        twins: Ours without one part each, and controls.
        budget: What was tuned on what, with how many trials, in a sentence.
        goals: What was promised beforehand.
        notes: What could not be measured, a sentence each.
        brief: Whether to leave out what is folded away, and the section over all splits.
        label: The measure that decides.

    Raises:
        ConfigError: If there is no outcome, or a system stands in two groups.
    """

    title: str
    command: str
    outcomes: tuple[Outcome, ...]
    ours: str
    baselines: tuple[str, ...]
    twins: tuple[str, ...] = ()
    budget: str = ""
    goals: tuple[Goal, ...] = field(default=())
    notes: tuple[str, ...] = ()
    brief: bool = False
    label: str = DECISIVE

    def __post_init__(self) -> None:
        """Check the groups."""
        if not self.outcomes:
            raise ConfigError("A benchmark needs the outcome of at least one data set.")
        names = [self.ours, *self.baselines, *self.twins]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"Each system must be ours, a baseline or a twin, and once; {twice} stands twice.")

    @property
    def splits(self) -> list[str]:
        """Names of the splits, in the order given."""
        return list(dict.fromkeys(outcome.split for outcome in self.outcomes))

    @cached_property
    def against_baselines(self) -> dict[Outcome, dict[str, Comparison]]:
        """For each outcome, baseline -> comparison: one family."""
        return {outcome: against(outcome, self.ours, self.baselines, self.label) for outcome in self.outcomes}

    @cached_property
    def against_twins(self) -> dict[Outcome, dict[str, Comparison]]:
        """For each outcome, twin -> comparison: another family."""
        return {outcome: against(outcome.with_twins, self.ours, self.twins, self.label) for outcome in self.outcomes}

    def of_split(self, split: str | None) -> list[Outcome]:
        """The outcomes of one split, or all."""
        return [outcome for outcome in self.outcomes if split in (None, outcome.split)]

    def summary(self, split: str | None = None) -> Summary:
        """What the data sets of one split, or all splits, say together."""
        chosen = self.of_split(split)
        tests = [self.against_baselines[outcome] for outcome in chosen]
        return over_datasets(chosen, self.ours, self.baselines, self.label, tests=tests)

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """One section over all where there are several splits, then one a split."""
        every = [_section(self, None)] if len(self.splits) > 1 and not self.brief else []
        return (*every, *(_section(self, split) for split in self.splits))

    @cached_property
    def data(self) -> Table:
        """What was measured on."""
        return data_table(self.outcomes, key="data")

    @property
    def pictures(self) -> dict[str, str]:
        """Name of a file -> SVG; the Markdown page refers to them in the folder figures/."""
        return {f"{picture.key}.svg": stand_alone(picture.svg) for s in self.sections for picture in s.pictures}


def verdict(summary: Summary) -> tuple[str, ...]:
    """Computed sentences: who is ahead in the mean, how often significantly, and what the ranks allow to say.

    Args:
        summary: Ours and the baselines.

    Returns:
        One to four sentences.
    """
    ours, label = summary.ours, summary.label
    own, n = summary.means[ours], len(summary.datasets)
    where = f"over {n} data sets" if n > 1 else f"on {summary.datasets[0]}"
    best = summary.best_baseline
    if best is None:
        return (f"{ours} has {label} {own:.4f} {where}; no baseline was measured everywhere, nothing was compared.",)
    base = summary.means[best]
    side = "ahead of" if own > base else "behind" if own < base else "level with"
    test, p = summary.mean_tests[best]
    sure = "significant" if p < 0.05 else "not significant"
    first = (
        f"{ours} is {side} the best baseline, {best}, in mean {label} {where}: {own:.4f} against {base:.4f} "
        f"({percent(summary.gain(best))}), difference {test.difference:+z.4f}, 95 % interval {test.low:+z.4f} to "
        f"{test.high:+z.4f}, p {p_text(p)} after Holm over {len(summary.mean_tests)} baselines: {sure}."
    )
    win, tie, loss = summary.win_tie_loss[best]
    all_win, all_tie, all_loss = summary.total
    units = "data sets" if len(summary.outcomes) == n else "pairs of data set and split"
    second = (
        f"Against {best} it is significantly ahead on {win}, not significantly apart on {tie} and behind on {loss} "
        f"of {win + tie + loss} {units}; over all baselines {all_win} wins, {all_tie} ties, {all_loss} losses."
    )
    if summary.friedman is None or summary.critical_difference is None:
        return first, second, "One data set: no test over data sets."
    f = summary.friedman
    differ = "the ranks of the systems differ" if f.p < 0.05 else "not significant, the ranks may be chance"
    third = (
        f"Friedman over {n} data sets and {len(summary.means)} systems: chi-square {f.chi_square:.2f}, p "
        f"{p_text(f.p)} (F of Iman and Davenport: p {p_text(f.p_f)}): {differ}."
    )
    behind = [name for name in summary.ranks if name != ours and summary.apart(name)]
    ahead = [name for name in behind if summary.ranks[name] > summary.ranks[ours]]
    worse = [name for name in behind if name not in ahead]
    said = f"significantly ahead of {', '.join(ahead)}" if ahead else "not significantly ahead of any baseline"
    said += f", and significantly behind {', '.join(worse)}" if worse else ""
    place = 1 + sum(rank < summary.ranks[ours] for rank in summary.ranks.values())
    fourth = (
        f"By average rank {ours} is number {place} of {len(summary.ranks)} ({summary.ranks[ours]:.2f}); with "
        f"Nemenyi's critical difference of {summary.critical_difference:.2f} it is {said}."
    )
    return first, second, third, fourth


def to_markdown(page: BenchPage) -> str:
    """The benchmark as Markdown; its figures are files beside it."""
    return template("bench.md.jinja", escape=False).render(page=page, keep=_keep)


def to_latex(page: BenchPage) -> str:
    r"""The tables as LaTeX, to be \input; they need the packages booktabs, graphicx and amssymb."""
    return template("bench.tex.jinja", escape=False).render(page=page, tex=_tex, signs=_TEX_SIGNS)


def to_html(page: BenchPage) -> str:
    """The benchmark as one HTML page: no script, no content from elsewhere; all text escaped."""
    return template("bench.html.jinja", escape=True).render(page=page)


def to_csv(page: BenchPage) -> str:
    """All results, one row a (split, dataset, system, seed, measure)."""
    return results_frame(page.outcomes).write_csv()


def paired_to_csv(page: BenchPage) -> str:
    """All paired tests, one row a (split, dataset, family, other system)."""
    families = {
        "baselines": list(page.against_baselines.values()),
        "twins": list(page.against_twins.values()),
    }
    return paired_frame(page.outcomes, page.ours, families, page.label).write_csv()


def _section(page: BenchPage, split: str | None) -> Section:
    """What one split, or all of them, has to say."""
    outcomes, summary = page.of_split(split), page.summary(split)
    by_split, word = split is None, split or "all"
    ours, systems = page.ours, [page.ours, *page.baselines]
    tables = [
        accuracy_table(summary, key=f"{word}-accuracy", by_split=by_split),
        gains_table(summary, key=f"{word}-gains", by_split=by_split),
    ]
    with_twins = [outcome.with_twins for outcome in outcomes]
    if any(outcome.has(name) for outcome in with_twins for name in page.twins):
        means = mean_tests(with_twins, ours, page.twins, page.label)
        tests = [page.against_twins[outcome] for outcome in outcomes]
        tables.append(
            ablation_table(
                with_twins,
                ours,
                page.twins,
                tests,
                means,
                key=f"{word}-ablation",
                label=page.label,
                by_split=by_split,
            )
        )
    tables.append(popularity_table(outcomes, systems, key=f"{word}-popularity", ours=ours))
    details: list[Table] = []
    if not by_split:
        for place, outcome in enumerate(outcomes):
            families = {"baselines": page.against_baselines[outcome], "twins": page.against_twins[outcome]}
            key = f"{word}-{place + 1}"
            details += [
                paired_tests_table(outcome, families, key=f"{key}-tests"),
                popularity_table(
                    [outcome],
                    [*systems, *(name for name in page.twins if outcome.has(name) or not outcome.controls)],
                    key=f"{key}-popularity",
                    ours=ours,
                ),
                settings_table(outcome, key=f"{key}-settings", ours=ours),
            ]
            if outcome.controls:
                details += [
                    popularity_table(
                        [outcome.controls], [ours, *page.twins], key=f"{key}-twins-popularity", ours=ours
                    ),
                    settings_table(outcome.controls, key=f"{key}-twins-settings", ours=ours),
                ]
    return Section(
        title="All splits together" if by_split else f"Split: {split}",
        verdict=verdict(summary),
        remarks=() if by_split else _remarks(outcomes, summary),
        tables=tuple(tables),
        pictures=_pictures(summary, word, by_split=by_split),
        details=() if page.brief else tuple(details),
    )


def _remarks(outcomes: Sequence[Outcome], summary: Summary) -> tuple[str, ...]:
    """What was left out and why, and what the split cannot promise; a sentence that many data sets share, once."""
    said: dict[str, list[str]] = {}
    for outcome in outcomes:
        for warning in outcome.warnings:
            said.setdefault(warning, []).append(outcome.dataset)
        for name, reason in outcome.skipped.items():
            said.setdefault(f"{name} was skipped: {reason}", []).append(outcome.dataset)
    remarks = [f"{', '.join(where)}: {sentence}" for sentence, where in said.items()]
    for name, lacks in summary.missing.items():
        remarks.append(f"{name} is in no mean and no rank, because it is missing from {', '.join(lacks)}.")
    return tuple(remarks)


def _pictures(summary: Summary, word: str, *, by_split: bool) -> tuple[Picture, ...]:
    pictures = []
    n, ours, label = len(summary.datasets), summary.ours, summary.label
    if summary.critical_difference is not None:
        pictures.append(
            Picture(
                f"{word}-ranks",
                "Average ranks over data sets",
                f"{n} data sets; 1 is best. A grey bar joins systems whose ranks do not differ significantly "
                "(Nemenyi, 5 %, all pairs).",
                critical_difference_figure(summary.ranks, summary.critical_difference, ours=ours),
            )
        )
    if not by_split:
        dots = {outcome.dataset: _points(outcome, summary) for outcome in summary.outcomes}
        pictures.append(
            Picture(
                f"{word}-dots",
                f"{label} on each data set",
                "Mean over users and seeds with its 95 % bootstrap interval over users. Overlapping intervals say "
                "nothing of paired differences: those are in the tables.",
                dot_figure(dots, ours=ours, label=label),
            )
        )
    order = [ours, *summary.baselines]
    at = {name: (over_means(summary.outcomes, name, "arp@10"), summary.means.get(name, math.nan)) for name in order}
    points = {name: [point] for name, point in at.items() if not any(map(math.isnan, point))}
    if points:
        pictures.append(
            Picture(
                f"{word}-pareto",
                f"{label} against popularity",
                "Means over data sets. Ringed: no system is both more accurate and less popular.",
                pareto_figure(points, x_label="arp@10", y_label=label, ours=ours),
            )
        )
    return tuple(pictures)


def _points(outcome: Outcome, summary: Summary) -> dict[str, Point]:
    names = [name for name in (summary.ours, *summary.baselines) if outcome.has(name)]
    low, high = bootstrap(np.stack([outcome.per_user(name, summary.label) for name in names], axis=1))
    return {
        name: Point(outcome.mean(name, summary.label), float(low[j]), float(high[j])) for j, name in enumerate(names)
    }


def _keep(text: str) -> str:
    """Text that Markdown leaves as it is within a cell, whole."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("_", "\\_").replace("\n", " ")


_TEX: Mapping[str, str] = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\ensuremath{<}", ">": r"\ensuremath{>}",
    "–": "--", "▲": r"\ensuremath{\blacktriangle}", "▼": r"\ensuremath{\blacktriangledown}",
    "≈": r"\ensuremath{\approx}", "\n": " ",
}  # fmt: skip

_TEX_SIGNS: Mapping[str, str] = {"win": r"\blacktriangle", "tie": r"\approx", "loss": r"\blacktriangledown"}


def _tex(text: str) -> str:
    """Text with everything that LaTeX would take as a command made harmless."""
    return "".join(_TEX.get(letter, letter) for letter in text)
