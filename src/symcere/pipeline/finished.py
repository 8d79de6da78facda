"""A finished run, opened again: what its stages hold, by the manifest that it left."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from symcere.data.dataset import Split
from symcere.data.ingest import load_reviews
from symcere.data.reviews import Reviews
from symcere.errors import BundleError, ConfigError
from symcere.manifest import read_manifest
from symcere.pipeline.stages import HISTORY, load_split
from symcere.pipeline.systems import OURS
from symcere.recommender import Recommender
from symcere.text.features import TextFeatures
from symcere.training.progress import Epoch


@dataclass(frozen=True, eq=False)
class FinishedRun:
    """One seed of a finished run.

    Args:
        folder: Of the run.
        seed: The seed.
        about: The run's manifest.
    """

    folder: Path
    seed: int
    about: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path, seed: int | None = None) -> Self:
        """Open the folder of a finished run.

        Args:
            folder: As `symcere run` printed it.
            seed: Which of the run's seeds; its first if left out.

        Returns:
            The run; its stages are read when they are asked for.

        Raises:
            BundleError: If it is no folder of a finished run.
            ConfigError: If the run has no such seed.
        """
        try:
            about: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            seeds, stages = list(about["seeds"]), dict(about["stages"])
            whole = {"ingest", f"split-seed{seeds[0]}"} <= stages.keys()
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            whole = False
        if not whole:
            raise BundleError(
                f"{folder} is no folder of a finished run (it must hold the manifest.json that symcere run writes). "
                "Name the folder that symcere run printed."
            )
        chosen = seeds[0] if seed is None else seed
        if chosen not in seeds:
            raise ConfigError(f"{folder} has no seed {chosen}. It has: {', '.join(map(str, seeds))}.")
        return cls(folder, chosen, about)

    def has(self, system: str) -> bool:
        """Whether the run kept the vectors of a system."""
        return (self._stage(f"{system}-seed{self.seed}") / "model").is_dir()

    def manifest(self, stage: str) -> dict[str, Any]:
        """Read the manifest of a stage.

        Args:
            stage: "ingest", or what is made a seed: "split", "encode", or a system.

        Returns:
            The manifest.

        Raises:
            BundleError: If the stage is missing or damaged.
        """
        folder = self._stage(stage if stage == "ingest" else f"{stage}-seed{self.seed}")
        manifest = read_manifest(folder)
        if manifest is None:
            raise BundleError(f"{folder} is missing or damaged. Give the command of the run again: it makes it anew.")
        return manifest

    @cached_property
    def reviews(self) -> Reviews:
        """The reviews that were split."""
        return load_reviews(self._stage("ingest"), self.manifest("ingest"))

    @cached_property
    def split(self) -> Split:
        """The split."""
        return load_split(self._stage(f"split-seed{self.seed}"), self.manifest("split"), self.reviews)

    @cached_property
    def text(self) -> TextFeatures:
        """The text features."""
        self.manifest("encode")
        return TextFeatures.load(self._stage(f"encode-seed{self.seed}"))

    @cached_property
    def model(self) -> Recommender:
        """SymCERE."""
        self.manifest(OURS)
        return Recommender.load(self._stage(f"{OURS}-seed{self.seed}") / "model")

    @cached_property
    def history(self) -> list[Epoch]:
        """What the epochs of SymCERE showed."""
        self.manifest(OURS)
        lines = (self._stage(f"{OURS}-seed{self.seed}") / HISTORY).read_text(encoding="utf-8").splitlines()
        shown = (json.loads(line) for line in lines)
        return [Epoch(**{name: value for name, value in epoch.items() if name != "candidate"}) for epoch in shown]

    @property
    def encoding(self) -> Mapping[str, Any]:
        """Options by which the text was encoded.

        Raises:
            BundleError: If an older version made the run.
        """
        words: Mapping[str, Any] = self.about.get("encoding") or {}
        if not words:
            raise BundleError(
                f"{self.folder} does not say how its text was encoded: an older version made it. Give the command of "
                f"the run again ({self.about.get('command', 'symcere run')})."
            )
        return words

    def _stage(self, name: str) -> Path:
        return self.folder / "stages" / str(self.about["stages"].get(name, "missing"))
