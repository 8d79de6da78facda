"""What every model is to the loop that trains it."""

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from symcere.losses import Known
from symcere.models.tables import Table


@runtime_checkable
class Model(Protocol):
    """What the loop trains: a module with loss terms and final vectors."""

    @property
    def temperature(self) -> float | None:
        """Unit of the score; None to take the spread of the scores."""
        ...

    def tables(self) -> tuple[Tensor, ...]:
        """Matrices over all nodes that depend on the parameters alone: computed once a step, for all its batches."""
        ...

    def terms(
        self, user: Tensor, item: Tensor, negative: Tensor, known: Known, tables: Sequence[Table]
    ) -> dict[str, Tensor]:
        """Unweighted loss terms of a batch, which reads rows of the tables."""
        ...

    def embeddings(self) -> tuple[Tensor, Tensor]:
        """Final vectors of users and items."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """What the optimiser moves."""
        ...

    def to(self, device: torch.device) -> object:
        """Move all of it to a device."""
        ...
