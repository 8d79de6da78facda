"""What SymCERE's final vectors are made of. NumPy only, so that what is served can say why."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray


@dataclass(frozen=True, eq=False)
class Towers:
    """The parameters of both towers, and how they are joined.

    Args:
        layer0: float32 (nodes x dim), users first: what the graph tower propagates.
        projection: Matrices of the text projection, first to last, each n_out x n_in, a ReLU between them.
        n_layers: Propagation hops.
        include_ego: Whether layer 0 is in the mean over layers.
        text_weight: Weight of the text vector beside the graph vector in the final vector.
        propagated_weight: Weight of the propagated text vector.
        unit: Whether each of these is put on the unit sphere, and their sum again.
    """

    layer0: Float[ndarray, "nodes dim"]
    projection: tuple[Float[ndarray, "_ _"], ...]
    n_layers: int
    include_ego: bool
    text_weight: float
    propagated_weight: float
    unit: bool

    def project(self, x: Float[ndarray, "rows text_dim"]) -> Float[ndarray, "rows dim"]:
        """Text vectors in the space of the graph tower."""
        for weight in self.projection[:-1]:
            x = np.maximum(x @ weight.T, 0)
        return np.asarray(x @ self.projection[-1].T, dtype=np.float32)

    def scaled(self, x: Float[ndarray, "rows dim"]) -> Float[ndarray, "rows dim"]:
        """The rows as the model compares them: of unit length, unless it has no sphere."""
        if not self.unit:
            return x
        return np.asarray(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12), dtype=np.float32)

    @property
    def tensors(self) -> dict[str, ndarray]:
        """Its arrays by name, for a file."""
        named = {f"projection{place}": weight for place, weight in enumerate(self.projection)}
        return {name: np.ascontiguousarray(array) for name, array in ({"layer0": self.layer0} | named).items()}

    @property
    def about(self) -> dict[str, Any]:
        """Its other fields, as JSON values."""
        names = ("n_layers", "include_ego", "text_weight", "propagated_weight", "unit")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def of(cls, tensors: Mapping[str, ndarray], about: Mapping[str, Any]) -> "Towers":
        """The towers of `tensors` and `about`."""
        weights = sorted(
            (name for name in tensors if name != "layer0"), key=lambda name: int(name[len("projection") :])
        )
        return cls(tensors["layer0"], tuple(tensors[name] for name in weights), **about)
