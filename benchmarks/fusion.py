"""What does text cost where it says little?

    python benchmarks/fusion.py [--size 1e5] [--epochs 8]

A made world of size / 20 users and size / 200 items: some 22 interactions a user, drawn by tastes in 24 directions
and by popularity. Profiles are the tastes of their users and items, turned into 64 numbers, and noise: little of it,
or more than taste. SymCERE by defaults, with its text as the weights say and asked of valid; NDCG@10 on valid and
test.
"""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from train import no_reviews

import symcere as sc
from symcere.data.dataset import Dataset, HeldOut, Split
from symcere.ids import IdMap
from symcere.text.features import TextFeatures
from symcere.training.tuning import valid_ndcg

DIRECTIONS, DIM = 24, 64
NOISE = (0.1, 0.4)
"""Spread of the noise in each of 64 numbers; the tastes have length 1."""


def world(size: int, seed: int = 0) -> tuple[Split, tuple[np.ndarray, np.ndarray]]:
    """Interactions and the tastes behind them, of users and of items."""
    rng = np.random.default_rng(seed)
    n_users, n_items = size // 20, size // 200
    user_taste = rng.standard_normal((n_users, DIRECTIONS)).astype(np.float32) / DIRECTIONS**0.5
    item_taste = rng.standard_normal((n_items, DIRECTIONS)).astype(np.float32)
    popularity = (-np.log(np.arange(n_items) + 20.0) * 0.7).astype(np.float32)
    count = np.clip(rng.geometric(1 / 22, n_users) + 2, 3, 200)
    users, items = [], []
    for start in range(0, n_users, 500):
        score = 1.6 * (user_taste[start : start + 500] @ item_taste.T) * 1.5 + popularity
        score -= np.log(rng.exponential(size=score.shape).astype(np.float32))  # the largest are a draw by softmax
        own = count[start : start + 500]
        top = np.argpartition(-score, own.max(), axis=1)[:, : own.max()]
        order = np.take_along_axis(top, np.argsort(-np.take_along_axis(score, top, 1), axis=1), 1)
        for row, n in enumerate(own):
            users.append(np.full(n, start + row))
            items.append(order[row, :n])
    pairs = np.unique(np.concatenate(users).astype(np.int64) * n_items + np.concatenate(items))
    held = rng.random(len(pairs)) < 0.1
    ids = [
        IdMap(tuple(f"{kind[0]}{row}" for row in range(n)), kind)
        for kind, n in (("user", n_users), ("item", n_items))
    ]
    train = Dataset(*ids, *np.divmod(pairs[~held], n_items), no_reviews(int((~held).sum())))
    user, item = np.divmod(pairs[held], n_items)
    half = len(user) // 2
    valid, test = (HeldOut(*ids, user[part], item[part]) for part in (slice(half), slice(half, None)))
    return Split(train, valid, test, "random"), (user_taste, item_taste)


def profiles(tastes: tuple[np.ndarray, np.ndarray], noise: float, seed: int = 0) -> TextFeatures:
    """What reviews would say: the tastes in other numbers, and noise."""
    rng = np.random.default_rng(seed)
    turn = rng.standard_normal((DIRECTIONS, DIM)).astype(np.float32) / 5
    sides = [
        (taste / np.linalg.norm(taste, axis=1, keepdims=True) @ turn + rng.standard_normal((len(taste), DIM)) * noise)
        for taste in tastes
    ]
    return TextFeatures(*(side.astype(np.float32) for side in sides), "made", "made")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="1e5")
    parser.add_argument("--epochs", type=int, default=8)
    words = parser.parse_args()
    split, tastes = world(int(float(words.size)))
    print(f"{len(split.train):,} train interactions")
    for noise in NOISE:
        text = profiles(tastes, noise)
        for check in (False, True):
            settings = sc.SymcereSettings(max_epochs=words.epochs, valid_every=4, valid_users=5_000, check_text=check)
            system = sc.fit(split.train, text, valid=split.valid, settings=settings)
            assert system.towers  # SymCERE knows them
            found = " / ".join(f"{valid_ndcg(system, split.train, part):.4f}" for part in (split.valid, split.test))
            print(f"noise {noise}, asked {check}: {found}, text {system.towers.text_times:g} times", flush=True)


if __name__ == "__main__":
    main()
