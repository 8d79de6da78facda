"""What a person sees: progress bars, tables, sentences of errors."""

import contextlib
import errno
import json
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer
from rich import box, filesize
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from symcere.errors import OutputError, SymcereError

if TYPE_CHECKING:
    from symcere.analysis.why import Reason
    from symcere.data.catalogue import PublicDataset
    from symcere.data.download import Fetched, OnProgress
    from symcere.data.items import Items
    from symcere.evaluation.bench_page import BenchPage
    from symcere.pipeline.run import Result

_ERRORS = Console(stderr=True, highlight=False)


def fail(message: str, *, code: int) -> NoReturn:
    """Print a sentence on standard error and leave."""
    _ERRORS.print(f"[bold red]Error[/] {escape(message)}", soft_wrap=True)
    sys.exit(code)


@contextlib.contextmanager
def interruptible(
    message: str = "Interrupted. Finished stages are kept; the same command goes on from there.",
) -> Iterator[None]:
    """Leave with a sentence when the user interrupts."""
    try:
        yield
    except (KeyboardInterrupt, RuntimeError) as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, KeyboardInterrupt):
            cause = cause.__cause__  # Python 3.11 wraps what interrupts the making of a class, as in an import
        if cause is None:
            raise
        exec("")  # else CPython, which notes an interrupt of an exec, dies of the signal at its end
        fail(message, code=130)


@contextlib.contextmanager
def whole_output() -> Iterator[None]:
    """See standard output written to its end: where it cannot be, that is a sentence; a closed pipe is none."""
    try:
        yield
    except SymcereError:
        raise
    except OSError:
        _write_out("\n")  # fails again where it was this that failed
        raise
    except SystemExit:
        _write_out("")
        raise


def _write_out(rest: str) -> None:
    """Write what standard output still holds back, and the rest."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(rest)
        sys.stdout.flush()
    except OSError as error:
        with contextlib.suppress(OSError):
            sys.stdout.close()  # or Python would try once more at its end, and say so
        if error.errno == errno.EPIPE:
            sys.exit(1)
        raise OutputError(
            f"Standard output cannot be written: {error.strerror}. Free space, or send it elsewhere."
        ) from error


class ScreenWatch:
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

    def __enter__(self) -> "ScreenWatch":
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def begin(self, stage: str) -> None:
        """Draw a new bar."""
        self.task, self.phase = self.bars.add_task(stage, total=None, note=""), ""

    def progress(self, phase: str, share: float, note: str) -> None:
        """Move the bar; a new phase begins at nothing, so that the time left is its own."""
        if phase != self.phase:
            self.bars.reset(self.task, note=note)  # the time left is that of the phase
            self.phase = phase
        self.bars.update(self.task, completed=share, total=1.0, note=note)

    def end(self, stage: str, note: str, seconds: float, *, up_to_date: bool) -> None:
        """Put a line in the place of the bar."""
        self.bars.remove_task(self.task)
        state = "[green]up to date[/]" if up_to_date else f"{seconds:8.1f} s"
        self.console.print(f"  {stage:<18} {state:>10}  {escape(note)}", soft_wrap=True)


def show_result(result: "Result", *, as_json: bool) -> None:
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
            titled = f"  {_short(page.items.title(item))}" if page.items.title(item) else ""
            console.print(f"  {score:7.3f}  {escape(_short(item) + titled)}{'  ✓' if hit else ''}", soft_wrap=True)
    console.print(f"\nReport: {result.folder / 'report.html'} (and report.md, results.json, per_user.csv, model/)")
    command = shlex.join(["symcere", "serve", str(result.folder), "--refit"])
    console.print(f"To serve it, learned once more from everything: {escape(command)}", soft_wrap=True)


def show_steps(folder: Path, manifest: Mapping[str, Any], *, as_json: bool) -> None:
    """Print what each step of an ingestion left; or one JSON object."""
    if as_json:
        keys = ("source", "sha256", "steps", "n_without_text", "n_without_time", "n_titles", "files")
        typer.echo(json.dumps({"folder": str(folder)} | {key: manifest[key] for key in keys}))
        return
    table = Table("step", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for label in ("reviews", "users", "items", "dropped"):
        table.add_column(label, justify="right")
    for step in manifest["steps"]:
        counts = (step[key] for key in ("n_reviews", "n_users", "n_items", "dropped"))
        table.add_row(escape(step["name"]), *(f"{n:,}" for n in counts))
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"Without text: {manifest['n_without_text']:,}; without a date: {manifest['n_without_time']:,}. "
        f"Read as {manifest['source']}; written to {escape(str(folder))}",
        soft_wrap=True,
    )


def show_verified(folder: Path, manifest: Mapping[str, Any], differing: Sequence[str], *, as_json: bool) -> None:
    """Say whether a rebuilt ingestion is the same, or which files differ."""
    if as_json:
        typer.echo(
            json.dumps({"identical": not differing, "n_files": len(manifest["files"]), "differing": differing})
        )
    elif differing:
        typer.echo(f"Not identical: {', '.join(differing)} differ from what stands in {folder}.")
    else:
        typer.echo(f"Identical to the byte: {len(manifest['files'])} files, rebuilt from the raw file.")


def show_items(title: str, unit: str, items: Sequence[tuple[str, float]], known: "Items", *, as_json: bool) -> None:
    """Print ranked items with their titles, where any is known."""
    if as_json:
        rows = [{"item_id": item, "title": known.title(item), unit: value} for item, value in items]
        typer.echo(json.dumps(rows))
        return
    console = Console(highlight=False)
    table = Table("rank", "item", title=escape(_short(title)))
    titled = any(known.title(item) for item, _ in items)
    if titled:
        table.add_column("title")
    table.add_column(unit, justify="right")
    for rank, (item, value) in enumerate(items, start=1):
        more = [escape(_short(known.title(item)))] if titled else []
        table.add_row(str(rank), escape(_short(item)), *more, f"{value:.4f}")
    console.print(table)


@contextlib.contextmanager
def fetch_bars(*, quiet: bool) -> "Iterator[OnProgress]":
    """Draw each file that is fetched as a bar with its size, speed and time left."""
    console = Console(stderr=True, quiet=quiet, highlight=False)
    bars = Progress(
        TextColumn("  {task.description}"),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        transient=True,
        disable=quiet or not console.is_terminal,
    )
    tasks: dict[str, Any] = {}

    def on_progress(name: str, done: int, total: int | None, note: str) -> None:
        if name not in tasks:
            tasks[name] = bars.add_task(escape(_short(name)), total=None, note="")
        lost = "; again in" in note
        bars.update(tasks[name], completed=done, total=total, note="waiting" if lost else escape(note))
        if lost:
            console.print(escape(f"  {name}: {note}"), soft_wrap=True)

    with bars:
        yield on_progress


def show_fetched(files: "Sequence[Fetched]", *, quiet: bool, as_json: bool) -> None:
    """Print where the files are and what to do next; or one JSON object."""
    path = files[0].path
    ask = ["symcere", "run", str(path)]
    if path.suffix == ".zip":
        ask = ["python3", "-m", "zipfile", "-e", str(path), str(path.with_suffix(""))]
    if as_json:
        rows = [asdict(file) | {"path": str(file.path)} for file in files]
        typer.echo(json.dumps({"files": rows, "next": shlex.join(ask)}))
        return
    if quiet:
        return
    console = Console(highlight=False)
    for file in files:
        state = "[green]up to date[/]" if file.up_to_date else f"{filesize.decimal(file.n_fetched)} fetched"
        line = f"{escape(str(file.path))}  {filesize.decimal(file.size)}  {state}  sha256 {file.sha256}"
        console.print(line, soft_wrap=True)
    console.print(f"Next: [bold]{escape(shlex.join(ask))}[/]", soft_wrap=True)
    if path.suffix == ".zip":
        console.print("Then: [bold]symcere run[/] with the folder that holds the files of reviews.")


def show_datasets(datasets: "Sequence[PublicDataset]", *, as_json: bool) -> None:
    """Print the catalogue as a table."""
    if as_json:
        typer.echo(json.dumps([asdict(dataset) for dataset in datasets]))
        return
    table = Table("name", "domain", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.columns[0].no_wrap = True
    table.add_column("reviews", justify="right", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("terms")
    for dataset in datasets:
        count = f"{dataset.n_reviews:,}" if dataset.n_reviews else "?"
        size = filesize.decimal(dataset.reviews.size) if dataset.reviews.size else "?"
        by_hand = "By hand. " if dataset.manual else ""
        table.add_row(dataset.name, dataset.domain, count, size, escape(by_hand + dataset.terms))
    console = Console(highlight=False)
    console.print(table)
    console.print("More of each: [bold]symcere download NAME --show[/]. A question mark: the publisher does not say.")


def show_dataset(dataset: "PublicDataset", *, as_json: bool) -> None:
    """Print all that is known of a public dataset."""
    if as_json:
        typer.echo(json.dumps(asdict(dataset)))
        return
    rows = {
        "name": dataset.name,
        "domain": dataset.domain,
        "read as": dataset.corpus,
        "format": dataset.format,
        "count": f"{dataset.n_reviews:,} reviews" if dataset.n_reviews else "unknown",
        "terms": dataset.terms,
        "cite": dataset.citation,
        "page": dataset.page,
    }
    if dataset.manual:
        rows["by hand"] = dataset.manual
    for file in dataset.files:
        size = filesize.decimal(file.size) if file.size else "size not stated"
        rows[file.role] = f"{file.address or file.name} ({size}, sha256 {file.sha256 or 'not published'})"
    console = Console(highlight=False)
    for key, value in rows.items():
        console.print(f"[bold]{key:<8}[/] {escape(value)}", soft_wrap=True)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def show_tuned(files: Sequence[Path], *, as_json: bool) -> None:
    """Print the settings that a search found."""
    found = {str(file): json.loads(file.read_text(encoding="utf-8")) for file in files}
    if as_json:
        typer.echo(json.dumps(found))
        return
    for file, whole in found.items():
        table = Table(box=box.SIMPLE_HEAD, title=escape(f"{whole['about']['dataset']}: {file}"), title_justify="left")
        for head in ("system", "valid ndcg@10", "trials", "cut short", "settings"):
            table.add_column(head, overflow="fold")
        for name, entry in whole["systems"].items():
            states = [trial["state"] for trial in entry["trials"]]
            settings = entry["trials"][0]["settings"]
            chosen = " ".join(f"{key}={_digits(entry['settings'][key])}" for key in settings)
            value = f"{entry['valid_ndcg@10']:.4f}"
            table.add_row(name, value, str(len(states)), str(states.count("pruned")), chosen)
        Console().print(table)


def show_bench(page: "BenchPage", folder: Path, *, as_json: bool) -> None:
    """Print the verdict of a benchmark, and where its pages are."""
    from symcere.evaluation.bench_page import verdict

    summary = page.summary()
    sentences = verdict(summary)
    if as_json:
        told = {"verdict": sentences, "means": summary.means, "impossible": list(page.notes)}
        typer.echo(json.dumps(told | {"page": str(folder / "bench.html")}))
        return
    table = Table(box=box.SIMPLE_HEAD)
    for head in ("system", f"mean {page.label}"):
        table.add_column(head)
    for name, mean in sorted(summary.means.items(), key=lambda entry: -entry[1]):
        table.add_row(name, f"{mean:.4f}")
    Console().print(table)
    for sentence in sentences:
        typer.echo(sentence)
    typer.echo(f"Page: {folder / 'bench.html'}")


def _digits(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def show_analysis(folder: Path, *, as_json: bool) -> None:
    """Print each question with its answer, and where the page is; or one JSON object."""
    found = json.loads((folder / "findings.json").read_text(encoding="utf-8"))
    if as_json:
        typer.echo(json.dumps({"folder": str(folder)} | found))
        return
    console = Console(highlight=False)
    for finding in found["findings"]:
        console.print(f"[bold]{escape(finding['question'])}[/]\n  {escape(finding['answer'])}\n")
    for note in found["notes"]:
        console.print(f"[yellow]Note[/] {escape(note)}", soft_wrap=True)
    console.print(f"Page: {folder / 'index.html'} (and findings.json, a CSV a figure)", soft_wrap=True)


def show_reasons(reasons: "Sequence[Reason]", items: "Items", *, as_json: bool) -> None:
    """Print why; or one JSON object an item, in a list."""
    if as_json:
        typer.echo(json.dumps([asdict(reason) | {"title": items.title(reason.item_id)} for reason in reasons]))
        return
    console = Console(highlight=False)
    for reason in reasons:
        title = items.title(reason.item_id)
        console.print(
            f"[bold]{escape(_short(reason.item_id))}[/]{escape(f'  {_short(title)}' if title else '')}  for "
            f"{escape(_short(reason.user_id))}: score {reason.score:.3f}"
        )
        parts = " + ".join(f"{name} {value:.3f}" for name, value in reason.parts.items())
        average = ", ".join(f"{name} {value:.3f}" for name, value in reason.average.items())
        console.print(f"  = {parts}   (the average item: {average})")
        for text, value in reason.snippets:
            console.print(f"  {value:+z7.3f}  “{escape(text)}”", soft_wrap=True)
        for label, rows in (
            ("words of the item's reviews", reason.item_words),
            ("words of the user's reviews", reason.user_words),
            ("because the user chose", [(items.title(item) or item, value) for item, value in reason.because]),
            ("users alike who chose it", reason.alike),
        ):
            said = ", ".join(f"{_short(name)} {value:.3f}" for name, value in rows)
            console.print(f"  {label}: {escape(said or 'none')}", soft_wrap=True)
        console.print()
