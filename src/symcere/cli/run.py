"""Commands from a raw file to a run: download, synth, ingest, run, demo."""

import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from symcere.cli.app import app
from symcere.cli.options import (
    ALL_SYSTEMS,
    AskFrom,
    Cache,
    Columns,
    ConditioningOption,
    Device,
    EncoderOption,
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
    Until,
)
from symcere.cli.screen import (
    ScreenWatch,
    fetch_bars,
    interruptible,
    show_dataset,
    show_datasets,
    show_fetched,
    show_result,
    show_steps,
    show_verified,
)
from symcere.cli.words import (
    encoding_of,
    filters_of,
    folder_of,
    ingestion_of,
    pairs_of,
    set_threads,
    settings_of,
    splitting_of,
    systems_of,
    trackers_of,
)
from symcere.errors import ConfigError

if TYPE_CHECKING:
    from symcere.data.dataset import Split
    from symcere.data.ingest import Ingestion
    from symcere.data.synthetic import World
    from symcere.pipeline.run import Result
    from symcere.pipeline.stages import Encoding, Splitting


@app.command(
    epilog="Examples:\n\n"
    "  symcere run reviews_Musical_Instruments_5.json.gz\n\n"
    "  symcere run hotels.parquet --k-core 3 --split temporal --seeds 3\n\n"
    "  symcere run hotels.parquet --k-core 1 --item-k 3 --ask-from 3\n\n"
    "  symcere run hotels.parquet --split k-fold --folds 5 --import-run theirs=run_{seed}.trec\n\n"
    "  symcere run mine.csv --columns user_id=customer,item_id=sku,text=comment --systems ease\n\n"
    "  symcere run reviews.jsonl --encoder lift+distilled --profile recency,length\n\n"
    "  symcere run reviews.jsonl --noise typos=0.3,spam=0.1\n\n"
    "  symcere run reviews.jsonl --log tensorboard\n\n"
    "  symcere run reviews.jsonl --json --quiet > result.json"
)
@interruptible()
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
    ask_from: AskFrom = 1,
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
        *splitting_of(split, folds, seed, seeds, ask_from),
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
@interruptible()
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
    with ScreenWatch(quiet=quiet) as watch:
        workspace = Workspace(folder, watch)
        remove_unfinished(folder)
        if verify:
            manifest, differing = verify_stage(workspace, what)
            show_verified(folder, manifest, differing, as_json=as_json)
            raise typer.Exit(1 if differing else 0)
        _, manifest = ingest_stage(workspace, what)
    show_steps(folder / "stages" / workspace.folders["ingest"], manifest, as_json=as_json)


@app.command(epilog="Examples:\n\n  symcere demo\n\n  symcere demo --out /tmp/demo --seed 1")
@interruptible()
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

    set_threads(threads)
    folder = out or folder_of(what.path)
    with on_device(device), ScreenWatch(quiet=quiet) as watch:
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


def _ceiling(world: "World", split: "Split") -> float:
    """NDCG@10 of ranking by the world's own choice probabilities."""
    from symcere.evaluation.compare import measure_test
    from symcere.evaluation.measures import mean, ndcg

    truth = world.truth(split.train.users, split.train.items)
    return mean(measure_test(truth, split, [ndcg(10)])["ndcg@10"])
