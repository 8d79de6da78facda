"""SymCERE: graph and text tower on one unit sphere, joined by symmetric NCE with the history mask."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from symcere.losses import Known, bpr, known_mass, l2, symmetric_nce
from symcere.models.lightgcn import GraphTower
from symcere.models.projection import TextTower


class SymcereModel(nn.Module):
    """Two towers g (graph) and t (text); the final vector is normalise(g + text_weight * t).

    Args:
        graph: The graph tower.
        text: The text tower over the same nodes.
        n_users: How many of the nodes are users.
        temperature: Of every softmax, of BPR, and of the score.
        text_weight: Weight of the unit text vector beside the unit graph vector in the final vector.

    Source:
        Suzumura et al., SymCERE, arXiv 2504.02195: cross-modal, intra-modal and ranking terms on unit vectors with
        known pairs masked. Towers, pairing and score are ours (docs/method.md).
    """

    def __init__(
        self, graph: GraphTower, text: TextTower, n_users: int, *, temperature: float, text_weight: float
    ) -> None:
        super().__init__()
        self.graph, self.text, self.n_users = graph, text, n_users
        self.temperature, self.text_weight = temperature, text_weight

    def terms(
        self,
        user: Int[Tensor, " batch"],
        item: Int[Tensor, " batch"],
        negative: Int[Tensor, " batch"],
        known: Known,
    ) -> dict[str, Float[Tensor, ""]]:
        """Unweighted loss terms of a batch: "cross", "intra_graph", "intra_text", "bpr", "l2"."""
        item, negative = item + self.n_users, negative + self.n_users
        g = functional.normalize(self.graph(), dim=1)
        x_user, x_item = self.text.of_pairs(user, item)
        t_user, t_item = (functional.normalize(self.text.project(x), dim=1) for x in (x_user, x_item))
        t_negative = functional.normalize(self.text(negative), dim=1)
        g_user, g_item, ego = g[user], g[item], self.graph.ego
        user_text, item_text = x_user.any(1), x_item.any(1)
        final = [self._fuse(g[n], t) for n, t in ((user, t_user), (item, t_item), (negative, t_negative))]
        return {
            "cross": (self._nce(g_user, t_item, known, item_text) + self._nce(t_user, g_item, known, user_text)) / 2,
            "intra_graph": symmetric_nce(g_user, g_item, known, self.temperature),
            "intra_text": self._nce(t_user, t_item, known, user_text & item_text),
            "bpr": bpr((final[0] * final[1]).sum(1), (final[0] * final[2]).sum(1), self.temperature),
            "l2": l2(ego[user], ego[item]),
        }

    def _nce(self, a: Tensor, c: Tensor, known: Known, has_text: Bool[Tensor, " batch"]) -> Tensor:
        """symmetric_nce over the pairs of the batch that have the text they need."""
        if has_text.all():
            return symmetric_nce(a, c, known, self.temperature)
        position = torch.cumsum(has_text, 0) - 1
        both = has_text[known.row] & has_text[known.column]
        left = Known(position[known.row[both]], position[known.column[both]])
        # no pair has text: the mean over nothing is 0
        return symmetric_nce(a[has_text], c[has_text], left, self.temperature) if has_text.any() else a.sum() * 0

    def _fuse(self, g: Tensor, t: Tensor) -> Tensor:
        return functional.normalize(g + self.text_weight * t, dim=1)

    @torch.no_grad()
    def embeddings(self) -> tuple[Float[Tensor, "n_users dim"], Float[Tensor, "n_items dim"]]:
        """Final vectors of users and items: unit rows, zero for a node with neither neighbours nor text."""
        final = self._fuse(functional.normalize(self.graph(), dim=1), functional.normalize(self.text(), dim=1))
        return final[: self.n_users], final[self.n_users :]

    @torch.no_grad()
    def known_mass(self, user: Int[Tensor, " batch"], item: Int[Tensor, " batch"], known: Known) -> float:
        """Share of softmax mass that the mask removes from the graph-graph term of a batch."""
        g = self.graph()
        return known_mass(g[user], g[item + self.n_users], known, self.temperature)
