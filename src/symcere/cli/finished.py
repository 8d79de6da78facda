"""Commands on a finished run: recommend, similar, explain, analyse, export."""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import filesize

from symcere.cli.app import app
from symcere.cli.options import (
    Cache,
    Device,
    ExportName,
    Json,
    Quiet,
    Refit,
    RunFolder,
    RunOrBundle,
    RunSeed,
    Threads,
)
from symcere.cli.screen import (
    ScreenWatch,
    interruptible,
    show_analysis,
    show_items,
    show_reasons,
)
from symcere.cli.words import (
    encoding_again,
    set_threads,
)
from symcere.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from symcere.analysis.why import Explainer
    from symcere.data.interchange import Format
    from symcere.data.items import Items
    from symcere.pipeline.finished import FinishedRun


@app.command(
    epilog="Examples:\n\n  symcere recommend runs/demo user00007\n\n"
    "  symcere recommend runs/demo user00007 -k 20 --dial 0"
)
def recommend(
    run_folder: RunOrBundle,
    user_id: Annotated[str, typer.Argument(help="A user id of the review file.", show_default=False)],
    k: Annotated[int, typer.Option("-k", min=1, help="How many items.")] = 10,
    dial: Annotated[
        float | None,
        typer.Option("--dial", help="Popularity weight; 0 ranks by taste alone.", show_default="as chosen on valid"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Recommend items to a user of a run."""
    model = _load(run_folder)
    if dial is not None:
        model = model.with_popularity_weight(dial)
    items = model.recommend(user_id, k)
    show_items(f"Recommended to {user_id}", "score", items, _titles(run_folder), as_json=as_json)


@app.command(epilog="Example:\n\n  symcere similar runs/demo item00007 -k 5")
def similar(
    run_folder: RunOrBundle,
    item_id: Annotated[str, typer.Argument(help="An item id of the review file.", show_default=False)],
    k: Annotated[int, typer.Option("-k", min=1, help="How many items.")] = 10,
    as_json: Json = False,
) -> None:
    """Find the items nearest to an item of a run."""
    items = _load(run_folder).similar_items(item_id, k)
    show_items(f"Similar to {item_id}", "cosine", items, _titles(run_folder), as_json=as_json)


@app.command(
    epilog="Examples:\n\n  symcere explain runs/demo user00007\n\n"
    "  symcere explain runs/hotels u021a27e6a1f169 100504 --json"
)
def explain(
    run_folder: RunOrBundle,
    user_id: Annotated[str, typer.Argument(help="A user id of the review file.", show_default=False)],
    item_id: Annotated[
        str | None,
        typer.Argument(help="An item id, recommended or not.", show_default="the first recommended"),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many recommendations to explain.")] = 1,
    n: Annotated[int, typer.Option("-n", min=1, help="How many words and neighbours to name.")] = 8,
    seed: RunSeed = None,
    cache: Cache = Path("runs/cache"),
    as_json: Json = False,
) -> None:
    """Say why an item is recommended to a user: words, sentences, neighbours, and the parts of the score.

    The parts sum to the score. A word's value is how far the score falls without it, computed exactly.
    """
    from symcere.bundle import open_bundle
    from symcere.pipeline.analyse import open_run
    from symcere.pipeline.finished import FinishedRun

    explainer_of: Callable[[], Explainer]
    if (run_folder / "reader").is_dir():
        bundle = open_bundle(run_folder)
        model, titles, explainer_of = bundle.model, bundle.items, lambda: bundle.explainer
    else:
        finished = FinishedRun.open(run_folder, seed)
        model, titles = finished.model, finished.reviews.items
        explainer_of = lambda: open_run(finished, encoding_again(finished.encoding), cache).explainer  # noqa: E731
    model.users.index(user_id)  # refuse before the encoders are made
    items = [item_id] if item_id is not None else [item for item, _ in model.recommend(user_id, k)]
    for item in items:
        model.items.index(item)
    with interruptible("Interrupted."):
        explainer = explainer_of()
        reasons = [explainer.why(user_id, item, n=n) for item in items]
    show_reasons(reasons, titles, as_json=as_json)


@app.command(
    epilog="Examples:\n\n  symcere analyse runs/demo\n\n  symcere analyse runs/hotels --no-controls --out hotels-page"
)
def analyse(
    run_folder: RunFolder,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the page.", show_default="RUN/analysis")
    ] = None,
    controls: Annotated[
        bool,
        typer.Option("--controls/--no-controls", help="Fit the twins that the page compares with; kept in the run."),
    ] = True,
    umap: Annotated[
        bool, typer.Option("--umap/--no-umap", help="Draw the map by UMAP too, where symcere\\[umap] is installed.")
    ] = True,
    seed: RunSeed = None,
    cache: Cache = Path("runs/cache"),
    threads: Threads = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write one page on what a run learned from the words: anchors, reasons, geometry, popularity.

    Each figure has a question, an answer computed from the data, and its data as CSV. Controls are fitted beside: no
    mask, no sphere, shuffled text, and the encoder without training.
    """
    from symcere.pipeline.analyse import analyse as run_analysis
    from symcere.pipeline.finished import FinishedRun
    from symcere.pipeline.workspace import remove_unfinished

    finished = FinishedRun.open(run_folder, seed)
    how = encoding_again(finished.encoding)
    set_threads(threads)
    workers = threads or os.cpu_count() or 1
    with interruptible(), ScreenWatch(quiet=quiet) as watch:
        remove_unfinished(run_folder)
        folder = run_analysis(
            finished, watch, how=how, cache=cache, controls=controls, umap=umap, workers=workers, out=out,
            command=shlex.join(["symcere", *sys.argv[1:]]),
        )  # fmt: skip
    show_analysis(folder, as_json=as_json)


@app.command(
    epilog="Examples:\n\n  symcere export runs/hotels --format bundle --out hotels-bundle\n\n"
    "  symcere export runs/hotels --format bundle --refit --out hotels-bundle\n\n"
    "  symcere export runs/hotels --format recbole --out hotels\n\n"
    "  symcere export runs/hotels --format trec --out judged --seed 1"
)
def export(
    run_folder: RunFolder,
    form: Annotated[ExportName, typer.Option("--format", help="What to write.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.", show_default=False)],
    half: Annotated[bool, typer.Option("--half", help="Write the vectors of a bundle as float16.")] = False,
    seed: RunSeed = None,
    refit: Refit = False,
    threads: Threads = None,
    device: Device = "cpu",
    cache: Cache = Path("runs/cache"),
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write a run as a bundle to serve, or its split for other tools.

    bundle: recommender, encoders, titles and train reviews in one folder, opened without torch (docs/bundle.md);
    with --refit learned once more from everything, as a service wants it.
    recbole: atomic files that RecBole takes as they are split. csv: train.csv with the reviews, valid.csv, test.csv.
    trec: relevance judgements of valid and test, and symcere's own rankings as a run file.
    """
    if form is ExportName.BUNDLE:
        from symcere.bundle import write_bundle
        from symcere.pipeline.finished import FinishedRun
        from symcere.training.device import on_device

        set_threads(threads)
        finished = FinishedRun.open(run_folder, seed)
        with on_device(device), interruptible(), ScreenWatch(quiet=quiet or as_json) as watch:
            explainer = explainer_to_serve(finished, cache, watch, refit=refit)
            if not refit:
                say_what_is_not_known(finished, watch.console)
        write_bundle(explainer, finished.reviews.items, out, half=half)
        files = sorted(path for path in out.rglob("*") if path.is_file() and path.name != "manifest.json")
    else:
        for word in [word for word, given in (("--refit", refit), ("--half", half)) if given]:
            raise ConfigError(f"{word} is for --format bundle; {form.value} is the split that was measured.")
        from symcere.pipeline.export import export_run

        forms: dict[ExportName, Format] = {
            ExportName.RECBOLE: "recbole",
            ExportName.CSV: "csv",
            ExportName.TREC: "trec",
        }
        files = export_run(run_folder, out, forms[form], seed)
    if as_json:
        typer.echo(json.dumps({"format": form.value, "files": [str(path) for path in files]}))
        return
    for path in files:
        typer.echo(f"{path}  {filesize.decimal(path.stat().st_size)}")


def explainer_to_serve(run: "FinishedRun", cache: Path, watch: "ScreenWatch", *, refit: bool) -> "Explainer":
    """What a run learned, or learns once more from all interactions, ready for a bundle."""
    from symcere.pipeline.analyse import open_run
    from symcere.pipeline.refit import refit as fit_again

    how = encoding_again(run.encoding)
    return fit_again(run, watch, how, cache) if refit else open_run(run, how, cache).explainer


def say_what_is_not_known(run: "FinishedRun", console: "Console") -> None:
    """Say that what was measured has not learned from what it was measured on."""
    known, n = len(run.split.train), len(run.reviews)
    console.print(
        f"[yellow]Note[/] What is served has learned from {known:,} of {n:,} interactions, as it was measured, and "
        "may recommend what users chose in the others; --refit learns from all of them.",
        soft_wrap=True,
    )


def _titles(run_folder: Path) -> "Items":
    from symcere.data.arrow import map_arrow
    from symcere.data.items import ITEMS_FILE, Items

    file = run_folder / ITEMS_FILE
    return Items(map_arrow([file])) if file.exists() else Items()


def _load(run_folder: Path) -> Any:
    from symcere.recommender import Recommender

    inner = run_folder / "model"
    return Recommender.load(inner if inner.is_dir() else run_folder)
