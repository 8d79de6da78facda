"""SymCERE of which several workers hold a range of the nodes each: rows of tables, their optimiser, their text."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from symcere.graph import ShardedAdj
from symcere.losses import Known, Part, bpr_of_rows, known_mass, l2, sampled_softmax, symmetric_nce
from symcere.models.lightgcn import GraphTower
from symcere.models.projection import TextTower
from symcere.models.symcere import SymcereModel
from symcere.models.tables import Rows, Table
from symcere.workers import summed


class ShardedSymcere(SymcereModel):
    """One worker's part of SymCERE. All workers draw the same batches; each computes some rows of every softmax.

    The vectors of a batch are gathered from who owns them, and their gradients go back there; so in-batch negatives
    are those of the whole batch. Terms of the workers sum to those of one process, as do gradients.

    Args:
        graph: The graph tower over a sharded adjacency.
        text: The text tower over the worker's own nodes.
        n_users: How many of all nodes are users.
        told: Which of all nodes have text.
        **more: As of SymcereModel. Positives, pairs, unit and profiles of pairs are its defaults.
    """

    def __init__(
        self, graph: GraphTower, text: TextTower, n_users: int, told: Bool[Tensor, " nodes"], **more: Any
    ) -> None:
        assert isinstance(graph.adj, ShardedAdj)
        text.told = told
        super().__init__(graph, text, n_users, **more)
        self.shard = graph.adj.shard

    @property
    def replicated(self) -> tuple[Tensor, ...]:
        """Parameters that every worker holds whole: each knows a part of their gradient."""
        return (*self.text.weights, *(self.neighbourhood.weights if self.neighbourhood else ()))

    def terms(
        self,
        user: Int[Tensor, " batch"],
        item: Int[Tensor, " batch"],
        negative: Int[Tensor, " batch"],
        known: Known,
        tables: Sequence[Table],
    ) -> dict[str, Float[Tensor, ""]]:
        """This worker's part of the terms of a batch."""
        item, negative = item + self.n_users, negative + self.n_users
        g, ego = tables
        assert isinstance(ego, Rows)
        users, items, known, pairs = self._once(user, item, known)
        node = torch.cat([users, items, negative])
        sizes = [len(users), len(items), len(negative)]
        g_node, t_node = g[node], self._projected_at(node, self._told)
        p_node = self._projected_at(node, self._propagated) if self.propagated_weight else None
        final = self._fuse(g_node, t_node, p_node)
        g_user, g_item, _ = torch.split(g_node, sizes)
        t_user, t_item, _ = torch.split(t_node, sizes)
        user_text, item_text = self.text.told[users][pairs.user], self.text.told[items][pairs.item]
        both = user_text & item_text
        graph_text = self._nce(g_user, t_item, known, pairs, item_text)
        mine = self.shard.workers.share(len(user))
        share = (mine.stop - mine.start) / len(user)

        def of_mine(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            of_user, of_item, of_negative = torch.split(rows, sizes)
            return of_user[pairs.user[mine]], of_item[pairs.item[mine]], of_negative

        bpr = final.sum() * 0
        if share:
            own_user, own_item, final_negative = of_mine(final)
            bpr = bpr_of_rows(own_user, own_item, final_negative[mine], self.temperature or 1.0) * share
        own = ego.owned(self.shard.mine(torch.cat([user, item]))[1])
        terms = {
            "cross": (graph_text + self._nce(t_user, g_item, known, pairs, user_text)) / 2,
            "intra_graph": self._nce(g_user, g_item, known, pairs, torch.ones_like(user_text)),
            "intra_text": self._nce(t_user, t_item, known, pairs, both),
            "bpr": bpr,
            "l2": l2(own) * len(own) / len(user) if len(own) else own.sum() * 0,
        }
        if self.neighbourhood:
            near = self._projected_at(node, self._near)
            softmax = (
                sampled_softmax(*of_mine(near), self.temperature or 1.0, coarse=self.coarse) * share
                if share
                else near.sum() * 0
            )
            terms["neighbourhood"] = softmax
        return terms

    def _projected_at(self, node: Tensor, projected: Callable[[Tensor], Tensor]) -> Tensor:
        """Vectors of nodes by text, each projected by who owns its row."""
        place, row = self.shard.mine(node)
        own = projected(row)
        return summed(own.new_zeros((len(node), own.shape[1])).index_copy(0, place, own), self.shard.workers)

    def _nce(self, a: Tensor, c: Tensor, known: Known, pairs: Any, has_text: Tensor) -> Tensor:
        if not has_text.any():
            return a.sum() * 0
        if not has_text.all():
            pairs = type(pairs)(pairs.user[has_text], pairs.item[has_text])
        part = Part(self.shard.workers.share(len(a)), self.shard.workers.sum)
        how: dict[str, Any] = {"own_known": self.own_known, "unit": True, "coarse": self.coarse}
        return symmetric_nce(a, c, known, self.softmax_temperature, pairs, part, **how)

    def _all_rows(self, x: Tensor) -> Tensor:
        return self.shard.workers.all_rows(x, self.shard)

    @torch.no_grad()
    def known_mass(self, user: Int[Tensor, " batch"], item: Int[Tensor, " batch"], known: Known) -> float:
        """Share of softmax mass that the mask removes from the graph-graph term of a batch."""
        g = Rows(self._graph(), self.shard)
        return known_mass(g[user], g[item + self.n_users], known, self.softmax_temperature)
