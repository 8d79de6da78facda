"""A fitted SymCERE opened up: the vectors of every node before they are joined, and what of each is in the score."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.sparse import csr_array

from symcere.data.dataset import Dataset
from symcere.errors import ConfigError
from symcere.recommender import Recommender
from symcere.text.features import TextFeatures
from symcere.towers import Towers

PARTS = ("graph", "text", "neighbours' text")
"""What a final vector is the sum of; the last is what `propagated_weight` and the third tower add."""


@dataclass(frozen=True, eq=False)
class Gathered:
    """The final vector of a node with some neighbours and a profile.

    Args:
        parts: What it is the sum of, in the order of PARTS.
        beside: What its text is joined to: graph and neighbours' text, before the sums are scaled.
    """

    parts: tuple[Float[ndarray, " served"], Float[ndarray, " served"], Float[ndarray, " served"]]
    beside: Float[ndarray, " unscaled"]

    @property
    def final(self) -> Float[ndarray, " served"]:
        """The vector."""
        return np.asarray(self.parts[0] + self.parts[1] + self.parts[2])


@dataclass(frozen=True, eq=False)
class Learned:
    """What a fit learned, node by node: users first, then items.

    Args:
        train: The train part it was fitted on.
        text: Profiles made from it.
        model: The recommender.

    Raises:
        ConfigError: If the recommender does not know its towers, or the parts are not of one fit.
    """

    train: Dataset
    text: TextFeatures
    model: Recommender

    def __post_init__(self) -> None:
        """Check that the parts belong together: what is explained must be what is served."""
        if self.model.towers is None:
            raise ConfigError(
                "This recommender does not say what its vectors are made of: it is no SymCERE, or an older version "
                "saved it. Fit it again with symcere run."
            )
        graph, told, heard = self.parts
        served, made = self.final, graph + told + heard
        if made.shape != served.shape or not np.allclose(made, served, atol=1e-3 * max(np.abs(served).max(), 1e-6)):
            raise ConfigError(
                "The recommender, its train part and its text features are not of one fit: joined again, the towers "
                "do not give the recommender's vectors. Or an older version fitted it, which joined them otherwise: "
                "fit it again with symcere run."
            )

    @property
    def towers(self) -> Towers:
        """The parameters."""
        assert self.model.towers is not None  # checked on construction
        return self.model.towers

    @property
    def n_users(self) -> int:
        """How many of the nodes are users."""
        return len(self.train.users)

    @cached_property
    def graph(self) -> Float[ndarray, "nodes dim"]:
        """Vectors of the graph tower, at the length that it gives them."""
        return self._propagated(self.towers.layer0, include_ego=self.towers.include_ego)

    @cached_property
    def features(self) -> Float[ndarray, "nodes text_dim"]:
        """Profiles of all nodes; zero where there is no text."""
        return np.concatenate([self.text.user, self.text.item])

    @cached_property
    def texts(self) -> Float[ndarray, "nodes dim"]:
        """Vectors of the text tower, at the length that it gives them; zero for a node without text."""
        return self.towers.project(self.features)

    @cached_property
    def near_texts(self) -> Float[ndarray, "nodes near_dim"]:
        """What the third tower makes of each profile, before it is averaged; no columns without it."""
        return self.towers.project_near(self.features)

    @cached_property
    def near(self) -> Float[ndarray, "nodes near_dim"]:
        """Vectors of the third tower, at the length that it gives them."""
        return self._propagated(self.near_texts, include_ego=True)

    @cached_property
    def told(self) -> Bool[ndarray, " nodes"]:
        """Which nodes have text."""
        return np.asarray(self.features.any(1))

    @cached_property
    def joined(self) -> tuple[Float[ndarray, "nodes dim"], Float[ndarray, "nodes dim"], Float[ndarray, "nodes dim"]]:
        """What the final vectors are made of, in the order of PARTS, each with its weight; before they are scaled."""
        towers = self.towers
        graph, texts = towers.scaled(self.graph), towers.scaled(self.texts)
        heard = np.zeros_like(graph)
        if towers.propagated_weight:
            averaged = self._propagated(self.text_sent, include_ego=False, n_layers=1) / towers.n_layers
            heard = towers.propagated_weight * towers.heard(averaged)
        return graph, towers.text_weight * texts, heard

    @cached_property
    def length(self) -> Float[ndarray, "nodes 1"]:
        """What each sum is divided by."""
        if not self.towers.unit:
            return np.ones((len(self.degree), 1), dtype=np.float32)
        graph, told, heard = self.joined
        return np.asarray(np.maximum(np.linalg.norm(graph + told + heard, axis=1, keepdims=True), 1e-12))

    @cached_property
    def parts(
        self,
    ) -> tuple[Float[ndarray, "nodes served"], Float[ndarray, "nodes served"], Float[ndarray, "nodes served"]]:
        """What each final vector is the sum of, in the order of PARTS."""
        towers, blank = self.towers, np.zeros_like(self.near)
        graph, told, heard = (part / self.length for part in self.joined)
        near = towers.scaled(self.near)
        return towers.beside(graph, blank), towers.beside(told, blank), towers.beside(heard, near)

    @cached_property
    def final(self) -> Float[ndarray, "nodes served"]:
        """The vectors that are served: their inner product over the temperature is the score, but for the dial."""
        return np.concatenate([self.model.user_emb, self.model.item_emb])

    def with_features(
        self, node: int, features: Float[ndarray, "variants text_dim"]
    ) -> Float[ndarray, "variants served"]:
        """Final vectors of a node if its profile were another; what its neighbours tell is held as it is."""
        return self.joined_with(self.beside(node), features)

    def beside(self, node: int) -> Float[ndarray, " unscaled"]:
        """What the text of a node is joined to: graph and neighbours' text, before the sums are scaled."""
        graph, _, heard = self.joined
        return np.concatenate([graph[node] + heard[node], self.near[node] - self.near_texts[node] / self.n_averaged])

    def joined_with(
        self, beside: Float[ndarray, "*some unscaled"], features: Float[ndarray, "profiles text_dim"]
    ) -> Float[ndarray, "variants served"]:
        """Final vectors of what is joined to the text of some profiles; of one, or row by row."""
        towers, dim = self.towers, self.towers.dim
        joined = beside[..., :dim] + towers.text_weight * towers.scaled(towers.project(features))
        near = beside[..., dim:] + towers.project_near(features) / self.n_averaged
        return towers.beside(towers.scaled(joined), towers.scaled(near))

    def gathered(
        self,
        neighbours: Int[ndarray, " neighbours"],
        layer0: Float[ndarray, " dim"],
        features: Float[ndarray, " text_dim"],
    ) -> Gathered:
        """Make the final vector of a node, of train or new.

        Args:
            neighbours: The nodes it is joined to.
            layer0: Its own row of the graph tower.
            features: Its profile.

        Returns:
            The vector; of a node of train with its neighbours, the one that is served.
        """
        towers = self.towers
        graph, heard, near_heard = self._summed(neighbours, layer0, _whole)
        told = towers.text_weight * towers.scaled(towers.project(features[None]))
        near = towers.scaled(near_heard + towers.project_near(features[None]) / self.n_averaged)
        length, blank = towers.lengths(graph + told + heard), np.zeros_like(near)
        of_graph, of_text = (towers.beside(part / length, blank)[0] for part in (graph, told))
        return Gathered(
            (of_graph, of_text, towers.beside(heard / length, near)[0]),
            np.concatenate([graph[0] + heard[0], near_heard[0]]),
        )

    def without_each(
        self,
        neighbours: Int[ndarray, " neighbours"],
        layer0: Float[ndarray, " dim"],
        features: Float[ndarray, " text_dim"],
    ) -> Float[ndarray, "neighbours served"]:
        """The same vector without each neighbour; what the others send is held as it is."""
        graph, heard, near_heard = self._summed(neighbours, layer0, _all_but_each)
        return self.joined_with(np.concatenate([graph + heard, near_heard], axis=1), features[None])

    def _summed(
        self,
        neighbours: Int[ndarray, " neighbours"],
        layer0: Float[ndarray, " dim"],
        over: Callable[[Float[ndarray, "neighbours width"]], Float[ndarray, "sums width"]],
    ) -> tuple[Float[ndarray, "sums dim"], Float[ndarray, "sums dim"], Float[ndarray, "sums near_dim"]]:
        """Graph, neighbours' text and the neighbours' share of the third tower, by some sums over what is sent."""
        towers = self.towers
        root = np.sqrt(np.maximum(self.degree[neighbours], 1), dtype=np.float32)[:, None]
        graph = over(self.sent[neighbours] / root) + towers.include_ego * layer0
        graph = towers.scaled(graph / (towers.n_layers + towers.include_ego))
        heard = np.zeros_like(graph)
        if towers.propagated_weight:
            heard = towers.propagated_weight * towers.heard(over(self.text_sent[neighbours] / root) / towers.n_layers)
        return graph, heard, over(self.near_sent[neighbours] / root) / self.n_averaged

    @property
    def n_averaged(self) -> int:
        """Layers in the mean that the third tower takes: the hops, and the node itself."""
        return self.towers.n_layers + 1

    @cached_property
    def sent(self) -> Float[ndarray, "nodes dim"]:
        """What each node sends to its neighbours over all hops: graph = (A sent [+ layer 0]) / layers in the mean."""
        return self._sent(self.towers.layer0)

    @cached_property
    def text_sent(self) -> Float[ndarray, "nodes _"]:
        """What each node sends of its text to its neighbours over all hops: heard is of (A text_sent) / hops."""
        return self._sent(self.towers.text_sent(self.features))

    @cached_property
    def near_sent(self) -> Float[ndarray, "nodes near_dim"]:
        """What each node sends on for the third tower: near = (A near_sent + near_texts) / n_averaged."""
        return self._sent(self.near_texts)

    def _sent(self, layer0: Float[ndarray, "nodes dim"]) -> Float[ndarray, "nodes dim"]:
        """The sum of A^l layer0 over all hops but the last."""
        hops = self.towers.n_layers
        if not hops:
            return np.zeros_like(layer0)
        return hops * self._propagated(layer0, include_ego=True, n_layers=hops - 1)

    @cached_property
    def by_item(self) -> csr_array:
        """The interaction matrix by item (n_items x n_users)."""
        return csr_array(self.train.matrix.T.tocsr())

    @cached_property
    def degree(self) -> Float[ndarray, " nodes"]:
        """Train interactions of each node."""
        return np.concatenate([np.bincount(self.train.user, minlength=self.n_users), self.train.popularity])

    @cached_property
    def _half_adj(self) -> csr_array:
        """D^-1/2 R D^-1/2 (n_users x n_items): both halves of the normalised adjacency are it, and it transposed."""
        root = np.sqrt(np.maximum(self.degree, 1)).astype(np.float32)
        matrix = self.train.matrix.tocoo()
        weight = 1 / (root[: self.n_users][matrix.row] * root[self.n_users :][matrix.col])
        return csr_array((weight, (matrix.row, matrix.col)), shape=matrix.shape)

    def _propagated(
        self, x: Float[ndarray, "nodes dim"], *, include_ego: bool, n_layers: int | None = None
    ) -> Float[ndarray, "nodes dim"]:
        """Mean over hops of A^l x, as `symcere.graph.propagate` has it, by SciPy: nothing here needs torch."""
        hops = self.towers.n_layers if n_layers is None else n_layers
        half, n = self._half_adj, self.n_users
        layer, total = x, x * np.float32(include_ego)
        for _ in range(hops):
            layer = np.concatenate([half @ layer[n:], half.T @ layer[:n]])
            total = total + layer
        return np.asarray(total / (hops + include_ego), dtype=np.float32)


def _whole(each: Float[ndarray, "neighbours width"]) -> Float[ndarray, "1 width"]:
    """What all neighbours send together."""
    return np.asarray(each.sum(0, keepdims=True) / np.float32(math.sqrt(max(len(each), 1))))


def _all_but_each(each: Float[ndarray, "neighbours width"]) -> Float[ndarray, "neighbours width"]:
    """What all neighbours but one send together, for each."""
    return np.asarray((each.sum(0, keepdims=True) - each) / np.float32(math.sqrt(max(len(each) - 1, 1))))
