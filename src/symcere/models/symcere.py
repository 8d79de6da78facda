"""SymCERE: graph and text tower on one unit sphere, joined by symmetric NCE with the history mask."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from symcere.losses import (
    Known,
    PairRows,
    bpr_of_rows,
    inner_product_nce,
    known_mass,
    l2,
    sampled_softmax,
    sincere_nce,
    symmetric_nce,
    unit_rows,
)
from symcere.models.lightgcn import GraphTower
from symcere.models.projection import Projection, TextTower
from symcere.models.tables import Table
from symcere.towers import Towers, shares_of

Positives: TypeAlias = Literal["own", "known"]
Pairs: TypeAlias = Literal["user_item", "same_entity"]


class SymcereModel(nn.Module):
    """Two towers g (graph) and t (text); the final vector is normalise(g + text_weight * t + propagated_weight * p).

    p is the projection of t over what the neighbourhood writes: profiles averaged over the hops of the graph. For an
    item, what the users who chose it write, and what is written of the other items they chose. Only the ranking term
    and the score read it.

    Beside these may stand a third tower: the same averages, the node's own profile among them, under a projection of
    their own. It learns alone, by a softmax against uniformly drawn items, and its cosine is in the score: what is
    served is both vectors, end to end.

    Args:
        graph: The graph tower.
        text: The text tower over the same nodes.
        n_users: How many of the nodes are users.
        temperature: Of every softmax, of BPR, and of the score.
        text_weight: Weight of the unit text vector beside the unit graph vector in the final vector.
        averaged: What the neighbourhood of each node writes: the profiles of `text`, averaged over the hops of the
            graph without layer 0. None where neither p nor the third tower reads it.
        propagated_weight: Weight of the unit vector p.
        positives: "known" takes every known pair for a positive (SINCERE) instead of leaving it out.
        pairs: What the cross-modal term joins: "user_item" g_u with t_i and t_u with g_i, "same_entity" g_u with t_u
            and g_i with t_i.
        unit: Whether vectors are put on the unit sphere. Without, the score is an inner product.
        text_in_graph: Weight of the projected profiles in layer 0 of the graph tower.
        distinct: Whether the users and items of a batch are taken once each: faster, and the same where all pairs
            of the batch itself are among the known ones, or none is, and the profiles of a node are the same in all
            its pairs.
        own_known: With `distinct`, whether they are among the known ones: left out of all denominators but their own.
        neighbourhood: The projection of the third tower.
        neighbourhood_weight: Weight of its cosine beside that of the final vector of the others.
        coarse: Whether the matrix products of the softmaxes are taken in bfloat16.

    Source:
        Suzumura et al., SymCERE, arXiv 2504.02195: cross-modal, intra-modal and ranking terms on unit vectors with
        known pairs masked. Towers, pairing and score are ours (docs/method.md). The third tower is AlphaRec's idea
        (Sheng et al., ICLR 2025).
    """

    averaged: Tensor | None

    def __init__(
        self,
        graph: GraphTower,
        text: TextTower,
        n_users: int,
        *,
        temperature: float,
        text_weight: float,
        averaged: Float[Tensor, "nodes text_dim"] | None = None,
        propagated_weight: float = 0.0,
        positives: Positives = "own",
        pairs: Pairs = "user_item",
        unit: bool = True,
        text_in_graph: float = 0.0,
        distinct: bool = False,
        own_known: bool = True,
        neighbourhood: Projection | None = None,
        neighbourhood_weight: float = 0.0,
        coarse: bool = False,
    ) -> None:
        super().__init__()
        self.graph, self.text, self.n_users = graph, text, n_users
        self.neighbourhood, self.neighbourhood_weight = neighbourhood, neighbourhood_weight
        self.softmax_temperature, self.text_weight = temperature, text_weight
        self.register_buffer("averaged", averaged)
        self.propagated_weight = propagated_weight
        self.pairs, self.unit, self.text_in_graph = pairs, unit, text_in_graph
        alone = symmetric_nce if unit else inner_product_nce
        self.nce = sincere_nce if positives == "known" else alone
        self.distinct = distinct and self.nce is symmetric_nce and pairs == "user_item"
        self.own_known, self.coarse = own_known, coarse

    @property
    def temperature(self) -> float | None:
        """Unit of the score: that of the softmax, or the spread of inner products."""
        return self.softmax_temperature if self.unit else None

    def tables(self) -> tuple[Float[Tensor, "nodes dim"], ...]:
        """Vectors of all nodes by the graph tower, and layer 0."""
        return self._graph(), self.graph.ego

    def terms(
        self,
        user: Int[Tensor, " batch"],
        item: Int[Tensor, " batch"],
        negative: Int[Tensor, " batch"],
        known: Known,
        tables: Sequence[Table],
    ) -> dict[str, Float[Tensor, ""]]:
        """Unweighted loss terms of a batch: "cross", "intra_graph", "intra_text", "bpr", "l2" and "neighbourhood"."""
        item, negative = item + self.n_users, negative + self.n_users
        g, ego = tables
        users, items, known, pairs = self._once(user, item, known)
        others, drawn = torch.unique(negative, return_inverse=True)
        node, sizes = torch.cat([users, items, others]), [len(users), len(items), len(others)]
        g_node, (t_node, told) = g[node], self._texts_at(node, sizes)
        g_user, g_item, _ = torch.split(g_node, sizes)
        t_user, t_item, _ = torch.split(t_node, sizes)
        user_text, item_text = told[: len(users)][pairs.user], told[len(users) :][pairs.item]
        if self.pairs == "user_item":
            graph_text = self._nce(g_user, t_item, known, pairs, item_text)
            cross = graph_text + self._nce(t_user, g_item, known, pairs, user_text)
        else:
            cross = self._nce(g_user, t_user, known, pairs, user_text)
            cross = cross + self._nce(g_item, t_item, known, pairs, item_text)
        final = self._fuse(g_node, t_node, self._propagated(node) if self.propagated_weight else None)
        final_user, final_item, final_other = torch.split(final, sizes)
        own, its = final_user.index_select(0, pairs.user), final_item.index_select(0, pairs.item)
        terms = {
            "cross": cross / 2,
            "intra_graph": self._nce(g_user, g_item, known, pairs, torch.ones_like(user_text)),
            "intra_text": self._nce(t_user, t_item, known, pairs, user_text & item_text),
            "bpr": bpr_of_rows(own, its, final_other.index_select(0, drawn), self.temperature or 1.0),
            "l2": l2(ego[user], ego[item]),
        }
        if self.neighbourhood:
            near_user, near_item, near_other = torch.split(self._near(node), sizes)
            times = torch.bincount(drawn).to(g_node.dtype)
            terms["neighbourhood"] = sampled_softmax(
                near_user, near_item, near_other, self.temperature or 1.0, pairs, times, coarse=self.coarse
            )
        return terms

    def _texts_at(self, node: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor]:
        """Text vectors of the users and items of a batch and of its negatives, and which of these nodes have text."""
        if not self.text.of_pairs:
            return self._told(node), self.text.told[node]
        users, items, others = torch.split(node, sizes)
        x = torch.cat([*self.text.profiles(users, items), self.text.features.index_select(0, others)])
        return self._scaled(self.text.project(x)), x.any(1)

    def _once(self, user: Tensor, item: Tensor, known: Known) -> tuple[Tensor, Tensor, Known, PairRows]:
        """Nodes of a batch, what of them is known, and its pairs; each node but once where the loss allows it."""
        if not self.distinct:
            every = torch.arange(len(user), device=user.device)
            return user, item, known, PairRows(every, every)
        users, row = torch.unique(user, return_inverse=True)
        items, column = torch.unique(item, return_inverse=True)
        return users, items, Known(row[known.row], column[known.column]), PairRows(row, column)

    def _nce(self, a: Tensor, c: Tensor, known: Known, pairs: PairRows, has_text: Bool[Tensor, " batch"]) -> Tensor:
        """The NCE over the pairs of the batch that have the text they need."""
        if not has_text.any():
            return a.sum() * 0  # the mean over nothing is 0
        if self.nce is symmetric_nce:
            left = pairs if has_text.all() else PairRows(pairs.user[has_text], pairs.item[has_text])
            how: dict[str, Any] = {"own_known": self.own_known, "unit": True, "coarse": self.coarse}
            return symmetric_nce(a, c, known, self.softmax_temperature, left, **how)
        position = torch.cumsum(has_text, 0) - 1
        both = has_text[known.row] & has_text[known.column]
        still = Known(position[known.row[both]], position[known.column[both]])
        return self.nce(a[has_text], c[has_text], still, self.softmax_temperature)

    def _graph(self) -> Tensor:
        """Vectors of all nodes by the graph tower."""
        return self._scaled(self.graph(self._text_in_graph()))

    def _text_in_graph(self) -> Tensor | None:
        """What is added to layer 0."""
        return self.text_in_graph * unit_rows(self.text()) if self.text_in_graph else None

    def _scaled(self, x: Tensor) -> Tensor:
        return unit_rows(x) if self.unit else x

    def _told(self, node: Tensor | None = None) -> Tensor:
        """Vectors of nodes by the text tower."""
        return self._scaled(self.text(node))

    def _propagated(self, node: Tensor | None = None) -> Tensor:
        """Vectors of nodes by the text of their neighbourhood."""
        return self._scaled(self.text.project(self._averaged(node)))

    def _averaged(self, node: Tensor | None) -> Tensor:
        """What the neighbourhood of nodes writes."""
        assert self.averaged is not None  # the caller saw to it
        return self.averaged if node is None else self.averaged.index_select(0, node)

    def _fuse(self, g: Tensor, t: Tensor, p: Tensor | None) -> Tensor:
        """Final vectors of nodes."""
        fused = g + self.text_weight * t
        return self._scaled(fused if p is None else fused + self.propagated_weight * p)

    def _near(self, node: Tensor | None = None) -> Tensor:
        """Vectors of nodes by the third tower."""
        assert self.neighbourhood is not None  # the caller saw to it
        project, own, averaged = self.neighbourhood.project, self.text.features, self._averaged(node)
        share = self.graph.n_layers / (self.graph.n_layers + 1)
        if node is None:  # the same, and no third matrix as wide as the profiles
            return self._scaled(torch.lerp(project(own), project(averaged), share))
        return self._scaled(project(torch.lerp(own.index_select(0, node), averaged, share)))

    def _served(self, final: Tensor) -> Tensor:
        """Final vectors, with those of the third tower behind them."""
        if not self.neighbourhood:
            return final
        own, other = shares_of(self.neighbourhood_weight)
        return torch.cat([own * final, other * self._near()], dim=1)

    def _all_rows(self, x: Tensor) -> Tensor:
        """Rows of all nodes, where a worker holds but some of them."""
        return x

    @torch.no_grad()
    def embeddings(self) -> tuple[Float[Tensor, "n_users served_dim"], Float[Tensor, "n_items served_dim"]]:
        """Final vectors of users and items: unit rows, zero for a node with neither neighbours nor text."""
        p = self._propagated() if self.propagated_weight else None
        final = self._fuse(self._graph(), self._told(), p)
        final = self._all_rows(self._served(final))
        return final[: self.n_users], final[self.n_users :]

    @torch.no_grad()
    def towers(self) -> Towers:
        """What the final vectors are made of."""
        more, ego = self._text_in_graph(), self.graph.ego
        return Towers(
            self._all_rows(ego if more is None else ego + more).cpu().numpy().copy(),
            tuple(weight.cpu().numpy().copy() for weight in self.text.weights),
            self.graph.n_layers,
            self.graph.include_ego,
            self.text_weight,
            self.propagated_weight,
            self.unit,
            self.neighbourhood.weights[0].cpu().numpy().copy() if self.neighbourhood else None,
            self.neighbourhood_weight if self.neighbourhood else 0.0,
        )

    @torch.no_grad()
    def known_mass(self, user: Int[Tensor, " batch"], item: Int[Tensor, " batch"], known: Known) -> float:
        """Share of softmax mass that the mask removes from the graph-graph term of a batch."""
        g = self._graph()
        return known_mass(g[user], g[item + self.n_users], known, self.softmax_temperature, unit=self.unit)
