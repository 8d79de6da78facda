"""From a raw file to a report: the stages in order, then what is printed and written."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from symcere import rng
from symcere.data.arrow import write_arrow
from symcere.data.dataset import Split
from symcere.data.ingest import Ingestion
from symcere.data.interactions import Step
from symcere.data.items import ITEMS_FILE
from symcere.errors import ConfigError
from symcere.evaluation.compare import measure_test, report_of
from symcere.evaluation.measures import standard_measures
from symcere.evaluation.report import Example, Page, to_html, to_markdown
from symcere.evaluation.runs import ImportedRun, read_run
from symcere.manifest import VERSION, digest_file, write_file
from symcere.pipeline.stages import Encoding, Splitting, divide, fit_all, ingest
from symcere.pipeline.systems import OURS, System
from symcere.pipeline.workspace import Workspace
from symcere.recommender import Recommender


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
    what: Ingestion,
    workspace: Workspace,
    *,
    splitting: Splitting,
    seeds: Sequence[int],
    encoding: Encoding,
    cache: Path,
    systems: Sequence[System],
    imports: Mapping[str, str],
    command: str,
) -> Result:
    """Go from a raw file to a report: ingest, split, encode, fit every system, compare, write.

    Args:
        what: The raw review file and the filters.
        workspace: Where to write, and who watches.
        splitting: How interactions are held out.
        seeds: Each gives a split and a fit of every system.
        encoding: How reviews become text features.
        cache: Root folder of the vector cache.
        systems: At least SymCERE.
        imports: Name -> run file of another system, "{seed}" in it standing for the seed: measured beside the others.
        command: The command line, for the report.

    Returns:
        What was found; all of it is also on disk.

    Raises:
        ConfigError: If SymCERE cannot be fitted; a baseline that cannot is left out and named. If one run file is
            given for several splits.
        DataError: If a run file cannot be read, or is not of this split.
    """
    _check_imports(imports, systems, splitting, seeds)
    reviews, ingested = ingest(workspace, what)
    divided = [divide(workspace, reviews, ingested["key"], splitting, seed) for seed in seeds]
    imported = [
        {name: read_run(at.replace("{seed}", str(seed)), split) for name, at in imports.items()}
        for seed, (split, _) in zip(seeds, divided, strict=True)
    ]
    done = fit_all(workspace, divided, seeds, encoding, cache, systems)
    measures = standard_measures()
    runs = [
        (split, values | {name: measure_test(run, split, measures) for name, run in theirs.items()})
        for (split, values), theirs in zip(done.runs, imported, strict=True)
    ]
    model = Recommender.load(done.folders[0] / "model")
    page = Page(
        title=what.path.name,
        command=command,
        split=splitting.name,
        warnings=(*_warnings(divided[0][0], splitting, seeds, imports, imported), *_dropped(reviews.steps)),
        seeds=tuple(seeds),
        steps=reviews.steps,
        n_without_text=ingested["n_without_text"],
        n_without_time=ingested["n_without_time"],
        n_users=len(model.users),
        n_items=len(model.items),
        report=report_of(runs),
        ours=OURS,
        seconds=done.means("fit_seconds"),
        valid=done.means("valid_ndcg@10"),
        settings=done.settings,
        dials=done.dials,
        skipped=done.skipped,
        examples=examples(model, runs[0][0]),
        encoder=done.text.encoder,
        noise={noise.name: noise.rate for noise in encoding.noise},
        items=reviews.items,
    )
    summary = _summary(page, workspace)
    read = {
        name: {path: digest_file(Path(path)) for seed in seeds for path in [at.replace("{seed}", str(seed))]}
        for name, at in imports.items()
    }
    source_fields = {
        "filters": [chosen.name for chosen in what.filters],
        "columns": dict(what.columns or {}),
        "sha256": ingested["sha256"],
        "imported_runs": read,
    }
    _write(workspace, page, summary, model, source_fields, encoding.words)
    return Result(workspace.folder, page, summary, runs[0][0])


def _check_imports(
    imports: Mapping[str, str], systems: Sequence[System], splitting: Splitting, seeds: Sequence[int]
) -> None:
    for name, at in imports.items():
        if name in {system.name for system in systems}:
            raise ConfigError(f"An imported run needs a name of its own; {name!r} is a system of ours.")
        if splitting.seeded and len(seeds) > 1 and "{seed}" not in at:
            raise ConfigError(
                f"Each of the {len(seeds)} seeds has its own {splitting.name} split, and so needs its own run of "
                f"{name}: write {{seed}} where their names differ; found {at!r}."
            )


def _warnings(
    split: Split,
    splitting: Splitting,
    seeds: Sequence[int],
    imports: Mapping[str, str],
    imported: Sequence[Mapping[str, ImportedRun]],
) -> tuple[str, ...]:
    """What results cannot promise: the split's own warnings, what seeds do not vary, and what imported runs lack."""
    warnings = [*split.warnings, *splitting.warnings(seeds)]
    for seed, runs in zip(seeds, imported, strict=True):
        for name, run in runs.items():
            if run.note:
                warnings.append(f"{name} ({imports[name].replace('{seed}', str(seed))}): {run.note}.")
    return tuple(warnings)


def _dropped(steps: Sequence[Step]) -> tuple[str, ...]:
    """Say that a k-core dropped most reviews, and what else could be done; nothing where it kept half of them."""
    *_, before, after = steps
    if not after.name.endswith("-core") or 2 * after.n_reviews >= before.n_reviews:
        return ()
    return (
        f"The {after.name} keeps {after.n_reviews:,} of {before.n_reviews:,} reviews and {after.n_users:,} of "
        f"{before.n_users:,} users: what the others wrote and chose is not learned from, and they get no "
        "recommendations. Under --split random and leave-last-out --k-core 1 learns from them too, with --item-k and "
        "--ask-from as high as the k-core was.",
    )


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
        "warnings": list(page.warnings),
        "seeds": list(page.seeds),
        "encoder": page.encoder,
        "noise": dict(page.noise),
        "seconds": {name: round(seconds, 3) for name, seconds in workspace.seconds.items()},
        "up_to_date": workspace.up_to_date,
        "systems": {
            name: {label: report.mean(name, label) for label in report.labels}
            | {"valid_ndcg@10": page.valid.get(name), "seconds": page.seconds.get(name)}
            for name in report.systems
        },
        "by_seed": report.by_seed,
        "skipped": page.skipped,
        "best_baseline": page.best_baseline,
        "p_value": test[0].p_t if test else None,
        "tests": {name: asdict(t) | {"p_holm": p} for name, (t, p) in page.tests.items()},
        "recommendations": {
            example.user_id: [
                {"item_id": item, "title": page.items.title(item), "score": score, "held_out": hit}
                for item, score, hit in example.items
            ]
            for example in page.examples
        },
        "run": str(workspace.folder),
    }


def _write(
    workspace: Workspace,
    page: Page,
    summary: Mapping[str, Any],
    model: Recommender,
    source: Mapping[str, Any],
    encoding: Mapping[str, Any],
) -> None:
    """Write the run's own artefacts beside its stages; the manifest last, so that it vouches for the others."""
    folder = workspace.folder
    model.save(folder / "model")
    write_arrow(page.items.table, folder / ITEMS_FILE)
    per_user = page.report.per_user
    write_file(folder / "per_user.csv", per_user.write_csv())
    write_file(folder / "results.json", json.dumps(summary, indent=2) + "\n")
    write_file(folder / "report.md", to_markdown(page))
    write_file(folder / "report.html", to_html(page))
    written = ("per_user.csv", "results.json", "report.md", "report.html", "model/manifest.json", ITEMS_FILE)
    manifest = {
        "symcere": VERSION,
        "command": page.command,
        "input": {"file": page.title, **source},
        "steps": summary["dataset"]["steps"],
        "split": page.split,
        "seeds": summary["seeds"],
        "encoder": page.encoder,
        "encoding": dict(encoding),
        "noise": dict(page.noise),
        "stages": workspace.folders,
        "settings": page.settings,
        "files": {name: digest_file(folder / name) for name in written},
    }
    write_file(folder / "manifest.json", json.dumps(manifest, indent=2) + "\n")
