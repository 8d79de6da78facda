"""The mask as coordinates against the look-up of every pair."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from symcere.data.dataset import interaction_matrix
from symcere.training.batches import SeenPairs, batches, sample_unseen
from symcere.training.known import known_pairs, masked_pairs

pair = st.tuples(st.integers(0, 5), st.integers(0, 4))


def as_set(known):
    return set(zip(known.row.tolist(), known.column.tolist(), strict=True))


@given(st.sets(pair, min_size=1), st.lists(pair, min_size=1, max_size=12))
def test_known_pairs_equal_the_look_up_of_every_pair(seen, batch):
    user, item = (np.array(side) for side in zip(*batch, strict=True))
    train = interaction_matrix(*(np.array(side) for side in zip(*sorted(seen), strict=True)), 6, 5)
    expected = {(k, j) for k in range(len(batch)) for j in range(len(batch)) if k != j and (user[k], item[j]) in seen}
    known = known_pairs(user, item, train)
    assert as_set(known) == expected
    assert len(known.row) == len(expected)


def test_items_that_share_a_slot_are_told_apart(monkeypatch):
    monkeypatch.setattr("symcere.training.known._LOW", 1)
    user, item = np.array([0, 0, 1, 2]), np.array([0, 2, 4, 6])
    train = interaction_matrix(np.array([0, 0, 0, 1, 2]), np.array([0, 4, 3, 8, 2]), 3, 9)
    assert as_set(known_pairs(user, item, train)) == {(0, 2), (1, 0), (1, 2), (3, 1)}


@given(st.lists(pair, min_size=1, max_size=12))
def test_same_item_masks_repeated_items_only_and_none_masks_nothing(batch):
    user, item = (np.array(side) for side in zip(*batch, strict=True))
    train = interaction_matrix(np.arange(5), np.arange(5), 6, 5)
    expected = {(k, j) for k in range(len(batch)) for j in range(len(batch)) if k != j and item[k] == item[j]}
    assert as_set(masked_pairs("same_item", user, item, train)) == expected
    assert as_set(masked_pairs("none", user, item, train)) == set()


def test_every_pair_of_train_is_seen_and_no_other(split):
    user, item = (grid.ravel() for grid in np.indices(split.train.matrix.shape))
    assert (SeenPairs(split.train)(user, item) == split.train.matrix.toarray().ravel().astype(bool)).all()


def test_negatives_are_never_seen_items(split):
    draws = np.random.default_rng(0)
    negative = sample_unseen(split.train.user, SeenPairs(split.train), draws)
    seen = set(zip(split.train.user.tolist(), split.train.item.tolist(), strict=True))
    assert not seen & set(zip(split.train.user.tolist(), negative.tolist(), strict=True))


def test_an_epoch_holds_every_interaction_once_in_batches_of_nearly_equal_size(split):
    epoch = list(batches(split.train, 100, "history", np.random.default_rng(0)))
    sizes = [len(batch.user) for batch in epoch]
    assert max(sizes) <= 100
    assert max(sizes) - min(sizes) <= 1
    pairs = [pair for b in epoch for pair in zip(b.user.tolist(), b.item.tolist(), strict=True)]
    assert sorted(pairs) == sorted(zip(split.train.user.tolist(), split.train.item.tolist(), strict=True))


def test_known_pairs_never_hold_a_held_out_interaction(split):
    """A test pair in the mask would be spared repulsion: leakage."""
    held_out = split.valid.matrix + split.test.matrix
    for batch in batches(split.train, 512, "history", np.random.default_rng(0)):
        user = batch.user[batch.known.row].numpy().copy()
        item = batch.item[batch.known.column].numpy().copy()
        assert not held_out[user, item].any()
        assert split.train.matrix[user, item].all()
