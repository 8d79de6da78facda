"""docs/studies.md: noise in the reviews, the history mask, the popularity dial; under the settings of runs/tuned.

    python runs/studies.py DATA [robustness] [mask] [popularity] [--only NAME,NAME] [--seeds N] [--out runs/studies]
                           [--no-page]

Every fit is kept in OUT, so a run that was killed goes on, and processes with different --only and --no-page share
the work. The page holds what was asked for: all studies of Musical Instruments unless said otherwise.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from results import DATASETS, ROOT

from symcere.cli.options import SplitName
from symcere.cli.screen import ScreenWatch
from symcere.cli.words import bench_data_of, encoding_of, splitting_of
from symcere.data.dataset import Split
from symcere.data.ingest import Ingestion
from symcere.data.kcore import KCore
from symcere.data.noise import KINDS
from symcere.data.synthetic import anchoring_world, write_amazon
from symcere.errors import DataError
from symcere.evaluation.compare import measure_test, report_of
from symcere.evaluation.figures import Series, line_figure, pareto_figure, stand_alone
from symcere.evaluation.measures import mean, standard_measures
from symcere.evaluation.report import p_text
from symcere.manifest import write_file
from symcere.pipeline.bench import BenchData
from symcere.pipeline.stages import Fitted, divide, encode, fit_all, ingest
from symcere.pipeline.systems import System, baselines, ours, twins
from symcere.pipeline.tune import read_tuned, tuned_system
from symcere.pipeline.workspace import Workspace
from symcere.text.features import TextFeatures
from symcere.training.config import POPULARITY_WEIGHTS

RATES = (0.25, 0.5, 1.0)
MASKS = ("none", "same_item", "history")
BATCHES = (1_024, 4_096)
DENSITIES = (4, 8, 16, 32)
DIALS = sorted(POPULARITY_WEIGHTS)
SEEDS = {"robustness": 1, "mask": 2, "popularity": 1}
SEEDS_PLANTED = 4


@dataclass(frozen=True)
class Part:
    """A section of the page: sentences, a table, figures by file name."""

    title: str
    sentences: Sequence[str]
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    figures: Mapping[str, str]


@dataclass(frozen=True)
class Place:
    """Where a data set is studied, and how its systems are set."""

    data: BenchData
    workspace: Workspace
    cache: Path
    n_seeds: int

    def systems(self) -> dict[str, System]:
        """Name -> system under its tuned settings."""
        file = ROOT / "runs" / "tuned" / f"{self.data.slug}.json"
        found = read_tuned(file) if file.exists() else {"systems": {}}
        return {system.name: tuned_system(system, found) for system in [*baselines(), ours()]}

    def fitted(self, systems: Sequence[System], noise: str = "") -> Fitted:
        """All systems under every seed of the random split."""
        reviews, ingested = ingest(self.workspace, self.data.what)
        splitting, seeds = splitting_of(SplitName.RANDOM, None, 0, self.n_seeds)
        divided = [divide(self.workspace, reviews, ingested["key"], splitting, seed) for seed in seeds]
        return fit_all(self.workspace, divided, seeds, encoding_of("auto", noise=noise), self.cache, systems)


def seeds_of(place: Place) -> str:
    """What the numbers are means of."""
    return f"Mean of seeds 0 to {place.n_seeds - 1}." if place.n_seeds > 1 else "Seed 0."


def ndcg_of(fitted: Fitted) -> dict[str, float]:
    """System -> mean test NDCG@10."""
    report = report_of(fitted.runs)
    return {name: report.mean(name, "ndcg@10") for name in report.systems}


def robustness(places: Sequence[Place]) -> Iterator[Part]:
    """NDCG@10 against the rate of each kind of noise, beside the floor that no text can break: ids alone."""
    for place in places:
        found = place.systems()
        own = found["symcere"]
        no_text = next(twin for twin in twins(own) if twin.name == "symcere:no_text")
        clean = ndcg_of(place.fitted([own, no_text, found["alpha_rec"]]))
        floor = clean["symcere:no_text"]
        curves: dict[str, list[float]] = {}
        for kind in KINDS:
            for rate in RATES:
                try:
                    noisy = ndcg_of(place.fitted([own, found["alpha_rec"]], f"{kind.name}={rate}"))
                except DataError:  # no text is left at all
                    noisy = {"symcere": floor, "alpha_rec": float("nan")}
                for name in ("symcere", "alpha_rec"):
                    curves.setdefault(f"{kind.name}, {name}", [clean[name]]).append(noisy[name])
        x = (0.0, *RATES)
        lines = [Series(name.partition(",")[0], x, tuple(y)) for name, y in curves.items() if "symcere" in name]
        lines.append(Series("ids alone", (0.0, 1.0), (floor, floor)))
        below = [
            f"{name} from {x[next(i for i, value in enumerate(y) if value < floor)]:.0%}"
            for name, y in curves.items()
            if "symcere" in name and min(y) < floor
        ]
        yield Part(
            f"Noise in the reviews: {place.data.name}",
            [
                f"Clean {clean['symcere']:.4f}, ids alone {floor:.4f}. {seeds_of(place)}",
                f"Below ids alone: {'; '.join(below)}." if below else "No noise takes it below ids alone.",
            ],
            ["noise, system", *(f"{rate:.0%}" for rate in x)],
            [[name, *("–" if np.isnan(value) else f"{value:.4f}" for value in y)] for name, y in curves.items()],
            {f"robustness-{place.data.slug}": line_figure(lines, x_label="share hit", y_label="ndcg@10")},
        )


def mask(places: Sequence[Place]) -> Iterator[Part]:
    """What the mask leaves out, by count and by softmax mass, and what that is worth; then all data side by side."""
    side_by_side: list[list[str]] = []
    gained: dict[int, list[tuple[float, float]]] = {size: [] for size in BATCHES}
    for place in places:
        own = place.systems()["symcere"]
        (settings,) = own.candidates
        rows, curves, gains = [], {level: [] for level in MASKS}, []
        shares: list[Series] = []
        for size in BATCHES:
            twins = [
                replace(
                    own,
                    name="symcere" if level == "history" else f"symcere:{level}",
                    candidates=(settings.model_copy(update={"mask": level, "batch_size": size}),),
                )
                for level in MASKS
            ]
            fitted = place.fitted(twins)
            report = report_of(fitted.runs)
            found = {name: report.mean(name, "ndcg@10") for name in report.systems}
            test, p = report.against("symcere", "ndcg@10")["symcere:none"]
            gains.append(f"{test.difference:+z.4f} (p {p_text(p)})")
            epochs = [
                json.loads(line) for line in (fitted.folders[0] / "history.jsonl").read_text("utf-8").splitlines()
            ]
            for level, twin in zip(MASKS, twins, strict=True):
                curves[level].append(found[twin.name])
            last = epochs[-1]
            rows.append(
                [
                    f"{size:,}",
                    *(f"{curves[level][-1]:.4f}" for level in MASKS),
                    f"{100 * last['known_share']:.2f} %",
                    f"{100 * epochs[0]['known_mass']:.1f} %",
                    f"{100 * last['known_mass']:.1f} %",
                ]
            )
            x = tuple(float(each["epoch"]) for each in epochs)
            shares.append(Series(f"batch {size:,}, mass", x, tuple(each["known_mass"] for each in epochs)))
            shares.append(Series(f"batch {size:,}, count", x, tuple(each["known_share"] for each in epochs)))
            gained[size].append((last["known_share"], 100 * (found["symcere"] / found["symcere:none"] - 1)))
        side_by_side.append([place.data.name, str(place.n_seeds), rows[0][4], rows[0][6], *gains])
        said = ", ".join(f"{size:,}: {gain}" for size, gain in zip(BATCHES, gains, strict=True))
        lines = [Series(level, tuple(map(float, BATCHES)), tuple(curves[level])) for level in MASKS]
        yield Part(
            f"The history mask: {place.data.name}",
            [f"NDCG@10 with the history mask minus without, by batch size: {said}. {seeds_of(place)}"],
            ["batch", *MASKS, "known pairs, by count", "by mass, first epoch", "last epoch"],
            rows,
            {
                f"mask-{place.data.slug}": line_figure(lines, x_label="batch size", y_label="ndcg@10"),
                f"mask-shares-{place.data.slug}": line_figure(shares, x_label="epoch", y_label="share known"),
            },
        )
    lines = [
        Series(f"batch {size:,}", *(tuple(side) for side in zip(*sorted(points), strict=True)))
        for size, points in gained.items()
    ]
    yield Part(
        "The history mask: all side by side",
        [
            "NDCG@10 with the history mask minus without; p of a paired t over users, each the mean of their seeds, "
            "after Holm over both other masks. The figure has the data by how dense they are."
        ],
        ["data", "seeds", "known pairs, by count", "by mass, last epoch", *(f"batch {size:,}" for size in BATCHES)],
        side_by_side,
        {"mask-gain": line_figure(lines, x_label="known pairs in a batch, share", y_label="gain by the mask, %")},
    )


def swept(system: System, split: Split, text: TextFeatures, seed: int, _: Path) -> Mapping[str, Any]:
    """What a stage keeps of a system: every measure on test at every dial, and the dial chosen on valid."""
    fitted = system.fit(split.train, split.valid, text, system.candidates[0], seed, lambda _: None)
    found = []
    for dial in DIALS:
        values = measure_test(fitted.with_popularity_weight(dial), split, standard_measures())
        found.append({label: mean(value) for label, value in values.items()})
    return {"note": f"{len(DIALS)} dials", "chosen": fitted.popularity_weight, "swept": found}


def popularity(places: Sequence[Place]) -> Iterator[Part]:
    """What every dial of every system gives: accuracy against the popularity of what is recommended."""
    for place in places:
        reviews, ingested = ingest(place.workspace, place.data.what)
        splitting, (seed, *_) = splitting_of(SplitName.RANDOM, None, 0, 1)
        split, key = divide(place.workspace, reviews, ingested["key"], splitting, seed)
        encoding = replace(encoding_of("auto"), leave_one_out=True)
        text, _ = encode(place.workspace, split.train, key, encoding, place.cache, seed)
        rows, points = [], {}
        for name, system in place.systems().items():
            sweep = partial(swept, system, split, text, seed)
            _, kept = place.workspace.stage(f"dials-{name}", [key, dict(system.settings), DIALS], sweep)
            points[name] = [(each["arp@10"], each["ndcg@10"]) for each in kept["swept"]]
            at = {dial: kept["swept"][DIALS.index(dial)] for dial in (0.0, kept["chosen"])}
            rows += [
                [
                    name,
                    f"{dial:g}" + (" (chosen)" if dial == kept["chosen"] else ""),
                    *(f"{each[label]:.4f}" for label in ("ndcg@10", "gini@10", "coverage@10", "tail_recall@10")),
                    f"{each['arp@10']:.1f}",
                ]
                for dial, each in at.items()
            ]
        best = {name: max(y for _, y in line) for name, line in points.items()}
        top = max(best, key=lambda name: best[name])
        yield Part(
            f"The popularity dial: {place.data.name}",
            [
                f"At its best dial {top} has the highest NDCG@10, {best[top]:.4f}; symcere {best['symcere']:.4f}.",
                seeds_of(place),
            ],
            ["system", "dial", "ndcg@10", "gini@10", "coverage@10", "tail_recall@10", "arp@10"],
            rows,
            {f"dial-{place.data.slug}": pareto_figure(points, x_label="arp@10", y_label="ndcg@10", ours="symcere")},
        )


def planted(out: Path, watch: ScreenWatch, n_seeds: int) -> list[Place]:
    """Worlds of the same tastes and rising density: the denser, the more false negatives a batch holds."""
    places = []
    for n in DENSITIES:
        file = out / f"world-{n}.json.gz"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            write_amazon(anchoring_world(600, 100, n), file)
        data = BenchData(f"planted, {n} reviews a user", Ingestion(file, filters=[KCore(5)]))
        places.append(Place(data, Workspace(out / data.slug, watch), out / "cache", n_seeds))
    return places


def page_of(parts: Sequence[Part]) -> str:
    """The page as Markdown."""
    lines = [
        "# Studies",
        "",
        "Test NDCG@10 on the random split, under the settings of `runs/tuned`.",
        "",
    ]
    for part in parts:
        lines += [f"## {part.title}", "", *part.sentences, ""]
        lines += ["| " + " | ".join(part.head) + " |", "|---" * len(part.head) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in part.rows]
        lines += [f"\n![{part.title}](figures/{name}.svg)" for name in part.figures]
        lines.append("")
    return "\n".join(lines) + "\nMade by `python runs/studies.py DATA`.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path)
    parser.add_argument("studies", nargs="*", default=[])
    parser.add_argument("--only", default="Musical Instruments")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--out", type=Path, default=Path("runs/studies"))
    parser.add_argument("--no-page", action="store_true")
    words = parser.parse_args()
    chosen = [
        each
        for each in bench_data_of([word.format(words.data) for word in DATASETS], 5, [], None, skip_bad=False)
        if each.name in words.only.split(",")
    ]
    parts: list[Part] = []
    with ScreenWatch(quiet=False) as watch:
        for study in (robustness, mask, popularity):
            if words.studies and study.__name__ not in words.studies:
                continue
            n = words.seeds or SEEDS[study.__name__]
            places = [Place(each, Workspace(words.out / each.slug, watch), words.out / "cache", n) for each in chosen]
            worlds = planted(words.out, watch, words.seeds or SEEDS_PLANTED) if study is mask else []
            parts += study([*worlds, *places])
    for part in parts:
        sys.stdout.write(f"{part.title}: {' '.join(part.sentences)}\n")
    if words.no_page:
        return
    write_file(ROOT / "docs" / "studies.md", page_of(parts))
    for part in parts:
        for name, svg in part.figures.items():
            write_file(ROOT / "docs" / "figures" / f"{name}.svg", stand_alone(svg))


if __name__ == "__main__":
    main()
