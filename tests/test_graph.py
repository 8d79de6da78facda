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


def test_backward_is_the_derivative():
    x = torch.randn(10, 3, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(1))
    adj = norm_adj(USER, ITEM, 5, 5)
    assert torch.autograd.gradcheck(lambda z: propagate(adj, z, 3, include_ego=True), (x,), atol=1e-6)


def test_no_layers_with_ego_is_the_identity():
    x = torch.randn(10, 3)
    assert torch.equal(propagate(norm_adj(USER, ITEM, 5, 5), x, 0, include_ego=True), x)
