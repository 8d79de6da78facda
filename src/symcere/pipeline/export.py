"""What a finished run holds, in the formats of other tools."""

from pathlib import Path

from symcere.data.interchange import Format, export_split
from symcere.evaluation.runs import write_run
from symcere.pipeline.finished import FinishedRun
from symcere.pipeline.systems import OURS


def export_run(run: Path, folder: Path, format: Format, seed: int | None = None) -> list[Path]:
    """Write the split of a run for other tools; with TREC judgements also SymCERE's rankings, as `symcere.run`.

    Args:
        run: Folder of a finished run.
        folder: Where.
        format: One of the formats of `export_split`.
        seed: Which of the run's seeds; its first if left out.

    Returns:
        The files written, without the manifest.

    Raises:
        BundleError: If `run` is no folder of a finished run, or its split is damaged.
        ConfigError: If the run has no such seed.
        OutputError: If it cannot be written.
    """
    finished = FinishedRun.open(run, seed)
    export_split(finished.split, folder, format)
    if format == "trec" and finished.has(OURS):
        write_run(finished.model, finished.split, folder / f"{OURS}.run", name=OURS)
    return sorted(path for path in folder.iterdir() if path.name != "manifest.json")
