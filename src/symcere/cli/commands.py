"""One command a stage, plus `run` (all of them) and `demo`."""

import io
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import filesize
from rich.markup import escape

from symcere.cli.options import (
    ALL_SYSTEMS,
    Cache,
    Columns,
    ConditioningOption,
    Datasets,
    Device,
    EncoderOption,
    ExportName,
    File,
    Folds,
    ImportRun,
    ItemK,
    ItemsFile,
    Json,
    KCoreOption,
    Log,
    MaxChars,
    MaxTokens,
    MinChars,
    MinRatingOption,
    NoiseOption,
    Out,
    ProfileOption,
    Quiet,
    RunFolder,
    SampleUsers,
    Seed,
    Seeds,
    SetOption,
    Since,
    SkipBad,
    SourceOption,
    SplitName,
    SplitOption,
    SystemsOption,
    TextDim,
    Threads,
    TunedFolder,
    Until,
)
from symcere.cli.screen import (
    ScreenWatch,
    fail,
    fetch_bars,
    interruptible,
    show_bench,
    show_dataset,
    show_datasets,
    show_fetched,
    show_items,
    show_result,
    show_steps,
    show_tuned,
    show_verified,
)
from symcere.cli.words import (
    bench_data_of,
    encoding_of,
    filters_of,
    folder_of,
    ingestion_of,
    pairs_of,
    settings_of,
    split_names_of,
    splitting_of,
    systems_of,
    trackers_of,
)
from symcere.errors import ConfigError, SymcereError
from symcere.manifest import VERSION

if TYPE_CHECKING:
    from symcere.data.dataset import Split
    from symcere.data.ingest import Ingestion
    from symcere.data.items import Items
    from symcere.data.synthetic import World
    from symcere.pipeline.run import Result
    from symcere.pipeline.stages import Encoding, Splitting

app = typer.Typer(
    name="symcere",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="From a file of raw reviews to measured recommendations.\n\n"
    "SymCERE fuses who bought what with what people wrote about it. One command reads a review file, splits "
    "it, fits SymCERE and the baselines, compares them on held-out interactions and writes a report.",
    epilog="Start with [bold]symcere demo[/], then [bold]symcere run YOUR_FILE[/].",
)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"symcere {VERSION}")
        raise typer.Exit


@app.command(
    epilog="Examples:\n\n"
    "  symcere run reviews_Musical_Instruments_5.json.gz\n\n"
    "  symcere run hotels.parquet --k-core 3 --split temporal --seeds 3\n\n"
    "  symcere run hotels.parquet --split k-fold --folds 5 --import-run theirs=run_{seed}.trec\n\n"
    "  symcere run mine.csv --columns user_id=customer,item_id=sku,text=comment --systems ease\n\n"
    "  symcere run reviews.jsonl --encoder tfidf+distilled --profile recency,length\n\n"
    "  symcere run reviews.jsonl --noise typos=0.3,spam=0.1\n\n"
    "  symcere run reviews.jsonl --log tensorboard\n\n"
    "  symcere run reviews.jsonl --json --quiet > result.json"
)
def run(
    file: File,
    out: Out = None,
    k_core: KCoreOption = 5,
    item_k: ItemK = None,
    min_rating: MinRatingOption = None,
    since: Since = None,
    until: Until = None,
    min_chars: MinChars = None,
    max_chars: MaxChars = None,
    sample: SampleUsers = None,
    items: ItemsFile = None,
    split: SplitOption = SplitName.RANDOM,
    folds: Folds = None,
    seed: Seed = 0,
    seeds: Seeds = 1,
    encoder: EncoderOption = "auto",
    text_dim: TextDim = None,
    conditioning: ConditioningOption = None,
    max_tokens: MaxTokens = 128,
    profile: ProfileOption = "mean",
    noise: NoiseOption = "",
    systems: SystemsOption = ALL_SYSTEMS,
    import_run: ImportRun = None,
    columns: Columns = None,
    source: SourceOption = None,
    skip_bad: SkipBad = False,
    settings: SetOption = None,
    cache: Cache = Path("runs/cache"),
    threads: Threads = None,
    device: Device = "cpu",
    log: Log = "",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Go from a raw review file to a compared recommender and a report.

    Reads the file, takes the k-core, splits it, encodes the train reviews, fits SymCERE and the baselines, and
    compares them. Finished stages are kept: the same command goes on where it stopped.
    """
    filters = filters_of(k_core, item_k, min_rating, since, until, min_chars, max_chars, sample)
    result = _run(
        ingestion_of(file, source, columns or [], filters, items, skip_bad=skip_bad), out,
        *splitting_of(split, folds, seed, seeds),
        encoding_of(encoder, text_dim, conditioning, max_tokens, profile, noise), systems, settings or [], cache,
        threads, device, imports=import_run or [], log=log, quiet=quiet,
    )  # fmt: skip
    show_result(result, as_json=as_json)


@app.command(
    epilog="Examples:\n\n  symcere ingest reviews_Musical_Instruments_5.json.gz\n\n"
    "  symcere ingest AMAZON.jsonl.gz --items meta_AMAZON.jsonl.gz --min-rating 4 --since 2015-01-01\n\n"
    "  symcere ingest hotels/ --k-core 3 --item-k 10 --min-chars 50\n\n"
    "  symcere ingest reviews_Musical_Instruments_5.json.gz --verify"
)
def ingest(
    file: File,
    out: Out = None,
    k_core: KCoreOption = 5,
    item_k: ItemK = None,
    min_rating: MinRatingOption = None,
    since: Since = None,
    until: Until = None,
    min_chars: MinChars = None,
    max_chars: MaxChars = None,
    sample: SampleUsers = None,
    items: ItemsFile = None,
    columns: Columns = None,
    source: SourceOption = None,
    skip_bad: SkipBad = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Ingest again beside what stands there, and compare to the byte; exit 1 if not."
        ),
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Read a raw review file, filter it, and write a clean table: the first stage of a run.

    Filters apply in the order rating, period, length, sample, k-core, after duplicates are dropped; the manifest
    counts what each left. A run with the same options goes on from here.
    """
    from symcere.pipeline.stages import ingest as ingest_stage
    from symcere.pipeline.stages import verify as verify_stage
    from symcere.pipeline.workspace import Workspace, remove_unfinished

    filters = filters_of(k_core, item_k, min_rating, since, until, min_chars, max_chars, sample)
    what = ingestion_of(file, source, columns or [], filters, items, skip_bad=skip_bad)
    folder = out or folder_of(file)
    with interruptible(), ScreenWatch(quiet=quiet) as watch:
        workspace = Workspace(folder, watch)
        remove_unfinished(folder)
        if verify:
            manifest, differing = verify_stage(workspace, what)
            show_verified(folder, manifest, differing, as_json=as_json)
            raise typer.Exit(1 if differing else 0)
        _, manifest = ingest_stage(workspace, what)
    show_steps(folder / "stages" / workspace.folders["ingest"], manifest, as_json=as_json)


@app.command(epilog="Examples:\n\n  symcere demo\n\n  symcere demo --out /tmp/demo --seed 1")
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")] = Path("runs/demo"),
    seed: Seed = 0,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Make a world of reviews with a known answer, and run everything on it.

    In this world the facts that users like decide what they buy, and sentiment words are noise; so the best
    possible ranking is known, and printed beside the result.
    """
    from symcere.data.synthetic import anchoring_world, write_amazon

    world = anchoring_world(seed=seed)
    file = out / "reviews_synthetic.json.gz"
    write_amazon(world, file)
    result = _run(
        ingestion_of(file, None, [], filters_of(5), None, skip_bad=False), out,
        *splitting_of(SplitName.RANDOM, None, seed, 1), encoding_of("auto"), ALL_SYSTEMS, [], out / "cache", None,
        "cpu", imports=[], quiet=quiet,
    )  # fmt: skip
    ceiling = _ceiling(world, result.split)
    result.summary["ceiling"] = {"ndcg@10": ceiling}
    show_result(result, as_json=as_json)
    if not as_json:
        share = result.summary["systems"]["symcere"]["ndcg@10"] / ceiling
        typer.echo(
            f"The planted tastes themselves rank with ndcg@10 {ceiling:.4f}: no system can expect more. "
            f"symcere reaches {share:.0%} of it."
        )


@app.command(
    epilog="Examples:\n\n  symcere synth world.json.gz --reviews 2000000\n\n"
    "  symcere synth world.parquet --reviews 50000000 --users 4000000 --duplicates 0.02"
)
def synth(
    file: Annotated[
        Path,
        typer.Argument(help="File to write: .json or .jsonl (also with .gz), or .parquet.", show_default=False),
    ],
    reviews: Annotated[int, typer.Option("--reviews", min=1, help="How many rows.")] = 100_000,
    users: Annotated[
        int | None, typer.Option("--users", min=1, help="How many users.", show_default="an eighth of the reviews")
    ] = None,
    items: Annotated[
        int | None,
        typer.Option("--items", min=1, help="How many items.", show_default="a fifteenth of the reviews"),
    ] = None,
    duplicates: Annotated[
        float, typer.Option("--duplicates", min=0, max=0.5, help="Share of rows that are exact copies of others.")
    ] = 0.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of everything.")] = 0,
    level: Annotated[int, typer.Option("--level", min=1, max=9, help="Of gzip: 1 is fast, 9 is small.")] = 1,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Write a made-up world of reviews of any size, in the Amazon 2014 format or as Parquet.

    Facts that users like decide what they buy and what they write; sentiment follows the rating alone. The same
    options write the same bytes; 50 million reviews need less than 1 GiB of memory.
    """
    from symcere.data.synthetic import write_world

    with interruptible("Interrupted. Nothing was written."), ScreenWatch(quiet=quiet) as watch:
        began = time.perf_counter()
        watch.begin("synth")

        def on_progress(done: int) -> None:
            watch.progress("", done / reviews, f"{done:,}/{reviews:,} reviews")

        world = write_world(
            file, reviews, n_users=users, n_items=items, duplicates=duplicates, seed=seed, level=level,
            threads=threads, on_progress=on_progress,
        )  # fmt: skip
        n_users, n_items = len(world.likes), len(world.has)
        counts = f"{reviews:,} reviews ({world.n_duplicates:,} copies), {n_users:,} users, {n_items:,} items"
        watch.end("synth", f"{file}: {counts}", time.perf_counter() - began, up_to_date=False)


@app.command(
    epilog="Examples:\n\n  symcere download --list\n\n  symcere download amazon-2014-musical-instruments-5\n\n"
    "  symcere download amazon-2018-gift-cards-5 --items --out /data\n\n  symcere download yelp --show\n\n"
    "  symcere download https://example.org/reviews.jsonl.gz --sha256 HEX"
)
def download(
    name: Annotated[
        str | None, typer.Argument(help="A name of the list, or any http or https address.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write; each dataset has one in it.")] = Path(
        "data"
    ),
    items: Annotated[
        bool, typer.Option("--items/--no-items", help="Fetch titles and categories of the items, too.")
    ] = False,
    sha256: Annotated[
        str | None,
        typer.Option("--sha256", metavar="HEX", help="Checksum the file of reviews must have.", show_default=False),
    ] = None,
    list_all: Annotated[
        bool, typer.Option("--list", help="Show all datasets that are known, and fetch none.")
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Show all that is known of the dataset, and fetch none.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Fetch a public dataset of reviews, or any file: resumable, checked, whole or not there at all.

    A lost connection, an interrupt or a kill costs nothing: the same command goes on from there. The checksum of the
    first fetch is kept beside the file; a file that has it is up to date. The publisher's terms are yours to keep.
    """
    from symcere.data.catalogue import CATALOGUE, dataset_named

    if list_all:
        show_datasets(CATALOGUE, as_json=as_json)
        return
    if name is None:
        raise ConfigError("Name a dataset, or an address; symcere download --list shows the datasets.")
    if show:
        show_dataset(dataset_named(name), as_json=as_json)
        return
    from symcere.data.download import download as fetch_dataset

    message = "Interrupted. What has been fetched is kept; the same command goes on from there."
    with interruptible(message), fetch_bars(quiet=quiet) as on_progress:
        files = fetch_dataset(name, out, items=items, sha256=sha256, on_progress=on_progress)
    show_fetched(files, quiet=quiet, as_json=as_json)


@app.command(
    epilog="Examples:\n\n  symcere tune reviews_Musical_Instruments_5.json.gz\n\n"
    "  symcere tune 'Hotels=hotels.parquet@3' 'Music=music.json.gz@5' --trials 30 --systems light_gcn,ease\n\n"
    "  symcere bench 'Hotels=hotels.parquet@3' 'Music=music.json.gz@5'"
)
def tune(
    datasets: Datasets,
    trials: Annotated[
        int, typer.Option("--trials", min=1, help="Trials of each system, cut-short ones included.")
    ] = 20,
    systems: SystemsOption = "all",
    tuned: TunedFolder = Path("runs/tuned"),
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of stages and trials.")] = Path("runs/bench"),
    k_core: KCoreOption = 5,
    split: SplitOption = SplitName.RANDOM,
    seed: Seed = 0,
    seeds: Seeds = 3,
    encoder: EncoderOption = "auto",
    columns: Columns = None,
    source: SourceOption = None,
    skip_bad: SkipBad = False,
    cache: Cache = Path("runs/cache"),
    threads: Threads = None,
    device: Device = "cpu",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Search the settings of SymCERE and the baselines, each with the same number of trials.

    Trials are judged by valid NDCG@10 alone, averaged over the seeds; the published settings of a
    system, and those it has untuned, are always among them. A search that was stopped goes on; all trials are kept.
    Several processes may search different --systems.
    """
    from dataclasses import replace

    from symcere.pipeline.bench import seeded
    from symcere.pipeline.tune import tune as search
    from symcere.pipeline.tune import write_tuned
    from symcere.training.device import on_device

    chosen = systems_of(systems, {})
    data = bench_data_of(datasets, k_core, columns or [], source, skip_bad=skip_bad)
    splitting, over = splitting_of(split, None, seed, seeds)
    encoding = replace(encoding_of(encoder), leave_one_out=True)
    _set_threads(threads)
    message = "Interrupted. Finished trials are kept; the same command goes on from there."
    written: list[Path] = []
    with on_device(device), interruptible(message), ScreenWatch(quiet=quiet) as watch:
        for each in data:
            made = seeded(each, out, watch, splitting=splitting, seeds=over, encoding=encoding, cache=cache)
            about = {"dataset": each.name, "split": split.value, "seeds": list(over), "trials": trials,
                     "encoder": made[0].text.encoder, "users": len(made[0].split.train.users),
                     "items": len(made[0].split.train.items)}  # fmt: skip
            found = search(each.name, made, chosen, trials, out / "trials.db", watch)
            written.append(tuned / f"{each.slug}.json")
            write_tuned(written[-1], found, about)
    show_tuned(written, as_json=as_json)


@app.command(
    epilog="Examples:\n\n  symcere bench reviews_Musical_Instruments_5.json.gz --systems ease,light_gcn --seeds 3\n\n"
    "  symcere bench 'Hotels=hotels.parquet@3' 'Music=music.json.gz@5' --splits random,temporal,cold-items"
)
def bench(
    datasets: Datasets,
    splits: Annotated[
        str,
        typer.Option("--splits", help="Splits, by comma: random, leave-last-out, temporal, cold-items, cold-users."),
    ] = "random",
    systems: SystemsOption = "all",
    ablation: Annotated[
        bool, typer.Option("--ablation/--no-ablation", help="Twins of SymCERE with one part changed, and controls.")
    ] = True,
    tuned: TunedFolder = Path("runs/tuned"),
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")] = Path("runs/bench"),
    k_core: KCoreOption = 5,
    seed: Seed = 0,
    seeds: Seeds = 3,
    encoder: EncoderOption = "auto",
    columns: Columns = None,
    source: SourceOption = None,
    skip_bad: SkipBad = False,
    cache: Cache = Path("runs/cache"),
    threads: Threads = None,
    device: Device = "cpu",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Compare SymCERE with the baselines over data sets, splits and seeds, and write the page.

    Every fit is kept, so a run that was killed goes on from there. Tuned settings are taken where `symcere tune` left
    them; other systems take their defaults, and the page says so.
    """
    from symcere.pipeline.bench import bench as run_bench
    from symcere.training.device import on_device

    data = bench_data_of(datasets, k_core, columns or [], source, skip_bad=skip_bad)
    splittings = [splitting_of(name, None, seed, seeds) for name in split_names_of(splits)]
    chosen = systems_of(systems, {})
    _set_threads(threads)
    with on_device(device), interruptible(), ScreenWatch(quiet=quiet) as watch:
        page = run_bench(
            data, out, watch, splittings=splittings, encoding=encoding_of(encoder), cache=cache,
            systems=chosen, tuned=tuned, twins_too=ablation, command=shlex.join(["symcere", *sys.argv[1:]]),
        )  # fmt: skip
        for sentence in page.notes:
            watch.console.print(f"[yellow]Note[/] {escape(sentence)}", soft_wrap=True)
    show_bench(page, out, as_json=as_json)


@app.command(
    epilog="Examples:\n\n  symcere recommend runs/demo user00007\n\n"
    "  symcere recommend runs/demo user00007 -k 20 --dial 0"
)
def recommend(
    run_folder: RunFolder,
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
    run_folder: RunFolder,
    item_id: Annotated[str, typer.Argument(help="An item id of the review file.", show_default=False)],
    k: Annotated[int, typer.Option("-k", min=1, help="How many items.")] = 10,
    as_json: Json = False,
) -> None:
    """Find the items nearest to an item of a run."""
    items = _load(run_folder).similar_items(item_id, k)
    show_items(f"Similar to {item_id}", "cosine", items, _titles(run_folder), as_json=as_json)


@app.command(
    epilog="Examples:\n\n  symcere export runs/hotels --format recbole --out hotels\n\n"
    "  symcere export runs/hotels --format trec --out judged --seed 1"
)
def export(
    run_folder: RunFolder,
    form: Annotated[ExportName, typer.Option("--format", help="Format of the files.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.", show_default=False)],
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Which seed of the run.", show_default="its first")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the split of a run for other tools.

    recbole: atomic files that RecBole takes as they are split. csv: train.csv with the reviews, valid.csv, test.csv.
    trec: relevance judgements of valid and test, and symcere's own rankings as a run file.
    """
    from symcere.pipeline.export import export_run

    files = export_run(run_folder, out, form.value, seed)
    if as_json:
        typer.echo(json.dumps({"format": form.value, "files": [str(path) for path in files]}))
        return
    for path in files:
        typer.echo(f"{path}  {filesize.decimal(path.stat().st_size)}")


def main() -> None:
    """Run the command line: an error of ours is one sentence on standard error and exit code 2."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin starve each other on a busy machine
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without our characters is no reason to fail
    try:
        app()
    except SymcereError as error:
        fail(str(error), code=2)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        fail("Not enough memory. Raise --k-core, lower dim, or take a machine with more.", code=2)


def _run(
    what: "Ingestion",
    out: Path | None,
    splitting: "Splitting",
    seeds: Sequence[int],
    encoding: "Encoding",
    systems: str,
    settings: Sequence[str],
    cache: Path,
    threads: int | None,
    device: str,
    *,
    imports: Sequence[str],
    log: str = "",
    quiet: bool,
) -> "Result":
    """Turn words into functions and run the pipeline."""
    left_out = {"leave_one_out": True} if encoding.leave_one_out else {}
    fitters = systems_of(systems, left_out | settings_of(settings))
    from symcere.pipeline.run import run as run_pipeline
    from symcere.pipeline.workspace import Workspace, remove_unfinished
    from symcere.training.device import on_device

    _set_threads(threads)
    folder = out or folder_of(what.path)
    with on_device(device), interruptible(), ScreenWatch(quiet=quiet) as watch:
        workspace = Workspace(folder, watch, trackers=trackers_of(log, folder))
        remove_unfinished(folder)
        result = run_pipeline(
            what,
            workspace,
            splitting=splitting,
            seeds=seeds,
            encoding=encoding,
            cache=cache,
            systems=fitters,
            imports=pairs_of(imports, "--import-run"),
            command=shlex.join(["symcere", *sys.argv[1:]]),
        )
        for warning in result.page.warnings:
            watch.console.print(f"[yellow]Note[/] {escape(warning)}", soft_wrap=True)
        return result


def _set_threads(threads: int | None) -> None:
    if threads:
        import torch

        torch.set_num_threads(threads)


def _titles(run_folder: Path) -> "Items":
    from symcere.data.arrow import map_arrow
    from symcere.data.items import Items
    from symcere.pipeline.run import ITEMS

    file = run_folder / ITEMS
    return Items(map_arrow([file])) if file.exists() else Items()


def _load(run_folder: Path) -> Any:
    from symcere.recommender import Recommender

    inner = run_folder / "model"
    return Recommender.load(inner if inner.is_dir() else run_folder)


def _ceiling(world: "World", split: "Split") -> float:
    """NDCG@10 of ranking by the world's own choice probabilities."""
    from symcere.evaluation.compare import measure_test
    from symcere.evaluation.measures import mean, ndcg

    truth = world.truth(split.train.users, split.train.items)
    return mean(measure_test(truth, split, [ndcg(10)])["ndcg@10"])
