"""The verbs that stages are made of, and where they run: here, or on whatever `running_on` names."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Protocol

from symcere.data.dataset import Dataset, HeldOut, Split
from symcere.data.ingest import Ingestion, ingest_reviews
from symcere.evaluation.compare import Values, measure_test
from symcere.evaluation.measures import Measure
from symcere.recommender import Recommender, Scored
from symcere.text.corpus import Part
from symcere.text.encoders import Encoder, OnProgress
from symcere.text.features import TextFeatures, encode_reviews
from symcere.text.profiles import Weighting
from symcere.training.config import SymcereSettings
from symcere.training.loop import fit
from symcere.training.progress import Chosen, OnEpoch


class Verbs(Protocol):
    """What costs time in a run."""

    @property
    def decides(self) -> Mapping[str, Any]:
        """What of it changes the last digits of a fit."""
        ...

    def ingest(self, what: Ingestion, folder: Path, on_progress: Callable[[float], None]) -> dict[str, Any]:
        """Read, clean, filter and write reviews."""
        ...

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
        """Profiles of the train reviews, whose words stand in `table` unless they were changed since."""
        ...

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
        """Fit SymCERE."""
        ...

    def measure(self, system: Scored, split: Split, measures: Sequence[Measure]) -> Values:
        """Measure a system on the test part."""
        ...


class Here:
    """In this process."""

    @property
    def decides(self) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    def ingest(self, what: Ingestion, folder: Path, on_progress: Callable[[float], None]) -> dict[str, Any]:
        """Read, clean, filter and write reviews."""
        return ingest_reviews(what, folder, on_progress)

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
        """Profiles of the train reviews; their words are at hand."""
        del table, changed
        return encode_reviews(
            train,
            *encoders,
            parts=parts,
            weightings=weightings,
            leave_one_out=leave_one_out,
            cache=cache,
            on_progress=on_progress,
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
        """Fit SymCERE; the caller says where checkpoints go."""
        del checkpoints
        return fit(train, text, valid=valid, settings=settings, seed=seed, on_epoch=on_epoch)

    def measure(self, system: Scored, split: Split, measures: Sequence[Measure]) -> Values:
        """Measure a system on the test part."""
        return measure_test(system, split, measures)


_HERE = Here()
_CURRENT: ContextVar[Verbs] = ContextVar("verbs", default=_HERE)


def current_verbs() -> Verbs:
    """What a stage begun now would use."""
    return _CURRENT.get()


@contextlib.contextmanager
def running_on(verbs: Verbs) -> Iterator[None]:
    """Let every stage inside run there.

    Args:
        verbs: Where.

    Yields:
        Nothing.
    """
    token = _CURRENT.set(verbs)
    try:
        yield
    finally:
        _CURRENT.reset(token)
