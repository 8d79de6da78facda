"""The command line: words become functions here and nowhere else."""

# each module adds its commands to the application, in the order in which --help shows them
import symcere.cli.run  # noqa: I001
import symcere.cli.bench
import symcere.cli.finished
import symcere.cli.serve  # noqa: F401
from symcere.cli.app import app, main

__all__ = ["app", "main"]
