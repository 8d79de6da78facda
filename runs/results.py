"""docs/results.md: SymCERE against every tuned baseline on six data sets, its twins, and what was promised.

    python runs/results.py DATA [--only NAME,NAME] [--splits random] [--no-twins] [--seeds 10] [--twin-seeds 3]

DATA is the folder of real reviews. The random split has ten seeds, for three cannot tell 2 % from nothing
(docs/log.md); its twins have three of these, the other splits one. Settings come from runs/tuned (made by
`symcere tune`, see docs/log.md). Every fit is kept in the folder --out, so that a run that was killed goes on; two
processes with different --only share the work, and the page is written when both are done and the command is given
once more, without --only.
"""

import argparse
import dataclasses
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from symcere.cli.options import SplitName
from symcere.cli.screen import ScreenWatch
from symcere.cli.words import bench_data_of, encoding_of, splitting_of, systems_of
from symcere.evaluation.bench import Outcome, Summary
from symcere.evaluation.bench_page import BenchPage, Goal, to_markdown
from symcere.evaluation.bench_tables import number, percent
from symcere.evaluation.significance import gain_interval
from symcere.manifest import write_file
from symcere.pipeline.bench import bench_page, bench_systems, outcomes_of, write_page

ROOT = Path(__file__).resolve().parent.parent
DATASETS = (
    "Musical Instruments={}/amazon-2014/reviews_Musical_Instruments_5.json.gz@5",
    "TripAdvisor={}/tripadvisor/reviews_core3.parquet@3",
    "Gift Cards={}/amazon-2018/Gift_Cards_5.json.gz@5",
    "All Beauty={}/amazon-2018/All_Beauty_5.json.gz@3",
    "Zomato={}/zomato/reviews.parquet@3",
    "Yelp={}/yelp/yelp_academic_dataset_review.json.gz@3",
)
OTHER_SPLITS = (SplitName.TEMPORAL, SplitName.COLD_ITEMS, SplitName.COLD_USERS)
COLD = ("popularity", "text_only", "rlmrec_con", "alpha_rec", "narre", "symcere")
"""Systems that can rank an item, or serve a user, without interactions; and popularity, the floor."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--splits", default=",".join(("random", *OTHER_SPLITS)))
    parser.add_argument("--no-twins", action="store_true")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--twin-seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/results"))
    words = parser.parse_args()
    data = bench_data_of([word.format(words.data) for word in DATASETS], 5, [], None, skip_bad=False)
    if words.only:
        data = [each for each in data if each.name in words.only.split(",")]
    every = systems_of("all", {})
    files = {each.slug: ROOT / "runs" / "tuned" / f"{each.slug}.json" for each in data}
    outcomes, impossible = [], []
    with ScreenWatch(quiet=False) as watch:
        rounds = [((SplitName.RANDOM,), words.seeds, not words.no_twins), (OTHER_SPLITS, 1, False)]
        for names, n_seeds, twins_too in rounds:
            for each in data:
                for name in [name for name in names if name in words.splits.split(",")]:
                    cold = name in (SplitName.COLD_ITEMS, SplitName.COLD_USERS)
                    systems = [system for system in every if not cold or system.name in COLD]
                    found, refused = outcomes_of(
                        each,
                        words.out,
                        watch,
                        splittings=[splitting_of(name, None, 0, n_seeds)],
                        encoding=encoding_of("auto"),
                        cache=words.out / "cache",
                        systems=bench_systems(systems, files[each.slug], twins_too=twins_too),
                        twin_seeds=words.twin_seeds,
                    )
                    outcomes += found
                    impossible += refused
    if words.only:
        return
    order = [SplitName.RANDOM, *OTHER_SPLITS]
    outcomes.sort(key=lambda outcome: order.index(SplitName(outcome.split)))
    command = shlex.join(["python", "runs/results.py", "DATA", *sys.argv[2:]])
    page = bench_page(outcomes, command, list(files.values()))
    page = dataclasses.replace(page, title="Results", goals=tuple(goals(page)), notes=tuple(impossible))
    write_page(page, words.out)
    write_file(ROOT / "docs" / "results.md", to_markdown(dataclasses.replace(page, brief=True)))
    for name, svg in page.pictures.items():
        write_file(ROOT / "docs" / "figures" / name, svg)
    for goal in page.goals:
        sys.stdout.write(f"{'reached    ' if goal.reached else 'NOT reached'} {goal.claim} {goal.found}\n")


def goals(page: BenchPage) -> list[Goal]:
    """The figures that were promised before anything was measured, each beside what was found."""
    random = page.summary(SplitName.RANDOM.value)
    return [_ahead(random), *_significant(page, random), _never_behind(random), *_gains(random), *_cold(page)]


def _ahead(random: Summary) -> Goal:
    best = random.best_baseline or ""
    own, base = random.means[random.ours], random.means[best]
    ahead = [name for name in random.baselines if random.means.get(name, math.inf) >= own]
    return Goal(
        "Ahead of every tuned baseline in mean NDCG@10 over the data sets, random split.",
        f"{own:.4f} against {base:.4f} of {best}, the best of them"
        + (f"; not ahead of {', '.join(ahead)}." if ahead else "."),
        not ahead,
    )


def _significant(page: BenchPage, random: Summary) -> list[Goal]:
    made = []
    for outcome in random.outcomes:
        if outcome.dataset in ("Musical Instruments", "TripAdvisor"):
            best = max(page.baselines, key=lambda name, outcome=outcome: outcome.mean(name))
            found = page.against_baselines[outcome][best]
            made.append(
                Goal(
                    f"Significantly ahead of the best tuned baseline on {outcome.dataset} (Holm, p < 0.05).",
                    f"{outcome.mean(page.ours):.4f} against {outcome.mean(best):.4f} of {best}: difference "
                    f"{found.test.difference:+z.4f}, p {found.p_t:.2g} after Holm.",
                    found.verdict == "win",
                )
            )
    return made


def _never_behind(random: Summary) -> Goal:
    behind = [
        f"{name} on {outcome.dataset}"
        for outcome, tests in zip(random.outcomes, random.tests, strict=True)
        for name, found in tests.items()
        if found.verdict == "loss"
    ]
    win, tie, loss = random.total
    return Goal(
        "Never significantly behind a tuned baseline on any data set.",
        f"{win} wins, {tie} ties, {loss} losses" + (f": behind {', '.join(behind)}." if behind else "."),
        not behind,
    )


def _gains(random: Summary) -> list[Goal]:
    def found(name: str, outcomes: Sequence[Outcome]) -> str:
        own, base = ([outcome.per_user(system) for outcome in outcomes] for system in (random.ours, name))
        low, high = (percent(end) for end in gain_interval(own, base))
        return f"95 % interval {low} to {high}"

    light_gcn = {
        outcome.dataset: (outcome, gain)
        for outcome, gain in zip(random.outcomes, random.gains("light_gcn"), strict=True)
    }
    made = [
        Goal(
            f"At least {percent(bar)} over the tuned light_gcn on {name}.",
            f"{percent(gain)} ({found('light_gcn', [outcome])}).",
            gain >= bar,
        )
        for name, bar in (("TripAdvisor", 1.0), ("Musical Instruments", 0.15))
        for outcome, gain in [light_gcn[name]]
    ]
    for name in ("alpha_rec", "rlmrec_con"):
        gains, gain = random.gains(name), random.gain(name)
        each = ", ".join(
            f"{outcome.dataset} {percent(one)}" for outcome, one in zip(random.outcomes, gains, strict=True)
        )
        made.append(
            Goal(
                f"At least +10 % in the mean over {name} with the dial.",
                f"{percent(gain)} ({found(name, random.outcomes)}); the mean of the gains, where no data set weighs "
                f"more, is {percent(fmean(gains))} ({each}).",
                gain >= 0.1,
            )
        )
    return made


def _cold(page: BenchPage) -> list[Goal]:
    cold = page.of_split(SplitName.COLD_ITEMS.value)
    if not cold:
        return []
    rankers = [name for name in page.baselines if name in COLD]
    ratios, said = [], []
    for outcome in cold:
        best = max(rankers, key=lambda name, outcome=outcome: outcome.mean(name))
        low, high = gain_interval([outcome.per_user(page.ours)], [outcome.per_user(best)])
        own, base = outcome.mean(page.ours), outcome.mean(best)
        ratios.append(own / base)
        said.append(
            f"{outcome.dataset} {number(own)} against {number(base)} of {best} ({ratios[-1]:.2f}x, "
            f"95 % interval {1 + low:.2f} to {1 + high:.2f})"
        )
    return [
        Goal(
            "Cold items: at least twice the best baseline that can rank them.",
            f"{'; '.join(said)}.",
            min(ratios) >= 2,
        )
    ]


if __name__ == "__main__":
    main()
