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


def some_pairs():
    """Of 13 users x 9 items; users without items among them, items of one user and of many."""
    return np.unique(np.random.default_rng(0).integers(0, [11, 9], (60, 2)), axis=0).T


def shrink(monkeypatch, **values):
    """Make caches small: what is large begins at one node."""
    for name, value in {"LARGE": 1, **values}.items():
        monkeypatch.setattr(f"symcere.graph._{name}", value)


@pytest.mark.parametrize("include_ego", [True, False])
@pytest.mark.parametrize(("block", "per_row"), [(2, 0.1), (3, 1), (4, 2), (4, 100)])
def test_a_graph_that_outgrows_the_cache_is_cut_into_blocks_and_strips_and_propagates_the_same(
    block, per_row, include_ego, monkeypatch
):
    user, item = some_pairs()
    x = torch.randn(22, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shrink(monkeypatch, BLOCK=block, BAND=block + 1, BANDS=2, PER_ROW=per_row, STRIP=16)
    adj = norm_adj(user, item, 13, 9)
    found = propagate(adj, x, 3, include_ego=include_ego)
    np.testing.assert_allclose(
        found.numpy(), dense_light_gcn(dense(user, item, 13, 9), x.numpy(), 3, include_ego), atol=1e-7
    )
    pieces = [[piece for part in band.blocks for piece in part.pieces] for band in adj._bands]
    assert sum(len(piece.indices) for band in pieces for piece in band) == len(adj.indices)
    assert all(piece.rows.stop - piece.rows.start <= block + 1 for band in pieces for piece in band)
    n_rows = np.diff([*(band.start for band in adj._bands), 22])
    assert [band.n_rows for band in adj._bands] == n_rows.tolist()
    cut = [len(band.blocks) > 1 for band in adj._bands]
    for band, own, rows in zip(adj._bands, pieces, n_rows, strict=True):  # no further than pays
        edges = sum(len(piece.indices) for piece in own)
        assert len(band.blocks) == 1 or edges >= per_row * rows * len(band.blocks)
    assert any(cut) == (per_row < 100)
    assert all(n <= (block + 1) * (2 if several else 1) for n, several in zip(n_rows, cut, strict=True))
    assert any(n > block + 1 for n in n_rows) == (per_row < 100)


@pytest.mark.parametrize("include_ego", [True, False])
@pytest.mark.parametrize("n_layers", [0, 1, 2, 3, 4])
def test_a_coarse_graph_learns_in_bfloat16_and_serves_in_float32(n_layers, include_ego, monkeypatch):
    if not (n_layers or include_ego):
        return
    user, item = some_pairs()
    shrink(monkeypatch, BAND=5, BLOCK=4, PER_ROW=1, STRIP=8, LARGE=1_000)
    adj = norm_adj(user, item, 13, 9, coarse=True)
    x, slope = torch.randn(2, 22, 6, generator=torch.Generator().manual_seed(0))
    a = dense(user, item, 13, 9)
    expected = dense_light_gcn(a, x.numpy(), n_layers, include_ego)
    x.requires_grad_(True)
    kept = []
    for _ in range(2):  # the second finds the memory of the first
        found = propagate(adj, x, n_layers, include_ego=include_ego)
        x.grad = None
        found.backward(slope)
        kept.append((found.detach().clone(), x.grad))
        back = dense_light_gcn(a, slope.numpy(), n_layers, include_ego)
        for got, exact in ((found.detach().numpy(), expected), (x.grad.numpy(), back)):
            assert got.dtype == np.float32
            error = np.linalg.norm(got - exact) / np.linalg.norm(exact)
            assert (1e-4 if n_layers else 0) <= error < 5e-3
    assert all(torch.equal(one, other) for one, other in zip(*kept, strict=True))
    with torch.no_grad():
        served = propagate(adj, x, n_layers, include_ego=include_ego)
    fixed = propagate(adj, x.detach(), n_layers, include_ego=include_ego)
    precise = propagate(adj, x.detach().double().requires_grad_(), n_layers, include_ego=include_ego)
    for exact in (served, fixed, precise.detach()):
        np.testing.assert_allclose(exact, expected, atol=1e-6)
    unknown = np.setdiff1d(np.arange(13), user)
    assert len(unknown)
    assert torch.isfinite(found).all()
    if not include_ego:
        assert not found[unknown].any()


def test_blocks_of_a_coarse_graph_are_summed_in_float32(monkeypatch):
    """In bfloat16, 256 and 1 is 256."""
    shrink(monkeypatch, BAND=700, BLOCK=1, PER_ROW=0.001)
    adj = norm_adj(np.arange(600), np.zeros(600, dtype=np.int64), 600, 1, coarse=True)
    assert len(adj._bands[0].blocks) == 601
    of_item = propagate(adj, torch.ones(601, 1, requires_grad=True), 1, include_ego=False)[600].item()
    assert of_item == pytest.approx(np.sqrt(600), rel=1e-3)


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_what_one_propagation_returned_the_next_does_not_write_over(n_layers, monkeypatch):
    shrink(monkeypatch, BLOCK=3)
    adj = norm_adj(USER, ITEM, 5, 5)
    x, other = torch.randn(2, 10, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kinds = (x, other, other[:, :2].clone(), other[:, 2:].float())
    found = [propagate(adj, kind.requires_grad_(), n_layers, include_ego=False) for kind in kinds]
    grads = [torch.autograd.grad(one.sum(), kind)[0] for one, kind in zip(found, kinds, strict=True)]
    a = dense(USER, ITEM, 5, 5)
    for one, grad, kind in zip(found, grads, kinds, strict=True):
        np.testing.assert_allclose(
            one.detach(), dense_light_gcn(a, kind.detach().numpy(), n_layers, False), atol=1e-6
        )
        back = dense_light_gcn(a, np.ones(kind.shape), n_layers, False)
        np.testing.assert_allclose(grad, back, atol=1e-6)


def test_steps_propagate_where_the_step_before_did_and_what_is_served_elsewhere(monkeypatch):
    shrink(monkeypatch, BLOCK=3)
    adj = norm_adj(USER, ITEM, 5, 5)
    x = torch.randn(10, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def step():
        x.grad = None
        found = propagate(adj, x, 3, include_ego=True)
        found.sum().backward()
        return {found.data_ptr(), x.grad.data_ptr()}

    step()
    places = {room.data_ptr() for room, _ in adj.spare._rooms}
    assert len(places) == 5  # what is propagated, its gradient, and three between hops
    assert all(step() < places for _ in range(3))
    with torch.no_grad():
        served = propagate(adj, x, 3, include_ego=True)
    assert served.data_ptr() not in places
    assert {room.data_ptr() for room, _ in adj.spare._rooms} == places


@pytest.mark.parametrize("coarse", [False, True])
def test_bands_of_rows_without_neighbours_are_zero(coarse, monkeypatch):
    shrink(monkeypatch, BAND=2, BLOCK=2, PER_ROW=1)
    user, item = np.array([0, 1, 6]), np.array([0, 1, 1])
    adj = norm_adj(user, item, 7, 5, coarse=coarse)
    x = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = propagate(adj, x, 2, include_ego=False).detach().numpy()
    expected = dense_light_gcn(dense(user, item, 7, 5), x.detach().numpy(), 2, False)
    np.testing.assert_allclose(found, expected, atol=0.02 if coarse else 1e-6)
    assert not found[2:6].any()


def test_a_small_graph_is_propagated_whole():
    adj = norm_adj(USER, ITEM, 5, 5)
    propagate(adj, torch.ones(10, 3), 2, include_ego=True)
    assert not adj.spare._rooms
    assert "_bands" not in vars(adj)


def test_a_block_of_users_gathers_no_more_than_the_cache_holds(monkeypatch):
    shrink(monkeypatch, BLOCK=50, BAND=50, PER_ROW=4)
    user, item = (side.ravel() for side in np.indices((200, 30)))
    bands = norm_adj(user, item, 200, 30)._bands
    of_items = [part for band in bands if band.start >= 200 for part in band.blocks]
    assert {part.columns.stop - part.columns.start for part in of_items} == {50}


def test_backward_is_the_derivative():
    x = torch.randn(10, 3, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(1))
    adj = norm_adj(USER, ITEM, 5, 5)
    assert torch.autograd.gradcheck(lambda z: propagate(adj, z, 3, include_ego=True), (x,), atol=1e-6)


def test_no_layers_with_ego_is_the_identity():
    x = torch.randn(10, 3)
    assert torch.equal(propagate(norm_adj(USER, ITEM, 5, 5), x, 0, include_ego=True), x)
