"""The stages: read and filter, split, encode, fit and measure. Each returns what it made, and its key."""

import io
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy import ndarray

from symcere.data.arrow import map_arrow, read_own_parquet, write_arrow
from symcere.data.dataset import NO_SUPPORT, REVIEW, Dataset, HeldOut, Split, Support
from symcere.data.formats.raw import digest_input
from symcere.data.ingest import Ingestion, load_reviews
from symcere.data.noise import Noise, apply_noise
from symcere.data.reviews import Reviews
from symcere.data.splits import rows_of
from symcere.errors import ConfigError, DataError
from symcere.evaluation.compare import Values
from symcere.evaluation.measures import standard_measures
from symcere.ids import IdMap
from symcere.pipeline.systems import OURS, System
from symcere.pipeline.trackers import tracked
from symcere.pipeline.verbs import current_verbs
from symcere.pipeline.workspace import Workspace
from symcere.recommender import Recommender, Scored
from symcere.text.corpus import Part
from symcere.text.encoders import Encoder, Progress
from symcere.text.features import TextFeatures
from symcere.text.profiles import Weighting
from symcere.training.checkpoint import checkpointing
from symcere.training.config import Settings, SymcereSettings
from symcere.training.device import current_device
from symcere.training.progress import Epoch
from symcere.training.tuning import valid_ndcg

HISTORY = "history.jsonl"
"""What the epochs of a fit showed, in its stage."""

_AS_SET = {"text_times": 1.0, "apart": False}  # what of a fit of SymCERE valid has changed nothing of


@dataclass(frozen=True)
class Splitting:
    """How interactions are held out.

    Args:
        name: As it stands in reports.
        split: (reviews, seed) -> split. Under k-fold the seed is the fold.
        settings: All that decides the split beside reviews and seed, as JSON values.
        seeded: Whether another seed gives another split.
    """

    name: str
    split: Callable[[Reviews, int], Split]
    settings: Mapping[str, Any] = field(default_factory=dict)
    seeded: bool = True

    def warnings(self, seeds: Sequence[int]) -> tuple[str, ...]:
        """What these seeds do not vary."""
        if self.seeded or len(seeds) < 2:
            return ()
        return (
            f"The {self.name} split is the same under every seed: {len(seeds)} seeds repeat only the training, "
            "so their spread says nothing about other data.",
        )


@dataclass(frozen=True)
class Encoding:
    """How reviews become text features.

    Args:
        encoders: Number of train reviews -> encoders; their profiles stand side by side.
        parts: What is read of a review.
        weightings: Weights of the reviews in a profile, multiplied.
        leave_one_out: Whether features know their reviews, so that training can take a pair's own out.
        noise: What is done to the train reviews before they are read.
        words: The options that say all this, so that a finished run can be opened with the same.
    """

    encoders: Callable[[int], Sequence[Encoder]]
    parts: Sequence[Part] = ("review",)
    weightings: Sequence[Weighting] = ()
    leave_one_out: bool = False
    noise: Sequence[Noise] = ()
    words: Mapping[str, Any] = field(default_factory=dict)


def ingest(workspace: Workspace, what: Ingestion) -> tuple[Reviews, dict[str, Any]]:
    """Read a raw file and filter it; returns the reviews and the manifest of the stage."""
    parts = _decides(what)
    folder, manifest = workspace.stage("ingest", parts, _ingester(workspace, what, parts[0]))
    return load_reviews(folder, manifest), manifest


def verify(workspace: Workspace, what: Ingestion) -> tuple[dict[str, Any], list[str]]:
    """Ingest again beside what stands there, and compare.

    Args:
        workspace: Where it stands.
        what: File and filters.

    Returns:
        The manifest of what stands there, and the names of files that differ from it byte for byte.

    Raises:
        DataError: If nothing stands there yet.
    """
    parts = _decides(what)
    standing = workspace.find("ingest", parts)
    if standing is None:
        raise DataError(
            f"{workspace.folder} holds no intact ingestion of {what.path} with these options and this version. Run "
            "the same command without --verify first."
        )
    with tempfile.TemporaryDirectory(dir=workspace.folder) as temporary:
        again = Workspace(Path(temporary), workspace.watch)
        _, made = again.stage("ingest", parts, _ingester(again, what, parts[0]))
    files = standing["files"].keys() | made["files"].keys()
    return standing, sorted(name for name in files if standing["files"].get(name) != made["files"].get(name))


def _decides(what: Ingestion) -> list[Any]:
    """All that decides an ingestion."""
    return [
        digest_input(what.path),
        what.source.name if what.source else None,
        dict(what.columns or {}),
        what.skip_bad,
        [repr(chosen) for chosen in what.filters],
        digest_input(what.items) if what.items else None,
    ]


def _ingester(workspace: Workspace, what: Ingestion, sha256: str) -> Callable[[Path], Mapping[str, Any]]:
    def make(folder: Path) -> Mapping[str, Any]:
        def on_progress(share: float) -> None:
            workspace.watch.progress("", share, f"{share:.0%} of {what.path.name}")

        found = current_verbs().ingest(what, folder, on_progress)
        last = found["steps"][-1]
        counts = f"{last['n_reviews']:,} reviews, {last['n_users']:,} users, {last['n_items']:,} items"
        titles = f", {found['n_titles']:,} titles" if found["n_titles"] else ""
        return {"note": f"{counts}{titles} ({found['source']})", "sha256": sha256, **found}

    return make


def divide(workspace: Workspace, reviews: Reviews, ingested: str, how: Splitting, seed: int) -> tuple[Split, str]:
    """Split the reviews; returns the split and the key of the stage. On disk a split is row numbers, no text."""

    def make(folder: Path) -> Mapping[str, Any]:
        split = how.split(reviews, seed)
        support = split.train.support
        for part, known in (("train", split.train), ("support", support)):
            rows = rows_of(reviews, known.user, known.item)
            table = pl.DataFrame({"user": known.user, "item": known.item, "row": rows})
            write_arrow(table.cast(pl.Int32), folder / f"{part}.arrow")
        for part, held_out in (("valid", split.valid), ("test", split.test)):
            pairs = pl.DataFrame({"user": held_out.user, "item": held_out.item})
            write_arrow(pairs.cast(pl.Int32), folder / f"{part}.arrow")
        for kind, ids in (("users", split.train.users), ("items", split.train.items)):
            write_arrow(pl.DataFrame({"id": ids.ids}, schema={"id": pl.String}), folder / f"{kind}.arrow")
        counts = f"{len(split.train):,} train, {len(split.valid):,} valid, {len(split.test):,} test"
        note = f"{counts}{f', {len(support):,} support' if len(support) else ''} ({how.name})"
        return {
            "note": note,
            "split": how.name,
            "seed": seed,
            "warnings": split.warnings,
            "support": support.side,
            "ingested": ingested,
        }

    parts = [ingested, how.name, dict(how.settings), seed]
    folder, manifest = workspace.stage(f"split-seed{seed}", parts, make)
    return load_split(folder, manifest, reviews), manifest["key"]


def load_split(folder: Path, manifest: Mapping[str, Any], reviews: Reviews) -> Split:
    """Read the split that `divide` made of these reviews and wrote into a folder with this manifest."""
    users, items = (IdMap(tuple(map_arrow([folder / f"{kind}s.arrow"])["id"]), kind) for kind in ("user", "item"))

    def load(part: str) -> tuple[pl.DataFrame, ndarray, ndarray]:
        table = map_arrow([folder / f"{part}.arrow"])
        user, item = (table[side].to_numpy().astype(np.int64) for side in ("user", "item"))
        return table, user, item

    def reviews_of(part: str) -> tuple[ndarray, ndarray, pl.DataFrame]:
        table, user, item = load(part)
        return user, item, reviews.table.select(REVIEW)[table["row"].to_numpy()]

    support = Support(manifest["support"], *reviews_of("support"))
    train = Dataset(users, items, *reviews_of("train"), support if len(support) else NO_SUPPORT)
    valid, test = (HeldOut(users, items, *load(part)[1:]) for part in ("valid", "test"))
    return Split(train, valid, test, manifest["split"], tuple(manifest["warnings"]))


def encode(
    workspace: Workspace, train: Dataset, key: str, how: Encoding, cache: Path, seed: int, name: str = "encode"
) -> tuple[TextFeatures, str]:
    """Encode the train reviews, known by a key; returns the features and the key of the stage."""
    encoders = how.encoders(len(train))

    def make(folder: Path) -> Mapping[str, Any]:
        def on_progress(now: Progress) -> None:
            workspace.watch.progress(now.phase, now.share, f"{now.phase}: {now.done:,}/{now.total:,} texts")

        text = current_verbs().encode(
            apply_noise(train, how.noise, seed=seed),
            workspace.folder / "stages" / workspace.folders.get("ingest", "ingest"),
            encoders,
            how.parts,
            how.weightings,
            leave_one_out=how.leave_one_out,
            changed=bool(how.noise),
            cache=cache,
            on_progress=on_progress,
        )
        text.save(folder)
        note = f"{text.n_encoded:,} texts encoded by {text.encoder}, {text.user.shape[1]} dimensions"
        return {"note": note}

    parts = [
        key,
        [encoder.identity for encoder in encoders],
        list(how.parts),
        [repr(weighting) for weighting in how.weightings],
        how.leave_one_out,
        [repr(noise) for noise in how.noise],
    ]
    folder, manifest = workspace.stage(f"{name}-seed{seed}", parts, make)
    return TextFeatures.load(folder), manifest["key"]


def fit_system(
    workspace: Workspace, system: System, split: Split, keys: Sequence[str], text: TextFeatures, seed: int
) -> tuple[Values, dict[str, Any], Path]:
    """Fit one system, measure it on test, keep what it made; returns test values, manifest and folder.

    Where a system has several candidate settings, each is fitted and the best on valid is taken.
    """

    def make(folder: Path) -> Mapping[str, Any]:
        history: list[dict[str, Any]] = []
        began = time.perf_counter()
        best: tuple[float, Scored, Settings] | None = None
        for number, settings in enumerate(system.candidates):

            def on_epoch(epoch: Epoch, number: int = number) -> None:
                history.append({"candidate": number, **asdict(epoch)})
                show_epoch(workspace, epoch, system.max_epochs, "epochs at most")
                tell(epoch)

            name = f"{system.name}-seed{seed}" + (f"-{number}" if number else "")
            with (
                checkpointing(workspace.checkpoints),
                tracked(workspace.trackers, name, settings.model_dump(mode="json")) as tell,
            ):
                data = split.train, split.valid, text
                if isinstance(settings, SymcereSettings) and system.name == OURS:
                    fitted: Scored = verbs.fit(*data, settings, seed, on_epoch, workspace.checkpoints)
                else:
                    fitted = system.fit(*data, settings, seed, on_epoch)
            ndcg = valid_ndcg(fitted, split.train, split.valid)
            if best is None or ndcg > best[0]:
                best = (ndcg, fitted, settings)
        assert best is not None  # a system has at least one candidate
        on_valid, fitted, chosen = best
        fit_seconds = time.perf_counter() - began
        began = time.perf_counter()
        values = verbs.measure(fitted, split, standard_measures())
        test_seconds = time.perf_counter() - began
        if isinstance(fitted, Recommender):
            fitted.save(folder / "model")
        if history:
            write_history(folder, history)
        per_user = {label: value for label, value in values.items() if isinstance(value, ndarray)}
        user = np.unique(split.test.user)
        (folder / "per_user.parquet").write_bytes(_parquet(pl.DataFrame({"user": user, **per_user})))
        towers = fitted.towers if isinstance(fitted, Recommender) else None
        text_times, apart = (towers.text_times, towers.apart) if towers else (1.0, False)
        counted = "" if text_times == 1 else f", all text counted {text_times:g} times: valid is clearly better so"
        counted += ", graph and text learned apart" if apart else ""
        return {
            "note": (f"{len(history)} epochs" if history else "fitted") + counted,
            "system": system.name,
            "seed": seed,
            "settings": chosen.model_dump(mode="json"),
            "n_candidates": len(system.candidates),
            "popularity_weight": fitted.popularity_weight,
            "text_times": text_times,
            "apart": apart,
            "valid_ndcg@10": on_valid,
            "device": str(device),
            "fit_seconds": fit_seconds,
            "test_seconds": test_seconds,
            "whole": {label: value for label, value in values.items() if not isinstance(value, ndarray)},
        }

    device, verbs = current_device(), current_verbs()
    parts = [list(keys), dict(system.settings), seed, *where_it_runs()]
    folder, manifest = workspace.stage(f"{system.name}-seed{seed}".replace(":", "-"), parts, make)
    table = read_own_parquet(folder / "per_user.parquet")
    loaded = manifest["whole"] | {label: table[label].to_numpy() for label in table.columns if label != "user"}
    return {measure.label: loaded[measure.label] for measure in standard_measures()}, manifest, folder


def where_it_runs() -> list[Any]:
    """What of device and cluster decides the last digits of a fit, as JSON values; nothing on this processor."""
    device, verbs = current_device(), current_verbs()
    return ([device.type] if device.type != "cpu" else []) + ([dict(verbs.decides)] if verbs.decides else [])


def show_epoch(workspace: Workspace, epoch: Epoch, n_epochs: int, unit: str) -> None:
    """Tell who watches what an epoch showed."""
    known = f", valid NDCG@10 {epoch.best_ndcg:.4f}" if epoch.best_ndcg else ""
    masked = f", mask {epoch.known_share:.1%}" if epoch.known_share else ""
    speed = f", {epoch.interactions_per_second:,.0f} interactions/s"
    again = ", once more with graph and text apart" if epoch.again else ""
    note = f"{epoch.epoch:,}/{n_epochs:,} {unit}{again}, loss {epoch.loss:.3f}{known}{masked}{speed}"
    workspace.watch.progress("", epoch.share_of(n_epochs), note)


def write_history(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write what epochs showed, a line each."""
    (folder / HISTORY).write_text("".join(json.dumps(epoch) + "\n" for epoch in history), encoding="utf-8")


def _parquet(table: pl.DataFrame) -> bytes:
    """The bytes of a Parquet file. Python writes them: polars reports a full disk as it does a bug of ours."""
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    return buffer.getvalue()


@dataclass
class Fitted:
    """What all systems did under all seeds.

    Args:
        runs: Split and test values of each seed.
        details: System -> manifest of each seed.
        skipped: System -> why it was left out.
        text: Features of the last seed.
        folders: Where SymCERE of each seed stands.
    """

    runs: list[tuple[Split, dict[str, Values]]]
    details: dict[str, list[dict[str, Any]]]
    skipped: dict[str, str]
    text: TextFeatures
    folders: list[Path]

    @property
    def names(self) -> list[str]:
        """Systems that were fitted under every seed."""
        return list(self.runs[0][1])

    def means(self, entry: str) -> dict[str, float]:
        """System -> mean over seeds of an entry of its manifests."""
        return {name: float(np.mean([detail[entry] for detail in self.details[name]])) for name in self.names}

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """System -> the settings that it was fitted under; those of each seed where they differ.

        Where valid let all text count less or more, or be learned apart, under some seed, that is told of each.
        """
        found: dict[str, dict[str, Any]] = {}
        for name in self.names:
            first, *others = each = [detail["settings"] for detail in self.details[name]]
            asked = {key: [detail[key] for detail in self.details[name]] for key in _AS_SET}
            counted = {key: values for key, values in asked.items() if set(values) != {_AS_SET[key]}}
            found[name] = (first if all(other == first for other in others) else {"by_seed": each}) | counted
        return found

    @property
    def dials(self) -> dict[str, list[float]]:
        """System -> its popularity weight under each seed."""
        return {name: [detail["popularity_weight"] for detail in self.details[name]] for name in self.names}


def fit_all(
    workspace: Workspace,
    divided: Sequence[tuple[Split, str]],
    seeds: Sequence[int],
    encoding: Encoding,
    cache: Path,
    systems: Sequence[System],
) -> Fitted:
    """Encode, fit and measure every system under every seed.

    Args:
        workspace: Where to write.
        divided: Split of each seed, and its key.
        seeds: The seeds.
        encoding: How reviews become text features; they know their reviews where a system needs it.
        cache: Root folder of the vector cache.
        systems: What to fit.

    Returns:
        What they did.

    Raises:
        ConfigError: If SymCERE cannot be fitted; any other system that cannot is left out under all seeds and named.
    """
    needed = encoding.leave_one_out or any(system.needs_reviews for system in systems)
    encoding = replace(encoding, leave_one_out=needed)
    runs: list[tuple[Split, dict[str, Values]]] = []
    details: dict[str, list[dict[str, Any]]] = {system.name: [] for system in systems}
    skipped: dict[str, str] = {}
    folders: list[Path] = []
    for seed, (split, split_key) in zip(seeds, divided, strict=True):
        text, text_key = encode(workspace, split.train, split_key, encoding, cache, seed)
        values: dict[str, Values] = {}
        for system in systems:
            if system.name in skipped:
                continue
            keys = [split_key, text_key if system.uses_text else ""]
            try:
                values[system.name], detail, folder = fit_system(workspace, system, split, keys, text, seed)
            except ConfigError as error:
                if system.name == OURS:
                    raise
                skipped[system.name] = str(error)
                continue
            details[system.name].append(detail)
            if system.name == OURS:
                folders.append(folder)
        runs.append((split, values))
    # a system that failed under one seed is left out of all of them
    runs = [(split, {name: value for name, value in each.items() if name not in skipped}) for split, each in runs]
    return Fitted(runs, details, skipped, text, folders)
