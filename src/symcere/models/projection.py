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


class TextTower(nn.Module):
    """A linear projection, or one with a hidden layer, of frozen profiles. The features never move.

    Args:
        features: Profiles of all nodes, users first; a zero row is a node without text.
        dim: Length of an embedding.
        hidden: Width of the hidden layer; 0 for a linear projection.
        generator: Source of the initial values (uniform, as nn.Linear).
        of_pairs: Profiles of the nodes of a batch's own pairs where they differ from `features`: without the review
            of the pair, for leave-one-out.

    Attributes:
        told: Which nodes have text.
    """

    features: Tensor
    told: Tensor
    activation: Callable[[Tensor], Tensor] = staticmethod(torch.relu)

    def __init__(
        self,
        features: Float[Tensor, "nodes text_dim"],
        dim: int,
        hidden: int,
        generator: torch.Generator,
        of_pairs: PairFeatures | None = None,
    ) -> None:
        super().__init__()
        self.of_pairs = of_pairs
        self.register_buffer("features", features)
        self.register_buffer("told", features.any(1), persistent=False)
        widths = [features.shape[1], *([hidden] if hidden else []), dim]
        self.weights = nn.ParameterList(
            (torch.rand(n_out, n_in, generator=generator) * 2 - 1) / math.sqrt(n_in)
            for n_in, n_out in itertools.pairwise(widths)
        )

    def forward(self, node: Tensor | None = None) -> Float[Tensor, "nodes dim"]:
        """Projected profiles of `node` (all nodes if left out); exactly 0 where there is no text."""
        return self.project(self.features if node is None else self.features.index_select(0, node))

    def profiles(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """Profiles of the users and items of a batch's own pairs."""
        if self.of_pairs:
            return self.of_pairs(user, item)
        return self.features.index_select(0, user), self.features.index_select(0, item)

    def project(self, x: Float[Tensor, "rows text_dim"]) -> Float[Tensor, "rows dim"]:
        """Projected profiles, whosesoever they are."""
        for weight in self.weights[:-1]:
            x = self.activation(x @ weight.T)
        projected: Tensor = x @ self.weights[-1].T
        return projected


class LeakyTextTower(TextTower):
    """A text tower whose hidden layer is a LeakyReLU, as RLMRec and AlphaRec have it.

    There are no biases, other than in their code: so a node without text stays at exactly zero.
    """

    activation = staticmethod(functional.leaky_relu)
