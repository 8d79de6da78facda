"""From a finished run to the page that says what was learned: open, fit the controls, look, write."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import polars as pl

from symcere import rng
from symcere.analysis.anchoring import Drops, drops, frozen_lens, learned_lens, word_weights
from symcere.analysis.anchoring_page import FROZEN, OBJECTIVE, SHUFFLED, anchoring_findings
from symcere.analysis.exposure import exposure_finding
from symcere.analysis.faithfulness import curves
from symcere.analysis.faithfulness_page import faithfulness_finding
from symcere.analysis.finding import Finding, Section
from symcere.analysis.geometry_page import geometry_findings
from symcere.analysis.learned import Learned
from symcere.analysis.map_page import has_umap
from symcere.analysis.mechanism import mechanism_finding
from symcere.analysis.page import AnalysisPage, write_page
from symcere.analysis.why import MOST_REVIEWS, Explainer, Reason
from symcere.data.dataset import Dataset
from symcere.data.noise import apply_noise
from symcere.manifest import code_digest, digest, new_folder, read_manifest
from symcere.pipeline.finished import FinishedRun
from symcere.pipeline.stages import Encoding, fit_system
from symcere.pipeline.systems import OURS, System, ours, twins
from symcere.pipeline.workspace import Unwatched, Watch, Workspace
from symcere.recommender import Recommender
from symcere.text.cache import VectorCache
from symcere.text.reader import Reader
from symcere.training.config import SymcereSettings

NO_SPHERE = "no sphere"
CONTROLS = {"no_mask": "no mask", "history_mask": "history mask", "no_sphere": NO_SPHERE, "shuffled_text": SHUFFLED}
"""Twins that are fitted beside the run, and what the page calls them; the run has no twin equal to itself."""

_REVIEWS = 20_000  # train reviews that are looked at, at most
_REREAD, _REREAD_REVIEWS, _REREAD_TESTED = 1_500, 400, 3  # the same where a text has to be read again for each word


@dataclass(frozen=True, eq=False)
class Opened:
    """A finished run, ready to be explained.

    Args:
        run: The run.
        train: Its train part, with the noise that the run put in.
        explainer: Who says why.
    """

    run: FinishedRun
    train: Dataset
    explainer: Explainer


def open_run(
    run: FinishedRun, how: Encoding, cache: Path, on_progress: Callable[[float], None] | None = None
) -> Opened:
    """Open what a run learned.

    Args:
        run: The run.
        how: How it encoded its text.
        cache: Root folder of the vector cache.
        on_progress: Told when an encoder is ready.

    Returns:
        The fit, and its encoders ready to read.

    Raises:
        BundleError: If a stage is missing or damaged.
        ConfigError: If an older version made the run, or its profiles are not of words.
    """
    train = apply_noise(run.split.train, how.noise, seed=run.seed)
    return Opened(run, train, explainer_of(Learned(train, run.text, run.model), how, cache, on_progress))


def explainer_of(
    learned: Learned, how: Encoding, cache: Path, on_progress: Callable[[float], None] | None = None
) -> Explainer:
    """Make the encoders of a fit ready to read.

    Args:
        learned: The fit.
        how: How its text was encoded.
        cache: Root folder of the vector cache.
        on_progress: Told when an encoder is ready.

    Returns:
        Who says why.

    Raises:
        ConfigError: If its profiles are not of words.
    """
    train = learned.train
    reader = Reader.of(
        train, learned.text, how.encoders(len(train)), how.parts, how.weightings, VectorCache(cache),
        on_progress and (lambda now: on_progress(now.share)),
    )  # fmt: skip
    return Explainer(learned, reader)


def analyse(
    run: FinishedRun,
    watch: Watch,
    *,
    how: Encoding,
    cache: Path,
    command: str,
    controls: bool = True,
    umap: bool = True,
    workers: int = 1,
    n_tested: int = 120,
    out: Path | None = None,
) -> Path:
    """Write the page: index.html, findings.json, and a CSV a finding.

    Args:
        run: The run; controls are fitted into its folder, and found there the next time.
        watch: Who is told how it goes on.
        how: How the run encoded its text.
        cache: Root folder of the vector cache.
        command: The command line.
        controls: Whether twins are fitted to compare with.
        umap: Whether the map is also drawn by UMAP, where that is installed.
        workers: Processes that fit controls at the same time; 1 for none beside this one.
        n_tested: Recommendations whose reasons are put to the test, at most.
        out: Where the page is written; `analysis` in the run's folder if left out.

    Returns:
        Its folder; a page that stands there of the same fit and options is left as it is.
    """
    began = time.perf_counter()
    folder = out or run.folder / ("analysis" if run.seed == run.about["seeds"][0] else f"analysis-seed{run.seed}")
    keys = [run.manifest(stage)["key"] for stage in ("split", "encode", OURS)]
    key = digest(code_digest(), keys, controls, [umap, umap and has_umap()], n_tested)
    standing = read_manifest(folder)
    if standing and standing["key"] == key:
        watch.begin("analyse")
        watch.end("analyse", str(folder / "index.html"), standing["seconds"], up_to_date=True)
        return folder
    fitted = _controls(run, watch, workers) if controls else {}
    watch.begin("analyse")
    step = partial(watch.progress, "")
    step(0.0, "encoders")
    opened = open_run(run, how, cache)
    learned, reader = opened.explainer.learned, opened.explainer.reader
    others = {
        name: Learned(opened.train, run.text.shuffled(run.seed) if name == SHUFFLED else run.text, model)
        for name, model in fitted.items()
    }
    found = _drops(opened, others, lambda share: step(0.1 + 0.3 * share, "words of each review"))
    anchors = anchoring_findings(found, OURS, run.reviews.items, least=10 if reader.exact else 3)
    tested = n_tested if reader.exact else min(n_tested, _REREAD_TESTED)
    faithful = _faithful(opened, found, tested, lambda share: step(0.4 + 0.3 * share, "words of recommended items"))
    step(0.7, "geometry")
    space = geometry_findings(learned, others.get(NO_SPHERE), umap=umap, seed=run.seed)
    step(0.85, "popularity")
    shown = exposure_finding(learned, run.split)
    step(0.95, "reasons")
    page = AnalysisPage(
        title=str(run.about["input"]["file"]),
        command=command,
        about=_about(run, opened.train),
        sections=(
            Section("Semantic anchoring", (*anchors, mechanism_finding(_objective_share(anchors), seed=run.seed))),
            Section("Reasons put to the test", (faithful,)),
            Section("Geometry", space),
            Section("Popularity", (shown,)),
        ),
        reasons=_examples(opened.explainer, run.seed),
        items=run.reviews.items,
        notes=_notes(reader, controls=controls),
        seconds=time.perf_counter() - began,
    )
    with new_folder(folder, key, {"seconds": round(page.seconds, 3), "command": command}) as temporary:
        write_page(page, temporary)
    watch.end("analyse", str(folder / "index.html"), page.seconds, up_to_date=False)
    return folder


def _controls(run: FinishedRun, watch: Watch, workers: int) -> dict[str, Recommender]:
    """Twins of the run's SymCERE by the page's name for them; each is a stage, found if it stands there."""
    watch.begin("controls")
    began = time.perf_counter()
    made = {f"{OURS}:{twin}": name for twin, name in CONTROLS.items()}
    names = [twin.name for twin in twins(_system(run)) if twin.name in made]
    fit = partial(_fit_control, run.folder, run.seed)
    models: list[tuple[Path, bool]] = []
    if workers > 1:
        with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_one_thread) as pool:
            done = pool.map(fit, names)
            for number, each in enumerate(done, 1):
                models.append(each)
                watch.progress("", number / len(names), f"{number} of {len(names)} controls fitted")
    else:
        for number, name in enumerate(names):
            watch.progress("", number / len(names), f"{number} of {len(names)} controls fitted")
            models.append(fit(name))
    said = ", ".join(made[name] for name in names)
    watch.end("controls", said, time.perf_counter() - began, up_to_date=all(found for _, found in models))
    return {made[name]: Recommender.load(model) for name, (model, _) in zip(names, models, strict=True)}


def _fit_control(folder: Path, seed: int, name: str) -> tuple[Path, bool]:
    """Fit a twin in a run's folder; returns where its model is, and whether it was there."""
    run = FinishedRun.open(folder, seed)
    (twin,) = (twin for twin in twins(_system(run)) if twin.name == name)
    workspace = Workspace(folder, Unwatched())
    keys = [run.manifest(stage)["key"] for stage in ("split", "encode")]
    *_, stage = fit_system(workspace, twin, run.split, keys, run.text, seed)
    return stage / "model", bool(workspace.up_to_date)


def _system(run: FinishedRun) -> System:
    return ours(SymcereSettings(**run.manifest(OURS)["settings"]))


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _drops(opened: Opened, others: Mapping[str, Learned], on_progress: Callable[[float], None]) -> Drops:
    """Every word of every review left out, seen by the run, its controls and the encoder alone."""
    run, train, reader = opened.run, opened.train, opened.explainer.reader
    drawn = rng.stream(run.seed, "anchoring").permutation(len(train))
    some = np.sort(drawn[: _REVIEWS if reader.exact else _REREAD_REVIEWS])
    reviews, user, item = reader.open(some), train.user[some], train.item[some]
    lenses = [
        learned_lens(OURS, opened.explainer.learned, user, item),
        *(learned_lens(name, other, user, item) for name, other in others.items()),
        frozen_lens(FROZEN, run.text, reader, reviews, user, item),
    ]
    at_most = None if reader.exact else _REREAD
    return drops(reviews, lenses, at_most=at_most, seed=run.seed, on_progress=on_progress)


def _faithful(opened: Opened, found: Drops, n: int, on_progress: Callable[[float], None]) -> Finding:
    """Whether the reasons move the score."""
    weights = word_weights(found, OURS, least=1)
    often = dict(zip(found.vocabulary, found.n_reviews.tolist(), strict=True))
    return faithfulness_finding(
        curves(
            opened.explainer,
            dict(zip(weights.words, weights.mean.tolist(), strict=True)),
            lambda words: np.array([often.get(word, 1) for word in words]),
            n=n,
            seed=opened.run.seed,
            on_progress=on_progress,
        )
    )


def _objective_share(anchors: Sequence[Finding]) -> float:
    """Objective share of the weight of two words, one of either class, without training; .5 where not measured."""
    if anchors[0].name != OBJECTIVE:
        return 0.5
    own = anchors[0].data.filter(pl.col("seen by") == FROZEN)
    objective, subjective = (max(float(own[side][0]), 0.0) for side in ("objective", "subjective"))
    return objective / (objective + subjective) if objective + subjective else 0.5


def _examples(explainer: Explainer, seed: int, n: int = 4) -> tuple[Reason, ...]:
    """Reasons of the first recommendation of some users, drawn among those with train interactions."""
    learned, model = explainer.learned, explainer.learned.model
    able = np.flatnonzero(learned.degree[: learned.n_users] > 0)
    users = np.sort(rng.stream(seed, "reasons").choice(able, min(n, len(able)), replace=False))
    best = [(model.users.id(int(user)), model.recommend(model.users.id(int(user)), 1)) for user in users]
    return tuple(explainer.why(user_id, items[0][0]) for user_id, items in best if items)


def _about(run: FinishedRun, train: Dataset) -> dict[str, str]:
    counts = f"{len(train):,} train reviews, {len(train.users):,} users, {len(train.items):,} items"
    changed = _system(run).candidates[0].model_dump(mode="json", exclude_defaults=True)
    return {
        "data": f"{counts} ({run.about['split']} split, seed {run.seed})",
        "text": run.text.encoder,
        "settings": ", ".join(f"{key} = {value}" for key, value in changed.items()) or "the defaults",
        "run": str(run.about["command"]),
    }


def _notes(reader: Reader, *, controls: bool) -> list[str]:
    """What the page cannot promise."""
    notes = []
    if not reader.exact:
        notes.append(
            f"The encoder has to read a text again for each word left out, so only {_REREAD:,} occurrences and "
            f"{_REREAD_TESTED} recommendations were looked at: intervals are wide. How many reviews have a word "
            f"is counted in all that were opened, {_REREAD_REVIEWS} at most. Of more than {MOST_REVIEWS} reviews of "
            "a user or item, as many are drawn at random and stand for all: what the score falls by without a word "
            "is an estimate. lift, tfidf and distilled are exact."
        )
    if not controls:
        notes.append(
            "Without the controls nobody can say what training, mask, sphere or the content of the text adds."
        )
    return notes
