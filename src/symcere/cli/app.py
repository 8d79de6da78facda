"""The application: its name, its version, and how it ends."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from symcere.cli.screen import fail, interruptible, whole_output
from symcere.errors import ConfigError, SymcereError
from symcere.manifest import VERSION

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
    epilog="Start with [bold]symcere demo[/], then [bold]symcere run YOUR_FILE[/]; on a cluster, "
    "[bold]symcere --on ray://HEAD:10001 run YOUR_FILE[/].",
)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    on: Annotated[
        str | None,
        typer.Option(
            "--on",
            metavar="ADDRESS",
            help="Run the stages on Ray: ray://HEAD:10001, auto on a node, or local for one of this machine. "
            "All nodes must see input and --out under the same paths.",
            show_default=False,
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option("--workers", min=1, help="With --on: how many processes fit SymCERE together.")
    ] = 1,
    worker_cpus: Annotated[
        int, typer.Option("--worker-cpus", min=1, help="With --on: processors, and so threads, of each of these.")
    ] = 1,
    worker_gpus: Annotated[
        bool, typer.Option("--worker-gpus", help="With --on: each of these has a GPU of its own.")
    ] = False,
) -> None:
    if version:
        typer.echo(f"symcere {VERSION}")
        raise typer.Exit
    if on is not None:
        context.with_resource(_on_ray(on, workers, worker_cpus, gpu=worker_gpus))
    elif workers > 1 or worker_cpus > 1 or worker_gpus:
        raise ConfigError(
            "--workers, --worker-cpus and --worker-gpus are of a Ray: name one, as in symcere --on local "
            "--workers 2 run FILE."
        )


@contextlib.contextmanager
def _on_ray(address: str, n_workers: int, n_cpus: int, *, gpu: bool) -> Iterator[None]:
    """Let the stages of the command run on Ray."""
    from symcere.distributed.cluster import connected
    from symcere.distributed.verbs import RayVerbs
    from symcere.pipeline.verbs import running_on

    with connected(address) as cluster, running_on(RayVerbs(cluster, n_workers, n_cpus, gpu)):
        yield


def main() -> None:
    """Run the command line: an error of ours is one sentence on standard error and exit code 2, an interrupt 130."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin starve each other on a busy machine
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without our characters is no reason to fail
    try:
        with interruptible("Interrupted."), whole_output():
            _run_command()
    except SymcereError as error:
        fail(str(error), code=2)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        fail("Not enough memory. Raise --k-core, lower dim, or take a machine with more.", code=2)


def _run_command() -> None:
    """Run what was typed; typer would end an interrupt that no command explains without a word."""
    try:
        app()
    except SystemExit as stop:
        exit_of_typer = stop.__context__
        if isinstance(exit_of_typer, typer.Exit) and isinstance(exit_of_typer.__cause__, KeyboardInterrupt):
            raise KeyboardInterrupt from stop
        raise
