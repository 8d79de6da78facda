"""The graph tower: free embeddings, propagated; and LightGCN, which is that tower trained by BPR."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from symcere.graph import NormAdj, ShardedAdj, propagate
from symcere.losses import Known
from symcere.models.tables import Table, bpr_of_nodes, l2_of_nodes


class GraphTower(nn.Module):
    """Free layer-0 embeddings of all nodes, propagated over the interaction graph.

    Args:
        adj: Normalised adjacency of users and items; of a sharded one, the worker's own rows are held.
        dim: Length of an embedding.
        n_layers: Number of propagation hops.
        include_ego: Whether layer 0 is in the mean over layers.
        generator: Source of the initial values, normal with standard deviation 0.1.
    """

    def __init__(
        self, adj: NormAdj | ShardedAdj, dim: int, n_layers: int, *, include_ego: bool, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.adj, self.n_layers, self.include_ego = adj, n_layers, include_ego
        ego = torch.randn(adj.n_nodes, dim, generator=generator) * 0.1
        self.ego = nn.Parameter(ego[adj.shard.own].clone() if isinstance(adj, ShardedAdj) else ego)

    def forward(self, more: Tensor | None = None) -> Float[Tensor, "nodes dim"]:
        """Propagated embeddings of all nodes, users first; `more` is added to layer 0."""
        layer0 = self.ego if more is None else self.ego + more
        return propagate(self.adj, layer0, self.n_layers, include_ego=self.include_ego)


class LightGCN(nn.Module):
    """LightGCN: the graph tower, scored by inner product, trained by BPR with L2 on layer 0.

    Args:
        graph: The tower.
        n_users: How many of its nodes are users.

    Source:
        He et al., LightGCN, SIGIR 2020.
    """

    temperature: float | None = None  # the unit of an inner product is its spread

    def __init__(self, graph: GraphTower, n_users: int) -> None:
        super().__init__()
        self.graph, self.n_users = graph, n_users

    def tables(self) -> tuple[Float[Tensor, "nodes dim"], ...]:
        """Propagated vectors of all nodes, and layer 0."""
        return self.graph(), self.graph.ego

    def terms(
        self,
        user: Int[Tensor, " batch"],
        item: Int[Tensor, " batch"],
        negative: Int[Tensor, " batch"],
        known: Known,  # noqa: ARG002  BPR has no denominator to leave pairs out of
        tables: Sequence[Table],
    ) -> dict[str, Float[Tensor, ""]]:
        """Unweighted loss terms of a batch: "bpr" and "l2"."""
        g, ego = tables
        triples = torch.stack([user, item, negative])
        triples[1:] += self.n_users
        return {"bpr": bpr_of_nodes(g, triples), "l2": l2_of_nodes(ego, triples)}

    @torch.no_grad()
    def embeddings(self) -> tuple[Float[Tensor, "n_users dim"], Float[Tensor, "n_items dim"]]:
        """Final vectors of users and items; their inner product is the score."""
        g = self.graph()
        return g[: self.n_users], g[self.n_users :]
