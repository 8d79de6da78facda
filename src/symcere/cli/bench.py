"""Commands over several data sets: tune and bench."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from symcere.cli.app import app
from symcere.cli.options import (
    Cache,
    Columns,
    Datasets,
    Device,
    EncoderOption,
    Json,
    KCoreOption,
    Quiet,
    Seed,
    Seeds,
    SkipBad,
    SourceOption,
    SplitName,
    SplitOption,
    SystemsOption,
    Threads,
    TunedFolder,
)
from symcere.cli.screen import (
    ScreenWatch,
    interruptible,
    show_bench,
    show_tuned,
)
from symcere.cli.words import (
    bench_data_of,
    encoding_of,
    set_threads,
    split_names_of,
    splitting_of,
    systems_of,
)


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
    system, those it has untuned, and those that --tuned holds of it already, are always among them. A search that
    was stopped goes on; all trials are kept. Several processes may search different --systems.
    """
    from dataclasses import replace

    from symcere.pipeline.bench import seeded
    from symcere.pipeline.tune import read_tuned, write_tuned
    from symcere.pipeline.tune import tune as search
    from symcere.training.device import on_device

    chosen = systems_of(systems, {})
    data = bench_data_of(datasets, k_core, columns or [], source, skip_bad=skip_bad)
    splitting, over = splitting_of(split, None, seed, seeds)
    encoding = replace(encoding_of(encoder), leave_one_out=True)
    set_threads(threads)
    message = "Interrupted. Finished trials are kept; the same command goes on from there."
    written: list[Path] = []
    with on_device(device), interruptible(message), ScreenWatch(quiet=quiet) as watch:
        for each in data:
            made = seeded(each, out, watch, splitting=splitting, seeds=over, encoding=encoding, cache=cache)
            about = {"dataset": each.name, "split": split.value, "seeds": list(over), "trials": trials,
                     "encoder": made[0].text.encoder, "users": len(made[0].split.train.users),
                     "items": len(made[0].split.train.items)}  # fmt: skip
            written.append(tuned / f"{each.slug}.json")
            earlier = read_tuned(written[-1])["systems"] if written[-1].exists() else None
            found = search(each.name, made, chosen, trials, out / "trials.db", watch, earlier=earlier)
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
    twin_seeds: Annotated[
        int | None,
        typer.Option(
            "--twin-seeds",
            min=1,
            help="Fit the twins under the first so many seeds alone; they are compared with SymCERE under the same.",
            show_default="as --seeds",
        ),
    ] = None,
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
    set_threads(threads)
    with on_device(device), interruptible(), ScreenWatch(quiet=quiet) as watch:
        page = run_bench(
            data, out, watch, splittings=splittings, encoding=encoding_of(encoder), cache=cache,
            systems=chosen, tuned=tuned, twins_too=ablation, twin_seeds=twin_seeds,
            command=shlex.join(["symcere", *sys.argv[1:]]),
        )  # fmt: skip
        for sentence in page.notes:
            watch.console.print(f"[yellow]Note[/] {escape(sentence)}", soft_wrap=True)
    show_bench(page, out, as_json=as_json)
