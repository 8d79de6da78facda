"""`symcere run` as data flowing through stages: each is made once, into its own folder, and found again.

A stage's key is the digest of its inputs' keys, its settings and the package's own code. A folder that stands
under the same key is up to date; anything else is made in a temporary folder and renamed when whole.
"""

import io
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy import ndarray
from safetensors.numpy import load_file, save

from symcere import rng
from symcere.data.dataset import Dataset, HeldOut, Split
from symcere.data.kcore import k_core
from symcere.data.reviews import Reviews, Step, digest_input, read_reviews
from symcere.data.sources import Source
from symcere.errors import ConfigError
from symcere.evaluation.compare import Values, measure_test, report_of
from symcere.evaluation.measures import standard_measures
from symcere.evaluation.report import Example, Page, to_html, to_markdown
from symcere.ids import IdMap
from symcere.manifest import VERSION, code_digest, digest, digest_file, new_folder, read_manifest, write_file
from symcere.recommender import Recommender, Scored
from symcere.text.encoders import Encoder
from symcere.text.features import TextFeatures, encode_reviews
from symcere.training.loop import Epoch, OnEpoch
from symcere.training.tuning import valid_ndcg

OURS = "symcere"
"""The system that the others are compared with."""


class Watch(Protocol):
    """Who is told how a run goes on; the command line draws it as progress bars."""

    def begin(self, stage: str) -> None:
        """A stage begins."""
        ...

    def progress(self, done: int, total: int, note: str) -> None:
        """The stage in hand has done `done` of at most `total` steps."""
        ...

    def end(self, stage: str, note: str, seconds: float, *, up_to_date: bool) -> None:
        """A stage ended; `up_to_date` when it had been made before."""
        ...


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


@dataclass
class Workspace:
    """A run's folder: makes stages, and remembers what they took.

    Args:
        folder: Where everything is written.
        watch: Who is told.
        seconds: Stage -> seconds it took when it was made, which may have been an earlier run.
        up_to_date: Stages that were found.
        folders: Stage -> name of its folder.
    """

    folder: Path
    watch: Watch
    seconds: dict[str, float] = field(default_factory=dict)
    up_to_date: list[str] = field(default_factory=list)
    folders: dict[str, str] = field(default_factory=dict)

    def stage(self, name: str, parts: Sequence[Any], make: Callable[[Path], Mapping[str, Any]]) -> Path:
        """Return the folder of a stage, making it unless it stands there under the same key.

        Args:
            name: Of the stage.
            parts: All that decides its content, as JSON values.
            make: Writes the content into an empty folder; returns entries for its manifest, among them
                "note", a few words for the screen.

        Returns:
            The folder.

        Raises:
            OutputError: If it cannot be written.
        """
        key = digest(code_digest(), name, parts)
        folder = self.folder / "stages" / f"{name}-{key[:8]}"
        self.watch.begin(name)
        manifest = read_manifest(folder)
        found = manifest is not None and manifest["key"] == key
        if not found:
            began = time.perf_counter()
            fields: dict[str, Any] = {"stage": name}
            with new_folder(folder, key, fields) as temporary:
                fields |= make(temporary)
                fields["seconds"] = round(time.perf_counter() - began, 3)
            manifest = fields
        assert manifest is not None
        self.seconds[name] = manifest["seconds"]
        self.folders[name] = folder.name
        if found:
            self.up_to_date.append(name)
        self.watch.end(name, manifest["note"], manifest["seconds"], up_to_date=found)
        return folder


@dataclass(frozen=True)
class Result:
    """What a run found, ready to be printed.

    Args:
        folder: Where it is written.
        page: What the report page shows, the report of test results in it.
        summary: The object that `--json` prints.
        split: The split of the first seed.
    """

    folder: Path
    page: Page
    summary: dict[str, Any]
    split: Split


def run(
    file: Path,
    workspace: Workspace,
    *,
    source: Source | None,
    columns: Mapping[str, str],
    skip_bad: bool,
    k: int,
    splitter: Callable[[Reviews, int], Split],
    split_name: str,
    seeds: Sequence[int],
    encoders: Sequence[Encoder],
    cache: Path,
    systems: Sequence[System],
    command: str,
) -> Result:
    """Go from a raw file to a report: ingest, split, encode, fit every system, compare, write.

    Args:
        file: The raw review file.
        workspace: Where to write, and who watches.
        source: The corpus, or None to recognise it.
        columns: The user's column map.
        skip_bad: Drop and count lines that cannot be parsed.
        k: Of the k-core.
        splitter: (reviews, seed) -> split.
        split_name: How the split is called.
        seeds: Each gives a split and a fit of every system.
        encoders: Encoders of the reviews; their profiles are concatenated.
        cache: Root folder of the vector cache.
        systems: At least SymCERE.
        command: The command line, for the report.

    Returns:
        What was found; all of it is also on disk.

    Raises:
        ConfigError: If SymCERE cannot be fitted; a baseline that cannot is left out and named.
    """
    reviews, ingested, sha256 = ingest(workspace, file, source=source, columns=columns, skip_bad=skip_bad, k=k)
    runs: list[tuple[Split, dict[str, Values]]] = []
    details: dict[str, list[dict[str, Any]]] = {system.name: [] for system in systems}
    skipped: dict[str, str] = {}
    first: Path | None = None
    for seed in seeds:
        split, split_key = divide(workspace, reviews, ingested, splitter, split_name, seed)
        text, text_key = encode(workspace, split, split_key, encoders, cache, seed)
        values: dict[str, Values] = {}
        for system in systems:
            if system.name in skipped:
                continue
            try:
                folder = fit_system(
                    workspace, system, split, [split_key, text_key if system.uses_text else ""], text, seed
                )
            except ConfigError as error:
                if system.name == OURS:
                    raise
                skipped[system.name] = str(error)
                continue
            values[system.name], detail = _load_result(folder)
            details[system.name].append(detail)
            if system.name == OURS and first is None:
                first = folder / "model"
        runs.append((split, values))
    names = [name for name in runs[-1][1] if name not in skipped]
    report = report_of([(split, {name: values[name] for name in names}) for split, values in runs])
    assert first is not None
    model = Recommender.load(first)
    page = Page(
        title=file.name,
        command=command,
        split=split_name,
        seeds=tuple(seeds),
        steps=reviews.steps,
        n_without_text=reviews.n_without_text,
        n_without_time=reviews.n_without_time,
        n_users=len(model.users),
        n_items=len(model.items),
        report=report,
        ours=OURS,
        seconds={name: float(np.mean([d["fit_seconds"] for d in details[name]])) for name in names},
        valid={name: float(np.mean([d["valid_ndcg@10"] for d in details[name]])) for name in names},
        settings={name: details[name][0]["settings"] for name in names},
        dials={name: [d["popularity_weight"] for d in details[name]] for name in names},
        skipped=skipped,
        examples=examples(model, runs[0][0]),
        encoder="+".join(encoder.name for encoder in encoders),
    )
    summary = _summary(page, workspace)
    _write(workspace, page, summary, model, {"k_core": k, "columns": dict(columns), "sha256": sha256})
    return Result(workspace.folder, page, summary, runs[0][0])


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

    folder = workspace.stage("ingest", parts, make)
    manifest = read_manifest(folder)
    assert manifest is not None
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
        train = {"user": split.train.user, "item": split.train.item, "text": split.train.text}
        (folder / "train.parquet").write_bytes(_parquet(pl.DataFrame(train)))
        for part, held_out in (("valid", split.valid), ("test", split.test)):
            pairs = pl.DataFrame({"user": held_out.user, "item": held_out.item})
            (folder / f"{part}.parquet").write_bytes(_parquet(pairs))
        ids = {"users": split.train.users.ids, "items": split.train.items.ids}
        (folder / "ids.json").write_text(json.dumps(ids), encoding="utf-8")
        note = f"{len(split.train):,} train, {len(split.valid):,} valid, {len(split.test):,} test ({name})"
        return {"note": note, "split": name, "seed": seed}

    folder = workspace.stage(f"split-seed{seed}", [ingested, name, seed], make)
    ids = json.loads((folder / "ids.json").read_text(encoding="utf-8"))
    users, items = IdMap(tuple(ids["users"]), "user"), IdMap(tuple(ids["items"]), "item")

    def load(part: str) -> tuple[pl.DataFrame, ndarray, ndarray]:
        table = pl.read_parquet(folder / f"{part}.parquet")
        return table, table["user"].to_numpy(), table["item"].to_numpy()

    table, user, item = load("train")
    train = Dataset(users, items, user, item, table["text"])
    valid, test = (HeldOut(users, items, *load(part)[1:]) for part in ("valid", "test"))
    manifest = read_manifest(folder)
    assert manifest is not None
    return Split(train, valid, test, name), manifest["key"]


def encode(
    workspace: Workspace, split: Split, split_key: str, encoders: Sequence[Encoder], cache: Path, seed: int
) -> tuple[TextFeatures, str]:
    """Encode the train reviews; returns the features and the key of the stage."""

    def make(folder: Path) -> Mapping[str, Any]:
        def on_progress(done: int, total: int) -> None:
            workspace.watch.progress(done, total, "reviews")

        text = encode_reviews(split.train, *encoders, cache=cache, on_progress=on_progress)
        (folder / "features.safetensors").write_bytes(save({"user": text.user, "item": text.item}))
        note = f"{text.n_encoded:,} texts encoded by {text.encoder}, {text.user.shape[1]} dimensions"
        return {
            "note": note,
            "encoder": text.encoder,
            "fingerprint": text.fingerprint,
            "n_encoded": text.n_encoded,
        }

    folder = workspace.stage(f"encode-seed{seed}", [split_key, [repr(encoder) for encoder in encoders]], make)
    manifest = read_manifest(folder)
    assert manifest is not None
    tensors = load_file(folder / "features.safetensors")
    text = TextFeatures(
        tensors["user"], tensors["item"], manifest["encoder"], manifest["fingerprint"], manifest["n_encoded"]
    )
    return text, manifest["key"]


def fit_system(
    workspace: Workspace, system: System, split: Split, keys: Sequence[str], text: TextFeatures, seed: int
) -> Path:
    """Fit one system, measure it on test, keep model, history and per-user values; returns the stage's folder."""

    def make(folder: Path) -> Mapping[str, Any]:
        history: list[dict[str, Any]] = []

        def on_epoch(epoch: Epoch) -> None:
            history.append(asdict(epoch))
            best = f", valid NDCG@10 {epoch.best_ndcg:.4f}" if epoch.best_ndcg else ""
            workspace.watch.progress(epoch.epoch, system.max_epochs, f"loss {epoch.loss:.3f}{best}")

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
    return workspace.stage(f"{system.name}-seed{seed}", parts, make)


def _parquet(table: pl.DataFrame) -> bytes:
    """The bytes of a Parquet file. Python writes them: polars reports a full disk as it does a bug of ours."""
    buffer = io.BytesIO()
    table.write_parquet(buffer)
    return buffer.getvalue()


def _load_result(folder: Path) -> tuple[Values, dict[str, Any]]:
    """Values of a fitted system in the order of the standard measures, and its manifest."""
    manifest = read_manifest(folder)
    assert manifest is not None
    table = pl.read_parquet(folder / "per_user.parquet")
    loaded = manifest["whole"] | {label: table[label].to_numpy() for label in table.columns if label != "user"}
    return {measure.label: loaded[measure.label] for measure in standard_measures()}, manifest


def examples(model: Recommender, split: Split, n: int = 3, k: int = 5) -> tuple[Example, ...]:
    """Recommendations of `n` users drawn at random among those with held-out interactions."""
    tested = np.unique(split.test.user)
    drawn = rng.stream(0, "examples").choice(tested, size=min(n, len(tested)), replace=False)
    made = []
    for user in sorted(drawn):
        held_out = {split.train.items.id(int(item)) for item in split.test.item[split.test.user == user]}
        user_id = model.users.id(int(user))
        rows = tuple((item, score, item in held_out) for item, score in model.recommend(user_id, k))
        made.append(Example(user_id, int((split.train.user == user).sum()), rows))
    return tuple(made)


def _summary(page: Page, workspace: Workspace) -> dict[str, Any]:
    """The object that `--json` prints."""
    report = page.report
    test = page.test_against_best
    return {
        "dataset": {
            "n_users": page.n_users,
            "n_items": page.n_items,
            "n_reviews": page.steps[-1].n_reviews,
            "steps": [asdict(step) for step in page.steps],
            "n_without_text": page.n_without_text,
            "n_without_time": page.n_without_time,
        },
        "split": page.split,
        "seeds": list(page.seeds),
        "encoder": page.encoder,
        "seconds": {name: round(seconds, 3) for name, seconds in workspace.seconds.items()},
        "up_to_date": workspace.up_to_date,
        "systems": {
            name: {label: report.mean(name, label) for label in report.labels}
            | {"valid_ndcg@10": page.valid[name], "seconds": page.seconds[name]}
            for name in report.systems
        },
        "skipped": page.skipped,
        "best_baseline": page.best_baseline,
        "p_value": test[0].p_t if test else None,
        "tests": {name: asdict(t) | {"p_holm": p} for name, (t, p) in page.tests.items()},
        "recommendations": {
            example.user_id: [
                {"item_id": item, "score": score, "held_out": hit} for item, score, hit in example.items
            ]
            for example in page.examples
        },
        "run": str(workspace.folder),
    }


def _write(
    workspace: Workspace, page: Page, summary: Mapping[str, Any], model: Recommender, source: Mapping[str, Any]
) -> None:
    """Write the run's own artefacts beside its stages; the manifest last, so that it vouches for the others."""
    folder = workspace.folder
    model.save(folder / "model")
    per_user = page.report.per_user
    write_file(folder / "per_user.csv", per_user.write_csv())
    write_file(folder / "results.json", json.dumps(summary, indent=2) + "\n")
    write_file(folder / "report.md", to_markdown(page))
    write_file(folder / "report.html", to_html(page))
    written = ("per_user.csv", "results.json", "report.md", "report.html", "model/manifest.json")
    manifest = {
        "symcere": VERSION,
        "command": page.command,
        "input": {"file": page.title, **source},
        "steps": summary["dataset"]["steps"],
        "split": page.split,
        "seeds": summary["seeds"],
        "encoder": page.encoder,
        "stages": workspace.folders,
        "settings": page.settings,
        "files": {name: digest_file(folder / name) for name in written},
    }
    write_file(folder / "manifest.json", json.dumps(manifest, indent=2) + "\n")


def remove_unfinished(folder: Path, older_than: float = 86_400) -> None:
    """Remove temporary folders that a killed run left behind.

    Args:
        folder: A run's folder.
        older_than: Seconds; a younger one may belong to a run that is going on.
    """
    for leftover in (folder / "stages").glob(".*"):
        if time.time() - leftover.stat().st_mtime > older_than:
            shutil.rmtree(leftover, ignore_errors=True)
