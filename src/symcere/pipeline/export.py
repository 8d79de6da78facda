"""What a finished run holds, in the formats of other tools."""

import json
from pathlib import Path
from typing import Any

from symcere.data.ingest import load_reviews
from symcere.data.interchange import Format, export_split
from symcere.errors import BundleError, ConfigError
from symcere.evaluation.runs import write_run
from symcere.manifest import read_manifest
from symcere.pipeline.stages import load_split
from symcere.pipeline.systems import OURS
from symcere.recommender import Recommender


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
    seeds, stages = _about(run)
    chosen = seeds[0] if seed is None else seed
    if chosen not in seeds:
        raise ConfigError(f"{run} has no seed {chosen}. It has: {', '.join(map(str, seeds))}.")
    folders = [run / "stages" / stages[name] for name in ("ingest", f"split-seed{chosen}")]
    ingested, divided = (_manifest(stage) for stage in folders)
    split = load_split(folders[1], divided, load_reviews(folders[0], ingested))
    export_split(split, folder, format)
    model = run / "stages" / stages.get(f"{OURS}-seed{chosen}", "") / "model"
    if format == "trec" and model.is_dir():
        write_run(Recommender.load(model), split, folder / f"{OURS}.run", name=OURS)
    return sorted(path for path in folder.iterdir() if path.name != "manifest.json")


def _manifest(stage: Path) -> dict[str, Any]:
    manifest = read_manifest(stage)
    if manifest is None:
        raise BundleError(f"{stage} is missing or damaged. Give the command of the run again: it makes it anew.")
    return manifest


def _about(run: Path) -> tuple[list[int], dict[str, str]]:
    """Seeds and stage folders, from the manifest of a run."""
    try:
        manifest: dict[str, Any] = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
        seeds, stages = list(manifest["seeds"]), dict(manifest["stages"])
        if {"ingest", f"split-seed{seeds[0]}"} <= stages.keys():
            return seeds, stages
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        pass
    raise BundleError(
        f"{run} is no folder of a finished run (it must hold the manifest.json that symcere run writes). Name the "
        "folder that symcere run printed."
    )
