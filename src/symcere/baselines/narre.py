"""NARRE with a ranking head: id vectors beside reviews that are pooled by attention."""

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy import ndarray
from pydantic import Field
from torch import Tensor, nn

from symcere.data.dataset import Dataset, HeldOut
from symcere.losses import Known, bpr, l2
from symcere.models.tables import Table
from symcere.recommender import Recommender
from symcere.text.features import TextFeatures
from symcere.training.config import Schedule, Weight
from symcere.training.loop import optimise, torch_generator
from symcere.training.progress import OnEpoch
from symcere.training.space import GRAPH, Choice, Real, Space
from symcere.training.text import ReviewOfPair, review_of_pair, review_vectors


class NARRESettings(Schedule):
    """NARRE."""

    dim: Annotated[int, Field(ge=1, le=4_096)] = 64
    """Length of an id vector, of a projected review and of the attention."""
    max_reviews: Annotated[int, Field(ge=1)] = 32
    """Reviews that are read of a user or an item: its most recent ones."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of the components of pooled reviews that are set to zero while training."""
    w_l2: Weight = 0.1
    """Weight of L2 on the id vectors of a batch."""
    leave_one_out: bool = False
    """Whether training takes the review of a pair out of the pools of its user and item; as published, it stays."""


SPACE: Space = {
    **{name: GRAPH[name] for name in ("learning_rate", "batch_size", "w_l2")},
    "dropout": Real(0.0, 0.8),
    "leave_one_out": Choice((False, True)),
}
"""What a search may move."""

PUBLISHED = (NARRESettings(learning_rate=2e-3, batch_size=512, dropout=0.5, w_l2=1e-3, leave_one_out=False),)
"""The authors' code: Adam at 0.002, half dropped, L2 of 0.001 (theirs on the weights of the attention). Theirs has
batches of 100 ratings and dim 32; ours are the nearest of the space that all systems share."""


class ReviewPool(nn.Module):
    """Attention over the reviews of the nodes of one side.

    A review is read through a projection, o = P r, and weighed by exp(h . relu(W o + c)), where c is a free vector of
    its counterpart: the item that a user wrote about, or the user who wrote about an item. A node's pool is the
    weighted mean of its reviews' o.

    Args:
        vectors: Vector of each review; never moved. A zero row has no text, and is not read.
        node: Node of each review.
        counterpart: Node on the other side of each review.
        n_nodes: Number of nodes of this side.
        n_counterparts: Number of nodes of the other side.
        recency: Larger for later reviews.
        max_reviews: How many reviews of a node are read, the latest.
        dim: Length of o and of the attention.
        generator: Source of the initial values.

    Source:
        Chen et al., NARRE, WWW 2018, equations 5 to 8. Its bias of the score cancels in the softmax; its matrix for c
        is left out, because c is free.
    """

    vectors: Tensor
    counterpart: Tensor
    review: Tensor
    n_reviews: Tensor
    begin: Tensor

    def __init__(
        self,
        vectors: Float[Tensor, "reviews text_dim"],
        node: Int[ndarray, " reviews"],
        counterpart: Int[ndarray, " reviews"],
        n_nodes: int,
        n_counterparts: int,
        recency: Float[ndarray, " reviews"],
        *,
        max_reviews: int,
        dim: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.register_buffer("vectors", vectors)
        told = np.flatnonzero(vectors.any(1).numpy())
        told = told[np.lexsort((-recency[told], node[told]))]
        first = np.searchsorted(node[told], np.arange(n_nodes))
        told = told[np.arange(len(told)) - first[node[told]] < max_reviews]
        n_reviews = np.bincount(node[told], minlength=n_nodes)
        for name, each in (
            ("counterpart", counterpart.astype(np.int64)),
            ("review", told),
            ("n_reviews", n_reviews),
            ("begin", np.cumsum(n_reviews) - n_reviews),
        ):
            self.register_buffer(name, torch.from_numpy(each), persistent=False)

        def uniform(n_out: int, n_in: int) -> nn.Parameter:
            return nn.Parameter((torch.rand(n_out, n_in, generator=generator) * 2 - 1) / math.sqrt(n_in))

        self.projection, self.attention = uniform(dim, vectors.shape[1]), uniform(dim, dim)
        self.bias, self.score = nn.Parameter(torch.zeros(dim)), nn.Parameter(uniform(1, dim)[0].detach())
        self.ids = nn.Parameter(torch.randn(n_counterparts, dim, generator=generator) * 0.1)

    def forward(
        self, node: Int[Tensor, " rows"], without: Int[Tensor, " rows"] | None = None
    ) -> Float[Tensor, "rows dim"]:
        """Pool the reviews of nodes.

        Args:
            node: The nodes; they may repeat.
            without: A review for each that is not read; -1 for none.

        Returns:
            The pools; zero for a node that has no review left.
        """
        n = self.n_reviews[node]
        row = torch.repeat_interleave(torch.arange(len(node), device=n.device), n)
        at = torch.arange(len(row), device=n.device) + torch.repeat_interleave(
            self.begin[node] - (torch.cumsum(n, 0) - n), n
        )
        review = self.review[at]
        if without is not None:
            read = review != without[row]
            row, review = row[read], review[read]
        review, which = torch.unique(review, return_inverse=True)  # a review is projected once, however often read
        o = self.vectors[review] @ self.projection.T
        ids = self.ids.index_select(0, self.counterpart[review])  # its gradient is faster than that of ids[...]
        logit = (torch.relu(o @ self.attention.T + ids + self.bias) @ self.score).index_select(0, which)
        top = logit.new_full((len(node),), -torch.inf).scatter_reduce(0, row, logit.detach(), "amax")
        weight = torch.exp(logit - top[row])
        total = weight.new_zeros(len(node)).index_add(0, row, weight)
        pool = weight.new_zeros(len(node), o.shape[1]).index_add(0, row, weight[:, None] * o.index_select(0, which))
        return pool / total.clamp(min=1e-12)[:, None]  # at least 1 where there is a review


class NARRE(nn.Module):
    """Score = sum of h (q_u + X_u) (p_i + Y_i) + b_i, for id vectors q and p and pools X and Y; trained by BPR.

    The paper predicts ratings, with biases of users and of all too: no ranking depends on these. It reads reviews by
    a convolution over word vectors; here are the frozen vectors that every system gets, projected.

    Args:
        user_pool: Pools of users.
        item_pool: Pools of items.
        review: Finds the review of a pair.
        dim: Length of a vector.
        dropout: Share of the components of a pool that are set to zero while training.
        leave_one_out: Whether the review of a pair is left out of its pools while training.
        init: Source of the initial values.
        noise: Source of the dropout.
    """

    temperature: float | None = None  # the unit of an inner product is its spread

    def __init__(
        self,
        user_pool: ReviewPool,
        item_pool: ReviewPool,
        review: ReviewOfPair,
        *,
        dim: int,
        dropout: float,
        leave_one_out: bool,
        init: torch.Generator,
        noise: torch.Generator,
    ) -> None:
        super().__init__()
        self.user_pool, self.item_pool, self.review = user_pool, item_pool, review
        self.dropout, self.leave_one_out, self.noise = dropout, leave_one_out, noise
        n_users, n_items = len(user_pool.n_reviews), len(item_pool.n_reviews)
        self.user = nn.Parameter(torch.randn(n_users, dim, generator=init) * 0.1)
        self.item = nn.Parameter(torch.randn(n_items, dim, generator=init) * 0.1)
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(n_items))

    def tables(self) -> tuple[()]:
        """There are none: what a pair is told depends on the pair."""
        return ()

    def terms(
        self,
        user: Int[Tensor, " batch"],
        item: Int[Tensor, " batch"],
        negative: Int[Tensor, " batch"],
        known: Known,  # noqa: ARG002  BPR has no denominator to leave pairs out of
        tables: Sequence[Table],  # noqa: ARG002
    ) -> dict[str, Float[Tensor, ""]]:
        """Unweighted loss terms of a batch: "bpr" and "l2"."""
        nothing = torch.full_like(user, -1)
        own = self.review(user, item) if self.leave_one_out else nothing
        x_user = self.weight * (self.user[user] + self._drop(self.user_pool(user, own)))
        both = self._drop(self.item_pool(torch.cat([item, negative]), torch.cat([own, nothing])))
        x_item, x_negative = self.item[item] + both[: len(item)], self.item[negative] + both[len(item) :]
        positive = (x_user * x_item).sum(1) + self.bias[item]
        return {
            "bpr": bpr(positive, (x_user * x_negative).sum(1) + self.bias[negative]),
            "l2": l2(self.user[user], self.item[item], self.item[negative]),
        }

    def _drop(self, x: Tensor) -> Tensor:
        if not self.dropout:
            return x
        kept = (torch.rand(x.shape, generator=self.noise) >= self.dropout).to(x.device)
        return x * kept / (1 - self.dropout)

    @torch.no_grad()
    def embeddings(self) -> tuple[Float[Tensor, "n_users more"], Float[Tensor, "n_items more"]]:
        """Final vectors, one longer than dim, with h and the bias of the item in them; the score is their product."""
        users, items = (torch.arange(len(side), device=side.device) for side in (self.user, self.item))
        x_user = self.weight * (self.user + self.user_pool(users))
        x_item = self.item + self.item_pool(items)
        one = x_user.new_ones(len(users), 1)
        return torch.cat([x_user, one], dim=1), torch.cat([x_item, self.bias[:, None]], dim=1)


def fit_narre(
    train: Dataset,
    text: TextFeatures,
    *,
    valid: HeldOut,
    settings: NARRESettings | None = None,
    seed: int = 0,
    on_epoch: OnEpoch | None = None,
) -> Recommender:
    """Fit NARRE; epoch and dial are chosen on valid.

    Args:
        train: The train part.
        text: Features of the same train part that know their reviews: `encode_reviews(..., leave_one_out=True)`.
        valid: What decides.
        settings: NARRESettings() if left out.
        seed: Of initial values, order of batches, negatives and dropout.
        on_epoch: Called after each epoch.

    Returns:
        The recommender of the best epoch.

    Raises:
        ConfigError: If the loss diverges, or the features do not fit train or do not know its reviews.

    Source:
        Chen et al., Neural Attentional Rating Regression with Review-level Explanations (NARRE), WWW 2018; BPR in
        place of rating regression is ours.
    """
    settings = settings or NARRESettings()
    vectors, init = torch.from_numpy(review_vectors(train, text)), torch_generator(seed)
    recency = train.review["timestamp"].fill_null(0).to_numpy().astype(np.float64)
    sides = (train.user, len(train.users)), (train.item, len(train.items))
    user_pool, item_pool = (
        ReviewPool(
            vectors,
            node,
            other,
            n_nodes,
            n_others,
            recency,
            max_reviews=settings.max_reviews,
            dim=settings.dim,
            generator=init,
        )
        for (node, n_nodes), (other, n_others) in (sides, sides[::-1])
    )
    model = NARRE(
        user_pool,
        item_pool,
        review_of_pair(train),
        dim=settings.dim,
        dropout=settings.dropout,
        leave_one_out=settings.leave_one_out,
        init=init,
        noise=torch_generator(seed, "dropout"),
    )
    weights = {"bpr": 1.0, "l2": settings.w_l2}
    return optimise(model, train, valid, settings, weights=weights, seed=seed, on_epoch=on_epoch)
