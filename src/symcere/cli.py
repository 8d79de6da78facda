"""The command line: words become functions here and nowhere else."""

import contextlib
import io
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from symcere.errors import ConfigError, SymcereError
from symcere.manifest import VERSION

if TYPE_CHECKING:
    from symcere.data.dataset import Split
    from symcere.data.reviews import Reviews
    from symcere.data.sources import Source
    from symcere.data.synthetic import World
    from symcere.pipeline.run import Result
    from symcere.pipeline.stages import Encoding, System
    from symcere.text.encoders import Encoder
    from symcere.text.profiles import Weighting

_ERRORS = Console(stderr=True, highlight=False)

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


class SplitName(StrEnum):
    """How interactions are held out."""

    RANDOM = "random"
    LEAVE_LAST_OUT = "leave-last-out"
    TEMPORAL = "temporal"


class ConditioningName(StrEnum):
    """What is done to text vectors before they are profiles."""

    NONE = "none"
    CENTRE = "centre"
    WHITEN = "whiten"


_Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Folder to write; runs/NAME_OF_THE_FILE if left out.", show_default=False),
]
_KCore = Annotated[
    int,
    typer.Option("--k-core", min=1, help="Keep users and items with at least this many reviews, iterated."),
]
_SplitOption = Annotated[SplitName, typer.Option("--split", help="How interactions are held out, 8:1:1.")]
_Seed = Annotated[int, typer.Option("--seed", min=0, help="First seed, of split and training.")]
_Seeds = Annotated[int, typer.Option("--seeds", min=1, help="Number of seeds; results are their means.")]
_EncoderOption = Annotated[
    str,
    typer.Option(
        "--encoder",
        help="tfidf, distilled, sentence, sentence-float32, or a .npy or .parquet file of your own vectors; several "
        "joined by a plus: tfidf+distilled. auto takes tfidf, and tfidf+distilled from 25,000 train reviews on.",
    ),
]
_TextDim = Annotated[
    int | None,
    typer.Option("--text-dim", min=1, help="Length of a text profile.", show_default="384 tfidf, 256 others"),
]
_Conditioning = Annotated[
    ConditioningName | None,
    typer.Option(
        "--conditioning", help="What is done to text vectors.", show_default="none for tfidf, whiten for others"
    ),
]
_MaxTokens = Annotated[
    int, typer.Option("--max-tokens", min=3, max=512, help="The sentence encoder reads no further.")
]
_Profile = Annotated[
    str,
    typer.Option(
        "--profile",
        help="mean, or by comma: recency, helpfulness, length, inverse-frequency (weights of reviews); title-body (a "
        "profile of each); leave-one-out (training leaves the review of a pair out of its profiles).",
    ),
]
_Systems = Annotated[
    str,
    typer.Option(
        "--systems",
        help="Baselines beside symcere, by comma: popularity, item_knn, ease, light_gcn; or none.",
    ),
]
_Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--columns",
        help="Column map OURS=THEIRS, by comma or repeated. Ours: user_id, item_id, rating, timestamp, helpful, "
        "title, text.",
        show_default=False,
    ),
]
_SourceOption = Annotated[
    str | None,
    typer.Option(
        "--source", help="Take the file for: amazon-2014, amazon-2018, yelp. Recognised if left out.",
        show_default=False,
    ),
]  # fmt: skip
_SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Drop and count lines that cannot be parsed.")]
_Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="A setting of SymCERE, KEY=VALUE, repeated: --set dim=128 --set mask=none.",
        show_default=False,
    ),
]
_Cache = Annotated[Path, typer.Option("--cache", help="Folder of the vector cache, shared between runs.")]
_Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Processor threads.", show_default=False)]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else on standard output.")]
_RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder that symcere run wrote.", show_default=False)]
_ALL_SYSTEMS = "popularity,item_knn,ease,light_gcn"


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
    "  symcere run mine.csv --columns user_id=customer,item_id=sku,text=comment --systems ease\n\n"
    "  symcere run reviews.jsonl --encoder tfidf+distilled --profile recency,length\n\n"
    "  symcere run reviews.jsonl --json --quiet > result.json"
)
def run(
    file: Annotated[Path, typer.Argument(help="JSON lines, CSV, TSV (also gzipped) or Parquet.", show_default=False)],
    out: _Out = None,
    k_core: _KCore = 5,
    split: _SplitOption = SplitName.RANDOM,
    seed: _Seed = 0,
    seeds: _Seeds = 1,
    encoder: _EncoderOption = "auto",
    text_dim: _TextDim = None,
    conditioning: _Conditioning = None,
    max_tokens: _MaxTokens = 128,
    profile: _Profile = "mean",
    systems: _Systems = _ALL_SYSTEMS,
    columns: _Columns = None,
    source: _SourceOption = None,
    skip_bad: _SkipBad = False,
    settings: _Set = None,
    cache: _Cache = Path("runs/cache"),
    threads: _Threads = None,
    quiet: _Quiet = False,
    as_json: _Json = False,
) -> None:
    """Go from a raw review file to a compared recommender and a report.

    Reads the file, takes the k-core, splits it, encodes the train reviews, fits SymCERE and the baselines, and
    compares them. Finished stages are kept: the same command goes on where it stopped.
    """
    result = _run(
        file, out, k_core, split, seed, seeds,
        _encoding(encoder, text_dim, conditioning, max_tokens, profile), systems, columns or [], source,
        skip_bad, settings or [], cache, threads, quiet=quiet,
    )  # fmt: skip
    _show(result, as_json=as_json)


@app.command(epilog="Examples:\n\n  symcere demo\n\n  symcere demo --out /tmp/demo --seed 1")
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")] = Path("runs/demo"),
    seed: _Seed = 0,
    quiet: _Quiet = False,
    as_json: _Json = False,
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
        file, out, 5, SplitName.RANDOM, seed, 1, _encoding("auto"), _ALL_SYSTEMS, [], None, False, [], out / "cache",
        None, quiet=quiet,
    )  # fmt: skip
    ceiling = _ceiling(world, result.split)
    result.summary["ceiling"] = {"ndcg@10": ceiling}
    _show(result, as_json=as_json)
    if not as_json:
        share = result.summary["systems"]["symcere"]["ndcg@10"] / ceiling
        typer.echo(
            f"The planted tastes themselves rank with ndcg@10 {ceiling:.4f}: no system can expect more. "
            f"symcere reaches {share:.0%} of it."
        )


@app.command(
    epilog="Examples:\n\n  symcere recommend runs/demo user00007\n\n"
    "  symcere recommend runs/demo user00007 -k 20 --dial 0"
)
def recommend(
    run_folder: _RunFolder,
    user_id: Annotated[str, typer.Argument(help="A user id of the review file.", show_default=False)],
    k: Annotated[int, typer.Option("-k", min=1, help="How many items.")] = 10,
    dial: Annotated[
        float | None,
        typer.Option("--dial", help="Popularity weight; 0 ranks by taste alone.", show_default="as chosen on valid"),
    ] = None,
    as_json: _Json = False,
) -> None:
    """Recommend items to a user of a run."""
    model = _load(run_folder)
    if dial is not None:
        model = model.with_popularity_weight(dial)
    _show_items(f"Recommended to {user_id}", "score", model.recommend(user_id, k), as_json=as_json)


@app.command(epilog="Example:\n\n  symcere similar runs/demo item00007 -k 5")
def similar(
    run_folder: _RunFolder,
    item_id: Annotated[str, typer.Argument(help="An item id of the review file.", show_default=False)],
    k: Annotated[int, typer.Option("-k", min=1, help="How many items.")] = 10,
    as_json: _Json = False,
) -> None:
    """Find the items nearest to an item of a run."""
    _show_items(f"Similar to {item_id}", "cosine", _load(run_folder).similar_items(item_id, k), as_json=as_json)


def main() -> None:
    """Run the command line: an error of ours is one sentence on standard error and exit code 2."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin starve each other on a busy machine
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without our characters is no reason to fail
    try:
        app()
    except SymcereError as error:
        _fail(str(error), code=2)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        _fail("Not enough memory. Raise --k-core, lower dim, or take a machine with more.", code=2)


def _fail(message: str, *, code: int) -> NoReturn:
    _ERRORS.print(f"[bold red]Error[/] {escape(message)}", soft_wrap=True)
    sys.exit(code)


def _run(
    file: Path,
    out: Path | None,
    k: int,
    split: SplitName,
    seed: int,
    seeds: int,
    encoding: "Encoding",
    systems: str,
    columns: Sequence[str],
    source: str | None,
    skip_bad: bool,
    settings: Sequence[str],
    cache: Path,
    threads: int | None,
    *,
    quiet: bool,
) -> "Result":
    """Turn words into functions and run the pipeline."""
    column_map, corpus, fitters = (
        _column_map(columns),
        _source(source),
        _systems(systems, _settings(settings)),
    )
    from symcere.pipeline.run import run as run_pipeline
    from symcere.pipeline.workspace import Workspace, remove_unfinished

    if threads:
        import torch

        torch.set_num_threads(threads)
    folder = out or Path("runs") / (file.name.split(".")[0] or "run")
    with _interruptible(), _Watch(quiet=quiet) as watch:
        workspace = Workspace(folder, watch)
        remove_unfinished(folder)
        return run_pipeline(
            file,
            workspace,
            source=corpus,
            columns=column_map,
            skip_bad=skip_bad,
            k=k,
            splitter=_splitter(split),
            split_name=split.value,
            seeds=range(seed, seed + seeds),
            encoding=encoding,
            cache=cache,
            systems=fitters,
            command=shlex.join(["symcere", *sys.argv[1:]]),
        )


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Leave with a sentence when the user interrupts."""
    try:
        yield
    except KeyboardInterrupt:
        _fail("Interrupted. Finished stages are kept; the same command goes on from there.", code=130)


def _pairs(words: Sequence[str], option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not (key and sign and value):
            raise ConfigError(f"{option} takes KEY=VALUE; found {word!r}.")
        pairs[key.strip()] = value.strip()
    return pairs


def _column_map(words: Sequence[str]) -> dict[str, str]:
    from symcere.data.sources import COLUMNS

    pairs = _pairs([part for word in words for part in word.split(",")], "--columns")
    for key in pairs:
        if key not in COLUMNS:
            raise ConfigError(f"--columns maps one of {', '.join(COLUMNS)}; found {key!r}.")
    return pairs


def _source(word: str | None) -> "Source | None":
    from symcere.data.sources import SOURCES

    if word is None:
        return None
    by_name = {source.name: source for source in SOURCES}
    if word not in by_name:
        raise ConfigError(f"Unknown --source {word!r}. Known: {', '.join(by_name)}.")
    return by_name[word]


def _splitter(name: SplitName) -> Callable[["Reviews", int], "Split"]:
    from symcere.data.splits import split_leave_last_out, split_random, split_temporal

    by_name: Mapping[SplitName, Callable[[Reviews, int], Split]] = {
        SplitName.RANDOM: lambda reviews, seed: split_random(reviews, seed=seed),
        SplitName.LEAVE_LAST_OUT: lambda reviews, _: split_leave_last_out(reviews),
        SplitName.TEMPORAL: lambda reviews, _: split_temporal(reviews),
    }
    return by_name[name]


def _encoding(
    words: str,
    text_dim: int | None = None,
    conditioning: ConditioningName | None = None,
    max_tokens: int = 128,
    profile: str = "mean",
) -> "Encoding":
    """How reviews become features: encoders joined by plus, and words of --profile by comma."""
    from symcere.pipeline.stages import Encoding
    from symcere.text.choice import default_encoders
    from symcere.text.profiles import Helpfulness, InverseFrequency, Length, Recency

    by_name: Mapping[str, Weighting] = {
        "recency": Recency(),
        "helpfulness": Helpfulness(),
        "length": Length(),
        "inverse-frequency": InverseFrequency(),
    }
    asked = [word.strip() for word in profile.split(",")]
    for word in asked:
        if word not in (*by_name, "mean", "title-body", "leave-one-out"):
            known = ", ".join(("mean", *by_name, "title-body", "leave-one-out"))
            raise ConfigError(f"Unknown --profile {word!r}. Known: {known}.")
    named = None if words == "auto" else [_encoder(word, max_tokens) for word in dict.fromkeys(words.split("+"))]

    def encoders(n_reviews: int) -> "list[Encoder]":
        chosen = default_encoders(n_reviews) if named is None else named
        return [_with_conditioning(encoder, text_dim, conditioning) for encoder in chosen]

    return Encoding(
        encoders,
        parts=("title", "body") if "title-body" in asked else ("review",),
        weightings=[by_name[word] for word in dict.fromkeys(asked) if word in by_name],
        leave_one_out="leave-one-out" in asked,
    )


def _encoder(word: str, max_tokens: int) -> "Encoder":
    from symcere.text.distilled import DistilledEncoder
    from symcere.text.precomputed import precomputed
    from symcere.text.sentence import sentence_encoder
    from symcere.text.tfidf import tfidf_encoder

    by_name: Mapping[str, Callable[[], Encoder]] = {
        "tfidf": tfidf_encoder,
        "distilled": lambda: DistilledEncoder(teacher=sentence_encoder(max_tokens)),
        "sentence": lambda: sentence_encoder(max_tokens),
        "sentence-float32": lambda: sentence_encoder(max_tokens, runtime="float32"),
    }
    if word.endswith((".npy", ".parquet")):
        return precomputed(word)
    if word not in by_name:
        raise ConfigError(
            f"Unknown --encoder {word!r}. Known: auto, {', '.join(by_name)}, a .npy or .parquet file, or several "
            "joined by '+'."
        )
    return by_name[word]()


def _with_conditioning(encoder: Any, text_dim: int | None, kind: ConditioningName | None) -> "Encoder":
    """The encoder with another conditioning, or width; TF-IDF has its width from its SVD."""
    from symcere.text.conditioning import Conditioning
    from symcere.text.tfidf import TfidfEncoder

    if text_dim and isinstance(encoder, TfidfEncoder):
        encoder = replace(encoder, text_dim=text_dim)
    conditioning = encoder.conditioning
    dim = text_dim or conditioning.dim
    if kind is not None or conditioning.kind != "none":
        conditioning = Conditioning(kind.value if kind else conditioning.kind, dim)
    chosen: Encoder = replace(encoder, conditioning=conditioning)
    return chosen


def _settings(words: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in _pairs(words, "--set").items():
        try:
            values[key] = json.loads(value)
        except ValueError:
            values[key] = value
    return values


def _systems(words: str, settings: Mapping[str, Any]) -> list["System"]:
    """SymCERE and the named baselines, each fitted through its own function with its own settings."""
    from symcere.baselines.ease import L2, fit_ease
    from symcere.baselines.item_knn import NEIGHBOURS, SHRINK, fit_item_knn
    from symcere.baselines.light_gcn import SETTINGS, fit_light_gcn
    from symcere.baselines.popularity import fit_popularity
    from symcere.pipeline.run import OURS
    from symcere.pipeline.stages import System
    from symcere.training.config import POPULARITY_WEIGHTS, SymcereSettings
    from symcere.training.loop import fit

    ours = SymcereSettings(**settings)
    known = [
        System(
            "popularity",
            lambda train, valid, text, seed, on_epoch: fit_popularity(train, valid=valid),
            {},
        ),
        System(
            "item_knn",
            lambda train, valid, text, seed, on_epoch: fit_item_knn(train, valid=valid),
            {"neighbours": NEIGHBOURS, "shrink": SHRINK, "popularity_weights": POPULARITY_WEIGHTS},
        ),
        System(
            "ease",
            lambda train, valid, text, seed, on_epoch: fit_ease(train, valid=valid),
            {"l2": L2, "popularity_weights": POPULARITY_WEIGHTS},
        ),
        System(
            "light_gcn",
            lambda train, valid, text, seed, on_epoch: fit_light_gcn(
                train, valid=valid, seed=seed, on_epoch=on_epoch
            ),
            {"best_of": [chosen.model_dump(mode="json") for chosen in SETTINGS]},
            max_epochs=max(chosen.max_epochs for chosen in SETTINGS),
        ),
        System(
            OURS,
            lambda train, valid, text, seed, on_epoch: fit(
                train, text, valid=valid, settings=ours, seed=seed, on_epoch=on_epoch
            ),
            ours.model_dump(mode="json"),
            uses_text=True,
            max_epochs=ours.max_epochs,
        ),
    ]
    names = {OURS, *(word.strip() for word in words.split(",") if word.strip() not in ("", "none"))}
    by_name = {system.name: system for system in known}
    if unknown := sorted(names - set(by_name)):
        raise ConfigError(f"Unknown system {unknown[0]!r} in --systems. Known: {', '.join(by_name)}; or none.")
    return [system for system in known if system.name in names]


class _Watch:
    """Draws a run as progress bars on standard error; prints nothing when quiet."""

    def __init__(self, *, quiet: bool) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self.bars = Progress(
            TextColumn("  {task.description:<18}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=quiet or not self.console.is_terminal,
        )

    def __enter__(self) -> "_Watch":
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def begin(self, stage: str) -> None:
        self.task, self.phase = self.bars.add_task(stage, total=None, note=""), ""

    def progress(self, phase: str, share: float, note: str) -> None:
        if phase != self.phase:
            self.bars.reset(self.task, note=note)  # the time left is that of the phase
            self.phase = phase
        self.bars.update(self.task, completed=share, total=1.0, note=note)

    def end(self, stage: str, note: str, seconds: float, *, up_to_date: bool) -> None:
        self.bars.remove_task(self.task)
        state = "[green]up to date[/]" if up_to_date else f"{seconds:8.1f} s"
        self.console.print(f"  {stage:<18} {state:>10}  {escape(note)}", soft_wrap=True)


def _show(result: "Result", *, as_json: bool) -> None:
    """Print the table, the verdict and three users' recommendations; or one JSON object."""
    if as_json:
        typer.echo(json.dumps(result.summary))
        return
    from symcere.evaluation.report import COLUMNS

    console = Console(highlight=False)
    page = result.page
    table = Table(
        "system",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        title=f"{escape(page.title)}, {page.split} split, test, {len(page.seeds)} seed(s)",
    )
    for label in (*COLUMNS, "seconds"):
        table.add_column(label, justify="right")
    for row in page.rows:
        table.add_row(*row, style="bold" if row[0] == page.ours else None)
    console.print(table)
    console.print(escape(page.verdict))
    for name, reason in page.skipped.items():
        console.print(f"Left out: {name}. {escape(reason)}")
    for example in page.examples:
        console.print(f"\nRecommended to [bold]{escape(_short(example.user_id))}[/] (✓ = held out for this user)")
        for item, score, hit in example.items:
            console.print(f"  {score:7.3f}  {escape(_short(item))}{'  ✓' if hit else ''}")
    console.print(f"\nReport: {result.folder / 'report.html'} (and report.md, results.json, per_user.csv, model/)")


def _show_items(title: str, unit: str, items: Sequence[tuple[str, float]], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([{"item_id": item, unit: value} for item, value in items]))
        return
    console = Console(highlight=False)
    table = Table("rank", "item", unit, title=escape(_short(title)))
    for rank, (item, value) in enumerate(items, start=1):
        table.add_row(str(rank), escape(_short(item)), f"{value:.4f}")
    console.print(table)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


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
