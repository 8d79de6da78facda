"""The verbs of a run on Ray: what a stage calls instead of doing it in its own process."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from symcere.data.dataset import Dataset, HeldOut, Split
from symcere.data.ingest import Ingestion
from symcere.distributed import rank
from symcere.distributed.cluster import Cluster
from symcere.distributed.encode import encode_reviews
from symcere.distributed.ingestion import ingest_into
from symcere.distributed.train import fit, without_words
from symcere.errors import ConfigError
from symcere.evaluation.compare import Values
from symcere.evaluation.measures import Measure
from symcere.recommender import Recommender, Scored
from symcere.text.corpus import Part
from symcere.text.encoders import Encoder, OnProgress
from symcere.text.features import TextFeatures
from symcere.text.profiles import Weighting
from symcere.training.config import SymcereSettings
from symcere.training.progress import Chosen, OnEpoch


@dataclass(frozen=True)
class RayVerbs:
    """Every verb sends its work to a cluster whose nodes see the folders of the run under the same paths.

    Args:
        cluster: The cluster.
        n_workers: How many processes fit SymCERE together.
        cpus_a_worker: Processors of each.
        gpu: Whether each of them has a GPU.
    """

    cluster: Cluster
    n_workers: int = 1
    cpus_a_worker: int = 1
    gpu: bool = False

    @property
    def decides(self) -> Mapping[str, Any]:
        """Several workers sum in another order than one."""
        return {"workers": self.n_workers} if self.n_workers > 1 else {}

    def ingest(self, what: Ingestion, folder: Path, on_progress: Callable[[float], None]) -> dict[str, Any]:
        """Read, clean, filter and write reviews."""
        self._check_seen(folder.resolve())
        absolute = replace(what, path=what.path.resolve(), items=what.items and what.items.resolve())
        return self.cluster.run("ingest", ingest_into, absolute, str(folder.resolve()), tell=on_progress)

    def encode(
        self,
        train: Dataset,
        table: Path,
        encoders: Sequence[Encoder],
        parts: Sequence[Part],
        weightings: Sequence[Weighting],
        *,
        leave_one_out: bool,
        changed: bool,
        cache: Path,
        on_progress: OnProgress,
    ) -> TextFeatures:
        """Profiles of the train reviews, read from the table."""
        if leave_one_out or changed:
            raise ConfigError(
                "On Ray, reviews are read as they were ingested and summed at once: no --noise, no leave-one-out, "
                "and no system that reads single reviews (narre, rgcl). Leave these out, or run without --on."
            )
        how = {"parts": tuple(parts), "weightings": tuple(weightings), "cache": str(cache.resolve())}
        return self.cluster.run(
            "encode", _encode, without_words(train), str(table.resolve()), tuple(encoders), how, tell=on_progress
        )

    def fit(
        self,
        train: Dataset,
        valid: HeldOut | Chosen,
        text: TextFeatures,
        settings: SymcereSettings,
        seed: int,
        on_epoch: OnEpoch,
        checkpoints: Path,
    ) -> Recommender:
        """Fit SymCERE by the workers."""
        how = {
            "storage": str(checkpoints.resolve()), "settings": settings, "seed": seed, "n_workers": self.n_workers,
            "cpus_a_worker": self.cpus_a_worker,
            "gpu": self.gpu,
        }  # fmt: skip
        return self.cluster.run("fit", _fit, without_words(train), valid, text, how, tell=on_epoch)

    def measure(self, system: Scored, split: Split, measures: Sequence[Measure]) -> Values:
        """Measure a system on the test part, users ranked in blocks."""
        wordless = replace(split, train=without_words(split.train))
        return self.cluster.run("measure", rank.measure_test, system, wordless, tuple(measures))

    def _check_seen(self, folder: Path) -> None:
        """Nodes that see other files would read nothing, and write where nobody looks."""
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".seen-") as probe:
            seen = self.cluster.run("ingest", _exists, probe.name)
        if not seen:
            raise ConfigError(
                f"The nodes of {self.cluster.address} do not see {folder}. Take an input and an --out on a file "
                "system that all of them share, or symcere.distributed with addresses of an object store."
            )


def _encode(
    train: Dataset, table: str, encoders: Sequence[Encoder], how: Mapping[str, Any], on_progress: OnProgress
) -> TextFeatures:
    return encode_reviews(train, table, *encoders, **how, on_progress=on_progress)


def _fit(
    train: Dataset, valid: HeldOut | Chosen, text: TextFeatures, how: Mapping[str, Any], on_epoch: OnEpoch
) -> Recommender:
    return fit(train, text, valid=valid, on_epoch=on_epoch, **how)


def _exists(path: str) -> bool:
    return Path(path).exists()
