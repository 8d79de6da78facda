"""Propagation against dense matrix powers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from symcere.graph import norm_adj, propagate

USER = np.array([0, 0, 1, 2, 2, 3, 4, 4, 1])
ITEM = np.array([0, 1, 1, 2, 3, 3, 4, 0, 2])  # 5 x 5


def dense(user, item, n_users, n_items):
    """A from its definition, entry by entry."""
    n = n_users + n_items
    a = np.zeros((n, n))
    for u, i in zip(user, item, strict=True):
        a[u, n_users + i] = a[n_users + i, u] = 1
    degree = a.sum(1)
    for row in range(n):
        for column in range(n):
            if a[row, column]:
                a[row, column] /= np.sqrt(degree[row] * degree[column])
    return a


def dense_light_gcn(a, x, n_layers, include_ego):
    layers = [np.linalg.matrix_power(a, layer) @ x for layer in range(n_layers + 1)]
    return np.mean(layers if include_ego else layers[1:], axis=0)


@pytest.mark.parametrize("include_ego", [True, False])
@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_propagation_equals_dense_matrix_powers_on_a_five_by_five_graph(n_layers, include_ego):
    x = torch.randn(10, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = propagate(norm_adj(USER, ITEM, 5, 5), x, n_layers, include_ego=include_ego)
    expected = dense_light_gcn(dense(USER, ITEM, 5, 5), x.numpy(), n_layers, include_ego)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-7)


@given(st.sets(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1))
def test_propagation_equals_dense_on_any_graph_also_with_isolated_nodes(pairs):
    user, item = (np.array(side) for side in zip(*sorted(pairs), strict=True))
    x = torch.linspace(-1, 1, 20).reshape(10, 2)
    found = propagate(norm_adj(user, item, 6, 4), x, 2, include_ego=False)
    expected = dense_light_gcn(dense(user, item, 6, 4), x.numpy(), 2, False)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(("block", "per_row"), [(2, 0), (3, 1), (4, 2), (4, 100)])
def test_a_graph_that_outgrows_the_cache_is_cut_into_blocks_and_propagates_the_same(block, per_row, monkeypatch):
    """13 users x 9 items; users without items among them, items of one user and of many."""
    pairs = np.random.default_rng(0).integers(0, [11, 9], (60, 2))
    user, item = np.unique(pairs, axis=0).T
    x = torch.randn(22, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr("symcere.graph._BLOCK", block)
    monkeypatch.setattr("symcere.graph._PER_ROW", per_row)
    adj = norm_adj(user, item, 13, 9)
    found = propagate(adj, x, 3, include_ego=True)
    np.testing.assert_allclose(
        found.numpy(), dense_light_gcn(dense(user, item, 13, 9), x.numpy(), 3, True), atol=1e-7
    )
    assert sum(len(part.indices) for part in adj._blocks) == len(adj.indices)
    rows = [part.rows.start for part in adj._blocks]
    assert rows == sorted(rows)
    assert [part.first for part in adj._blocks] == [row not in rows[:at] for at, row in enumerate(rows)]
    sparse = [part for part in adj._blocks if len(part.indices) < per_row * (part.rows.stop - part.rows.start)]
    assert all(rows.count(part.rows.start) == 1 for part in sparse)  # cut no further than pays
    if per_row < 100:
        assert len(rows) > len(set(rows))


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_what_one_propagation_returned_the_next_does_not_write_over(n_layers, monkeypatch):
    monkeypatch.setattr("symcere.graph._BLOCK", 3)
    adj = norm_adj(USER, ITEM, 5, 5)
    x, other = torch.randn(2, 10, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    first = propagate(adj, x, n_layers, include_ego=False)
    kept = adj.spare
    second = propagate(adj, other.clone(), n_layers, include_ego=False)
    assert adj.spare is kept  # the hops between are put where they were
    narrow = propagate(adj, other[:, :2].clone(), n_layers, include_ego=False)
    rounded = propagate(adj, other[:, 2:].float(), n_layers, include_ego=False)
    a = dense(USER, ITEM, 5, 5)
    for found, of in ((first, x), (second, other), (narrow, other[:, :2]), (rounded, other[:, 2:])):
        np.testing.assert_allclose(found, dense_light_gcn(a, of.numpy(), n_layers, False), atol=1e-6)


def test_a_block_of_users_gathers_no_more_than_the_cache_holds(monkeypatch):
    monkeypatch.setattr("symcere.graph._BLOCK", 50)
    monkeypatch.setattr("symcere.graph._PER_ROW", 4)
    user, item = (side.ravel() for side in np.indices((200, 30)))
    blocks = norm_adj(user, item, 200, 30)._blocks
    assert {part.columns.stop - part.columns.start for part in blocks if part.rows.start >= 200} == {50}


def test_backward_is_the_derivative():
    x = torch.randn(10, 3, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(1))
    adj = norm_adj(USER, ITEM, 5, 5)
    assert torch.autograd.gradcheck(lambda z: propagate(adj, z, 3, include_ego=True), (x,), atol=1e-6)


def test_no_layers_with_ego_is_the_identity():
    x = torch.randn(10, 3)
    assert torch.equal(propagate(norm_adj(USER, ITEM, 5, 5), x, 0, include_ego=True), x)
