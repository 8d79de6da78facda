"""RGCL with a ranking head: a graph whose edges carry reviews, and contrasts of its nodes and edges."""

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from symcere.baselines.sim_gcl import contrast
from symcere.data.dataset import Dataset, HeldOut
from symcere.graph import NormAdj, norm_adj, weighted_sums
from symcere.losses import Known, bpr_of_rows, info_nce, l2
from symcere.models.tables import Table
from symcere.recommender import Recommender
from symcere.text.features import TextFeatures
from symcere.training.config import GraphSettings, Weight
from symcere.training.loop import optimise, torch_generator
from symcere.training.progress import OnEpoch
from symcere.training.space import GRAPH, TEMPERATURE, Choice, Real, Space
from symcere.training.text import ReviewOfPair, review_of_pair, review_vectors


class RGCLSettings(GraphSettings):
    """RGCL."""

    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-3
    """Step size of Adam."""
    temperature: Annotated[float, Field(ge=0.01, le=10)] = 0.2
    """Of both contrasts; the score is an inner product and has none."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of the edges that each of the two views of a batch lacks."""
    w_nodes: Weight = 0.05
    """Weight of node discrimination, between the two views."""
    w_edges: Weight = 0.05
    """Weight of edge discrimination, between a pair's vectors and its review."""
    leave_one_out: bool = True
    """Whether edges carry no text for the pairs of the batch; as published, they do."""
    precision: Literal["float32"] = "float32"
    """Its edges are weighed anew in every batch; their sums know no other precision."""


SPACE: Space = {
    **GRAPH,
    "temperature": TEMPERATURE,
    "dropout": Real(0.1, 0.8),
    "w_nodes": Real(1e-3, 1.0, log=True),
    "w_edges": Real(1e-3, 1.0, log=True),
    "leave_one_out": Choice((False, True)),
}
"""What a search may move."""

PUBLISHED = (
    RGCLSettings(
        n_layers=1,
        include_ego=False,
        learning_rate=1e-2,
        batch_size=2_048,
        w_l2=1e-6,
        dropout=0.7,
        w_nodes=0.3,
        w_edges=1.0,
        leave_one_out=False,
    ),
)
"""The authors' code, for Digital Music: one layer, Adam at 0.01, 0.7 dropped. Theirs steps on all ratings at once,
has no L2, and contrasts by a bilinear discriminator, which has no temperature."""


class ReviewGraph(nn.Module):
    """A graph whose edges are the train interactions, in their order.

    Args:
        adj: Normalised adjacency.
        edge: Edge of each of its non-zeros.
        user: User node of each edge.
        item: Item node of each edge.
        weight: Weight of each edge, 1 / sqrt(degree of its user * degree of its item).
    """

    edge: Tensor
    user: Tensor
    item: Tensor
    weight: Tensor

    def __init__(
        self,
        adj: NormAdj,
        edge: Int[Tensor, " nnz"],
        user: Int[Tensor, " edges"],
        item: Int[Tensor, " edges"],
        weight: Float[Tensor, " edges"],
    ) -> None:
        super().__init__()
        self.adj = adj
        for name, tensor in (("edge", edge), ("user", user), ("item", item), ("weight", weight)):
            self.register_buffer(name, tensor, persistent=False)


def review_graph(train: Dataset) -> ReviewGraph:
    """The graph of the train interactions."""
    n_users, n_items = len(train.users), len(train.items)
    adj = norm_adj(train.user, train.item, n_users, n_items)
    user, item = train.user.astype(np.int64), train.item.astype(np.int64) + n_users
    # the order of norm_adj: by row, then by column
    order = np.lexsort((np.concatenate([item, user]), np.concatenate([user, item])))
    edge = torch.from_numpy(np.tile(np.arange(len(train)), 2)[order])
    weight = torch.empty(len(train))
    weight[edge] = adj.values
    return ReviewGraph(adj, edge, torch.from_numpy(user), torch.from_numpy(item), weight)


def messages(
    x: Float[Tensor, "nodes dim"],
    gate: Float[Tensor, " edges"],
    said: Float[Tensor, "edges dim"],
    weight: Float[Tensor, " edges"],
    graph: ReviewGraph,
) -> Float[Tensor, "nodes dim"]:
    """Sum over the edges e of each node, to a neighbour n, of weight_e (gate_e x_n + said_e).

    Args:
        x: Vectors of the nodes.
        gate: How much of the neighbour passes.
        said: What the review of an edge adds.
        weight: Of each edge; its gradient is not taken.
        graph: The graph.

    Returns:
        What arrives at each node.

    Source:
        Shuai et al., RGCL, SIGIR 2022: its message between a user and an item. Both directions share gate and matrix.
    """
    arrived: Tensor = _Messages.apply(x, gate, said, weight, graph)  # type: ignore[no-untyped-call]
    return arrived


class _Messages(torch.autograd.Function):
    """The same both ways along an edge, so the gradient of x is the same sum over the gradient of the output."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, gate: Tensor, said: Tensor, weight: Tensor, graph: ReviewGraph) -> Tensor:
        ctx.save_for_backward(x, gate, weight)
        ctx.graph = graph
        carried = weighted_sums(x, graph.adj.indices, graph.adj.offsets, (weight * gate)[graph.edge])
        return carried + weighted_sums(said, graph.edge, graph.adj.offsets, weight[graph.edge])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        x, gate, weight = ctx.saved_tensors
        graph, grad = ctx.graph, grads[0].contiguous()
        grad_x = weighted_sums(grad, graph.adj.indices, graph.adj.offsets, (weight * gate)[graph.edge])
        at_user, at_item = grad[graph.user], grad[graph.item]
        passed = (at_user * x[graph.item]).sum(1) + (at_item * x[graph.user]).sum(1)
        return grad_x, weight * passed, weight[:, None] * (at_user + at_item), None, None


class RGCL(nn.Module):
    """Propagation of free vectors along edges that carry reviews.

    A review is e = P r. Layer l + 1 of a node is the sum over its edges of (sigmoid(w_l . e) x_l + W_l e) /
    sqrt(d d'), without the activation, the last dense layer and the rating types of the paper: this is LightGCN with
    reviews on its edges, scored by inner product. As in the authors' code, each of two views that lack some edges is
    trained to rank, the nodes of one view pick themselves in the other, and the features of a pair, here W (u * i),
    pick the pair's review.

    Args:
        graph: The graph.
        vectors: Vector of the review of each edge; never moved. A zero row has no text.
        n_users: How many of the nodes are users.
        review: Finds the review of a pair.
        dim: Length of an embedding.
        n_layers: Number of propagation hops.
        include_ego: Whether layer 0 is in the mean over layers.
        contrast_temperature: Of both contrasts.
        dropout: Share of the edges that a view lacks.
        leave_one_out: Whether the text of the pairs of the batch is left out of the views.
        init: Source of the initial values.
        noise: Source of the views.
    """

    temperature: float | None = None  # the unit of an inner product is its spread
    vectors: Tensor

    def __init__(
        self,
        graph: ReviewGraph,
        vectors: Float[Tensor, "edges text_dim"],
        n_users: int,
        review: ReviewOfPair,
        *,
        dim: int,
        n_layers: int,
        include_ego: bool,
        contrast_temperature: float,
        dropout: float,
        leave_one_out: bool,
        init: torch.Generator,
        noise: torch.Generator,
    ) -> None:
        super().__init__()
        self.register_buffer("vectors", vectors)
        self.graph, self.n_users, self.review = graph, n_users, review
        self.include_ego, self.contrast_temperature = include_ego, contrast_temperature
        self.dropout, self.leave_one_out, self.noise = dropout, leave_one_out, noise

        def uniform(n_out: int, n_in: int) -> Tensor:
            return (torch.rand(n_out, n_in, generator=init) * 2 - 1) / math.sqrt(n_in)

        self.ego = nn.Parameter(torch.randn(graph.adj.n_nodes, dim, generator=init) * 0.1)
        self.projection = nn.Parameter(uniform(dim, vectors.shape[1]))
        self.gates = nn.ParameterList(uniform(1, dim)[0] for _ in range(n_layers))
        self.matrices = nn.ParameterList(uniform(dim, dim) for _ in range(n_layers))
        self.feature = nn.Parameter(uniform(dim, dim))

    def carried(
        self, e: Float[Tensor, "edges dim"]
    ) -> list[tuple[Float[Tensor, " edges"], Float[Tensor, "edges dim"]]]:
        """Gate and addition of each edge, layer by layer, for projected reviews `e`."""
        return [(torch.sigmoid(e @ w), e @ m.T) for w, m in zip(self.gates, self.matrices, strict=True)]

    def propagate(
        self,
        carried: list[tuple[Float[Tensor, " edges"], Float[Tensor, "edges dim"]]],
        keep: Float[Tensor, " edges"] | float = 1.0,
    ) -> Float[Tensor, "nodes dim"]:
        """Mean over layers, for what edges carry, and edges weighted by `keep` beside their degrees."""
        weight = self.graph.weight * keep
        layer: Tensor = self.ego
        layers = [layer] if self.include_ego else []
        for gate, said in carried:
            layer = messages(layer, gate, said, weight, self.graph)
            layers.append(layer)
        return torch.stack(layers).mean(0)

    def tables(self) -> tuple[()]:
        """There are none: each batch propagates over other edges."""
        return ()

    def terms(
        self,
        user: Int[Tensor, " batch"],
        item: Int[Tensor, " batch"],
        negative: Int[Tensor, " batch"],
        known: Known,  # noqa: ARG002  as published, nothing is masked
        tables: Sequence[Table],  # noqa: ARG002
    ) -> dict[str, Float[Tensor, ""]]:
        """Unweighted loss terms of a batch: "bpr", "nodes", "edges" and "l2"."""
        own = self.review(user, item)
        item, negative = item + self.n_users, negative + self.n_users
        e = self.vectors @ self.projection.T
        carried = self.carried(e.index_fill(0, own, 0.0) if self.leave_one_out else e)
        views = [self.propagate(carried, self._kept()) for _ in range(2)]
        told: Bool[Tensor, " batch"] = self.vectors[own].any(1)
        return {
            "bpr": torch.stack([self._rank(g[user], g[item], g[negative]) for g in views]).mean(),
            "nodes": contrast(views[0], views[1], user, item, self.contrast_temperature),
            "edges": torch.stack(
                [self._tell(g[user[told]] * g[item[told]], e.index_select(0, own[told])) for g in views]
            ).mean(),
            "l2": l2(self.ego[user], self.ego[item], self.ego[negative]),
        }

    def _kept(self) -> Tensor:
        """A Bernoulli draw for each edge, 1 on average."""
        kept = torch.rand(len(self.graph.weight), generator=self.noise) >= self.dropout
        return kept.to(self.graph.weight.device) / (1 - self.dropout)

    @staticmethod
    def _rank(g_user: Tensor, g_item: Tensor, g_negative: Tensor) -> Tensor:
        return bpr_of_rows(g_user, g_item, g_negative)

    def _tell(self, pair: Tensor, e: Tensor) -> Tensor:
        # no pair has text: the mean over nothing is 0
        return info_nce(pair @ self.feature.T, e, self.contrast_temperature) if len(e) else pair.sum()

    @torch.no_grad()
    def embeddings(self) -> tuple[Float[Tensor, "n_users dim"], Float[Tensor, "n_items dim"]]:
        """Final vectors of users and items over all edges; their inner product is the score."""
        g = self.propagate(self.carried(self.vectors @ self.projection.T))
        return g[: self.n_users], g[self.n_users :]


def fit_rgcl(
    train: Dataset,
    text: TextFeatures,
    *,
    valid: HeldOut,
    settings: RGCLSettings | None = None,
    seed: int = 0,
    on_epoch: OnEpoch | None = None,
) -> Recommender:
    """Fit RGCL; epoch and dial are chosen on valid.

    Args:
        train: The train part.
        text: Features of the same train part that know their reviews: `encode_reviews(..., leave_one_out=True)`.
        valid: What decides.
        settings: RGCLSettings() if left out.
        seed: Of initial values, order of batches, negatives and views.
        on_epoch: Called after each epoch.

    Returns:
        The recommender of the best epoch.

    Raises:
        ConfigError: If the loss diverges, or the features do not fit train or do not know its reviews.

    Source:
        Shuai et al., A Review-aware Graph Contrastive Learning Framework for Recommendation (RGCL), SIGIR 2022; BPR
        in place of rating regression is ours.
    """
    settings = settings or RGCLSettings()
    model = RGCL(
        review_graph(train),
        torch.from_numpy(review_vectors(train, text)),
        len(train.users),
        review_of_pair(train),
        dim=settings.dim,
        n_layers=settings.n_layers,
        include_ego=settings.include_ego,
        contrast_temperature=settings.temperature,
        dropout=settings.dropout,
        leave_one_out=settings.leave_one_out,
        init=torch_generator(seed),
        noise=torch_generator(seed, "views"),
    )
    weights = {"bpr": 1.0, "nodes": settings.w_nodes, "edges": settings.w_edges, "l2": settings.w_l2}
    return optimise(model, train, valid, settings, weights=weights, seed=seed, on_epoch=on_epoch)
