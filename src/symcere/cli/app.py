"""The application: its name, its version, and how it ends."""

import io
import os
import sys
from typing import Annotated

import typer

from symcere.cli.screen import (
    fail,
)
from symcere.errors import SymcereError
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
    epilog="Start with [bold]symcere demo[/], then [bold]symcere run YOUR_FILE[/].",
)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(f"symcere {VERSION}")
        raise typer.Exit


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
