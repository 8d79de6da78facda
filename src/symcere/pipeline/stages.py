"""The stages: read and filter, split, encode, fit and measure. Each returns what it made, and its key."""

import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy import ndarray

from symcere.data.dataset import REVIEW, Dataset, HeldOut, Split
from symcere.data.formats import digest_input
from symcere.data.kcore import k_core
from symcere.data.reviews import Reviews, Step, read_reviews
from symcere.data.sources import Source
from symcere.evaluation.compare import Values, measure_test
from symcere.evaluation.measures import standard_measures
from symcere.ids import IdMap
from symcere.pipeline.workspace import Workspace
from symcere.recommender import Recommender, Scored
from symcere.text.corpus import Part
from symcere.text.encoders import Encoder, Progress
from symcere.text.features import TextFeatures, encode_reviews
from symcere.text.profiles import Weighting
from symcere.training.loop import Epoch, OnEpoch
from symcere.training.tuning import valid_ndcg


@dataclass(frozen=True)
class System:
    """A system as the pipeline sees it.

    Args:
        name: Short name.
        fit: (train, valid, text, seed, on_epoch) -> fitted system. There is no way to hand it test.
        settings: All that decides the fit, as JSON values.
        uses_text: Whether the text features matter to it.
        max_epochs: For the progress bar; 1 where there are no epochs.
    """

    name: str
    fit: Callable[[Dataset, HeldOut, TextFeatures, int, OnEpoch], Scored]
    settings: Mapping[str, Any]
    uses_text: bool = False
    max_epochs: int = 1


@dataclass(frozen=True)
class Encoding:
    """How reviews become text features.

    Args:
        encoders: Number of train reviews -> encoders; their profiles stand side by side.
        parts: What is read of a review.
        weightings: Weights of the reviews in a profile, multiplied.
        leave_one_out: Whether training takes the review of a pair out of the pair's profiles.
    """

    encoders: Callable[[int], Sequence[Encoder]]
    parts: Sequence[Part] = ("review",)
    weightings: Sequence[Weighting] = ()
    leave_one_out: bool = False


def ingest(
    workspace: Workspace,
    file: Path,
    *,
    source: Source | None,
    columns: Mapping[str, str],
    skip_bad: bool,
    k: int,
) -> tuple[Reviews, str, str]:
    """Read a raw file and take its k-core; returns the reviews, the key of the stage and the SHA-256 of the file."""
    sha256 = digest_input(file)
    parts = [sha256, source.name if source else None, dict(columns), skip_bad, k]

    def make(folder: Path) -> Mapping[str, Any]:
        reviews = k_core(read_reviews(file, source=source, columns=columns, skip_bad=skip_bad), k)
        (folder / "reviews.parquet").write_bytes(_parquet(reviews.table))
        last = reviews.steps[-1]
        note = f"{last.n_reviews:,} reviews, {last.n_users:,} users, {last.n_items:,} items ({reviews.source})"
        return {"note": note, "source": reviews.source, "steps": reviews.summary()}

    folder, manifest = workspace.stage("ingest", parts, make)
    steps = tuple(Step(**step) for step in manifest["steps"])
    reviews = Reviews(pl.read_parquet(folder / "reviews.parquet"), manifest["source"], steps)
    return reviews, manifest["key"], sha256


def divide(
    workspace: Workspace,
    reviews: Reviews,
    ingested: str,
    splitter: Callable[[Reviews, int], Split],
    name: str,
    seed: int,
) -> tuple[Split, str]:
    """Split the reviews; returns the split and the key of the stage."""

    def make(folder: Path) -> Mapping[str, Any]:
        split = splitter(reviews, seed)
        train = split.train.review.with_columns(user=split.train.user, item=split.train.item)
        (folder / "train.parquet").write_bytes(_parquet(train))
        for part, held_out in (("valid", split.valid), ("test", split.test)):
            pairs = pl.DataFrame({"user": held_out.user, "item": held_out.item})
            (folder / f"{part}.parquet").write_bytes(_parquet(pairs))
        ids = {"users": split.train.users.ids, "items": split.train.items.ids}
        (folder / "ids.json").write_text(json.dumps(ids), encoding="utf-8")
        note = f"{len(split.train):,} train, {len(split.valid):,} valid, {len(split.test):,} test ({name})"
        return {"note": note, "split": name, "seed": seed}

    folder, manifest = workspace.stage(f"split-seed{seed}", [ingested, name, seed], make)
    ids = json.loads((folder / "ids.json").read_text(encoding="utf-8"))
    users, items = IdMap(tuple(ids["users"]), "user"), IdMap(tuple(ids["items"]), "item")

    def load(part: str) -> tuple[pl.DataFrame, ndarray, ndarray]:
        table = pl.read_parquet(folder / f"{part}.parquet")
        return table, table["user"].to_numpy(), table["item"].to_numpy()

    table, user, item = load("train")
    train = Dataset(users, items, user, item, table.select(REVIEW))
    valid, test = (HeldOut(users, items, *load(part)[1:]) for part in ("valid", "test"))
    return Split(train, valid, test, name), manifest["key"]


def encode(
    workspace: Workspace, split: Split, split_key: str, how: Encoding, cache: Path, seed: int
) -> tuple[TextFeatures, str]:
    """Encode the train reviews; returns the features and the key of the stage."""
    encoders = how.encoders(len(split.train))

    def make(folder: Path) -> Mapping[str, Any]:
        def on_progress(now: Progress) -> None:
            workspace.watch.progress(now.phase, now.share, f"{now.phase}: {now.done:,}/{now.total:,} texts")

        text = encode_reviews(
            split.train,
            *encoders,
            parts=how.parts,
            weightings=how.weightings,
            leave_one_out=how.leave_one_out,
            cache=cache,
            on_progress=on_progress,
        )
        text.save(folder)
        note = f"{text.n_encoded:,} texts encoded by {text.encoder}, {text.user.shape[1]} dimensions"
        return {"note": note}

    parts = [
        split_key,
        [encoder.identity for encoder in encoders],
        list(how.parts),
        [repr(weighting) for weighting in how.weightings],
        how.leave_one_out,
    ]
    folder, manifest = workspace.stage(f"encode-seed{seed}", parts, make)
    return TextFeatures.load(folder), manifest["key"]


def fit_system(
    workspace: Workspace, system: System, split: Split, keys: Sequence[str], text: TextFeatures, seed: int
) -> tuple[Values, dict[str, Any], Path]:
    """Fit one system, measure it on test, keep what it made; returns test values, manifest and folder."""

    def make(folder: Path) -> Mapping[str, Any]:
        history: list[dict[str, Any]] = []

        def on_epoch(epoch: Epoch) -> None:
            history.append(asdict(epoch))
            best = f", valid NDCG@10 {epoch.best_ndcg:.4f}" if epoch.best_ndcg else ""
            note = f"{epoch.epoch:,}/{system.max_epochs:,} epochs at most, loss {epoch.loss:.3f}{best}"
            workspace.watch.progress("", epoch.epoch / system.max_epochs, note)

        began = time.perf_counter()
        fitted = system.fit(split.train, split.valid, text, seed, on_epoch)
        fit_seconds = time.perf_counter() - began
        began = time.perf_counter()
        values = measure_test(fitted, split, standard_measures())
        test_seconds = time.perf_counter() - began
        if isinstance(fitted, Recommender):
            fitted.save(folder / "model")
        if history:
            lines = "".join(json.dumps(epoch) + "\n" for epoch in history)
            (folder / "history.jsonl").write_text(lines, encoding="utf-8")
        per_user = {label: value for label, value in values.items() if isinstance(value, ndarray)}
        user = np.unique(split.test.user)
        (folder / "per_user.parquet").write_bytes(_parquet(pl.DataFrame({"user": user, **per_user})))
        return {
            "note": f"{len(history)} epochs" if history else "fitted",
            "system": system.name,
            "seed": seed,
            "settings": dict(system.settings),
            "popularity_weight": fitted.popularity_weight,
            "valid_ndcg@10": valid_ndcg(fitted, split.train, split.valid),
            "fit_seconds": fit_seconds,
            "test_seconds": test_seconds,
            "whole": {label: value for label, value in values.items() if not isinstance(value, ndarray)},
        }

    parts = [list(keys), dict(system.settings), seed]
    folder, manifest = workspace.stage(f"{system.name}-seed{seed}", parts, make)
    table = pl.read_parquet(folder / "per_user.parquet")
    loaded = manifest["whole"] | {label: table[label].to_numpy() for label in table.columns if label != "user"}
    return {measure.label: loaded[measure.label] for measure in standard_measures()}, manifest, folder


def _parquet(table: pl.DataFrame) -> bytes:
    """The bytes of a Parquet file. Python writes them: polars reports a full disk as it does a bug of ours."""
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    return buffer.getvalue()
