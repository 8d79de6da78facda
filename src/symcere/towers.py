"""What SymCERE's final vectors are made of. NumPy only, so that what is served can say why."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray


def shares_of(weight: float) -> tuple[float, float]:
    """Lengths of two unit vectors laid end to end, so that the whole is unit and the second counts `weight` times."""
    return math.sqrt(1 / (1 + weight)), math.sqrt(weight / (1 + weight))


@dataclass(frozen=True, eq=False)
class Towers:
    """The parameters of the towers, and how they are joined.

    Args:
        layer0: float32 (nodes x dim), users first: what the graph tower propagates.
        projection: Matrices of the text projection, first to last, each n_out x n_in, a ReLU between them.
        n_layers: Propagation hops.
        include_ego: Whether layer 0 is in the mean over layers.
        text_weight: Weight of the text vector beside the graph vector in the final vector.
        propagated_weight: Weight of the text vector of the neighbourhood.
        unit: Whether each of these is put on the unit sphere, and their sum again; and profiles before all that.
        neighbourhood: Matrix of the third tower, which projects profiles averaged over the hops of the graph; None
            where there is no such tower.
        neighbourhood_weight: Weight of its cosine beside that of the joined vector.
        text_times: How often valid let all text count; the three weights hold it already.
        apart: Whether graph and text were learned apart, since text was in the way of the graph.
    """

    layer0: Float[ndarray, "nodes dim"]
    projection: tuple[Float[ndarray, "_ _"], ...]
    n_layers: int
    include_ego: bool
    text_weight: float
    propagated_weight: float
    unit: bool
    neighbourhood: Float[ndarray, "dim text_dim"] | None = None
    neighbourhood_weight: float = 0.0
    text_times: float = 1.0
    apart: bool = False

    @property
    def dim(self) -> int:
        """Length of a vector of one tower."""
        return int(self.layer0.shape[1])

    def project(self, x: Float[ndarray, "rows text_dim"]) -> Float[ndarray, "rows dim"]:
        """Text vectors in the space of the graph tower."""
        for weight in self.projection[:-1]:
            x = np.maximum(x @ weight.T, 0)
        return np.asarray(x @ self.projection[-1].T, dtype=np.float32)

    def project_near(self, x: Float[ndarray, "rows text_dim"]) -> Float[ndarray, "rows near_dim"]:
        """What the third tower makes of profiles, before they are averaged over the graph; no columns without it."""
        if self.neighbourhood is None:
            return np.zeros((len(x), 0), dtype=np.float32)
        return np.asarray(x @ self.neighbourhood.T / self.lengths(x), dtype=np.float32)

    def text_sent(self, x: Float[ndarray, "rows text_dim"]) -> Float[ndarray, "rows _"]:
        """What nodes of these profiles send over a hop, for `heard`: projected where all is linear, and narrower."""
        if len(self.projection) > 1:
            return self.scaled(x)
        return np.asarray(self.project(x) / self.lengths(x), dtype=np.float32)

    def heard(self, averaged: Float[ndarray, "rows _"]) -> Float[ndarray, "rows dim"]:
        """The text vectors of a neighbourhood, of which the mean over the hops of what it sends is known."""
        return self.scaled(self.project(averaged) if len(self.projection) > 1 else averaged)

    def beside(
        self, joined: Float[ndarray, "rows dim"], near: Float[ndarray, "rows near_dim"]
    ) -> Float[ndarray, "rows served_dim"]:
        """Vectors as they are served: their inner product is the weighted mean of the products of both."""
        own, other = shares_of(self.neighbourhood_weight)
        return np.concatenate([own * joined, other * near], axis=1, dtype=np.float32)

    def scaled(self, x: Float[ndarray, "rows dim"]) -> Float[ndarray, "rows dim"]:
        """The rows as the model compares them: of unit length, unless it has no sphere."""
        return np.asarray(x / self.lengths(x), dtype=np.float32) if self.unit else x

    def lengths(self, x: Float[ndarray, "rows _"]) -> Float[ndarray, "rows 1"]:
        """What each row is divided by before it is compared: its length, if there is a sphere."""
        if not self.unit:
            return np.ones((len(x), 1), dtype=np.float32)
        return np.asarray(np.maximum(np.sqrt(np.einsum("rd,rd->r", x, x)), 1e-12)[:, None], dtype=np.float32)

    def counting_text(self, times: float) -> "Towers":
        """The same towers, all text counted so many times as now."""
        names = ("text_weight", "propagated_weight", "neighbourhood_weight", "text_times")
        return replace(self, **{name: times * getattr(self, name) for name in names})

    @property
    def tensors(self) -> dict[str, ndarray]:
        """Its arrays by name, for a file."""
        named = {f"projection{place}": weight for place, weight in enumerate(self.projection)}
        more = {} if self.neighbourhood is None else {"neighbourhood": self.neighbourhood}
        return {name: np.ascontiguousarray(array) for name, array in ({"layer0": self.layer0} | named | more).items()}

    @property
    def about(self) -> dict[str, Any]:
        """Its other fields, as JSON values."""
        names = ("n_layers", "include_ego", "text_weight", "propagated_weight", "unit", "neighbourhood_weight")
        return {name: getattr(self, name) for name in (*names, "text_times", "apart")}

    @classmethod
    def of(cls, tensors: Mapping[str, ndarray], about: Mapping[str, Any]) -> "Towers":
        """The towers of `tensors` and `about`."""
        weights = sorted(
            (name for name in tensors if name.startswith("projection")),
            key=lambda name: int(name[len("projection") :]),
        )
        projection = tuple(tensors[name] for name in weights)
        return cls(tensors["layer0"], projection, neighbourhood=tensors.get("neighbourhood"), **about)
