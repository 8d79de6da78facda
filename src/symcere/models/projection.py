"""The text tower: frozen text features, projected to the dimension of the graph tower."""

import itertools
import math
from collections.abc import Callable
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

PairFeatures: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(user nodes, item nodes) -> profiles of the users and items of a batch's own pairs."""


class Projection(nn.Module):
    """A linear projection, or one with a hidden layer, without biases.

    Args:
        text_dim: Width of what is projected.
        dim: Length of an embedding.
        hidden: Width of the hidden layer; 0 for a linear projection.
        generator: Source of the initial values (uniform, as nn.Linear).
    """

    activation: Callable[[Tensor], Tensor] = staticmethod(torch.relu)

    def __init__(self, text_dim: int, dim: int, hidden: int, generator: torch.Generator) -> None:
        super().__init__()
        widths = [text_dim, *([hidden] if hidden else []), dim]
        self.weights = nn.ParameterList(
            (torch.rand(n_out, n_in, generator=generator) * 2 - 1) / math.sqrt(n_in)
            for n_in, n_out in itertools.pairwise(widths)
        )

    def project(self, x: Float[Tensor, "rows text_dim"]) -> Float[Tensor, "rows dim"]:
        """Projected profiles, whosesoever they are; exactly 0 where there is no text."""
        for weight in self.weights[:-1]:
            x = self.activation(x @ weight.T)
        projected: Tensor = x @ self.weights[-1].T
        return projected


class TextTower(Projection):
    """A projection of frozen profiles. The features never move.

    Args:
        features: Profiles of all nodes, users first; a zero row is a node without text.
        dim: Length of an embedding.
        hidden: Width of the hidden layer; 0 for a linear projection.
        generator: Source of the initial values.
        of_pairs: Profiles of the nodes of a batch's own pairs where they differ from `features`: without the review
            of the pair, for leave-one-out.

    Attributes:
        told: Which nodes have text.
    """

    features: Tensor
    told: Tensor

    def __init__(
        self,
        features: Float[Tensor, "nodes text_dim"],
        dim: int,
        hidden: int,
        generator: torch.Generator,
        of_pairs: PairFeatures | None = None,
    ) -> None:
        super().__init__(features.shape[1], dim, hidden, generator)
        self.of_pairs = of_pairs
        self.register_buffer("features", features)
        self.register_buffer("told", features.any(1), persistent=False)

    def forward(self, node: Tensor | None = None) -> Float[Tensor, "nodes dim"]:
        """Projected profiles of `node` (all nodes if left out)."""
        return self.project(self.features if node is None else self.features.index_select(0, node))

    def profiles(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """Profiles of the users and items of a batch's own pairs."""
        if self.of_pairs:
            return self.of_pairs(user, item)
        return self.features.index_select(0, user), self.features.index_select(0, item)


class LeakyTextTower(TextTower):
    """A text tower whose hidden layer is a LeakyReLU, as RLMRec and AlphaRec have it.

    There are no biases, other than in their code: so a node without text stays at exactly zero.
    """

    activation = staticmethod(functional.leaky_relu)
