"""The command line: words become functions here and nowhere else."""

from symcere.cli.commands import app, main

__all__ = ["app", "main"]
