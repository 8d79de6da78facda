"""The losses against slow loops written from the formula, closed forms, and properties."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from symcere import losses
from symcere.losses import (
    Known,
    PairRows,
    bpr,
    bpr_of_rows,
    inner_product_nce,
    known_mass,
    l2,
    sampled_softmax,
    sincere_nce,
    symmetric_nce,
)

NONE = Known(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))


def known_of(matrix) -> Known:
    off = torch.as_tensor(matrix).bool() & ~torch.eye(len(matrix), dtype=torch.bool)
    return Known(*off.nonzero(as_tuple=True))


def unit_rows(x):
    return x.double() / x.double().norm(dim=1, keepdim=True)


def loop_nce(a, c, matrix, temperature):
    """The formula, word by word, in float64."""
    return loop_inner_product_nce(unit_rows(a), unit_rows(c), matrix, temperature)


def loop_inner_product_nce(a, c, matrix, temperature):
    """The same formula on rows as they are."""
    n = len(a)
    s = [[float(a[k] @ c[j]) / temperature for j in range(n)] for k in range(n)]
    total = 0.0
    for k in range(n):
        row = [s[k][j] for j in range(n) if j == k or not matrix[k][j]]
        column = [s[j][k] for j in range(n) if j == k or not matrix[j][k]]
        for values in (row, column):
            top = max(values)
            total += (top + math.log(sum(math.exp(v - top) for v in values)) - s[k][k]) / 2
    return total / n


def random_batch(seed, n=7, dim=5):
    generator = torch.Generator().manual_seed(seed)
    a, c = torch.randn(2, n, dim, generator=generator, dtype=torch.float64)
    return a, c, torch.rand(n, n, generator=generator) < 0.3


batches = st.integers(0, 10_000).map(random_batch)


@given(batches, st.sampled_from([0.01, 0.05, 0.3, 1.0]))
def test_symmetric_nce_equals_the_loop(batch, temperature):
    a, c, matrix = batch
    expected = loop_nce(a, c, matrix, temperature)
    assert float(symmetric_nce(a, c, known_of(matrix), temperature)) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    in_float32 = float(symmetric_nce(a.float(), c.float(), known_of(matrix), temperature))
    assert in_float32 == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_equal_rows_give_log_batch():
    a = torch.ones(8, 3)
    assert float(symmetric_nce(a, a, NONE, 0.2)) == pytest.approx(math.log(8), rel=1e-6)


def test_all_other_pairs_known_give_exactly_zero_and_no_gradient():
    a = torch.randn(6, 4, requires_grad=True)
    c = torch.randn(6, 4, requires_grad=True)
    loss = symmetric_nce(a, c, known_of(torch.ones(6, 6)), 0.1)
    loss.backward()
    assert loss.item() == 0
    assert not a.grad.any()
    assert not c.grad.any()


def test_orthonormal_pairs_give_the_closed_form():
    eye = torch.eye(5)
    assert float(symmetric_nce(eye, eye, NONE, 0.5)) == pytest.approx(math.log(1 + 4 * math.exp(-2)), rel=1e-6)


@pytest.mark.parametrize("temperature", [0.01, 0.3])
def test_gradient_is_the_derivative(temperature):
    a, c, matrix = random_batch(3)
    a.requires_grad_()
    c.requires_grad_()
    known = known_of(matrix)
    assert torch.autograd.gradcheck(lambda x, y: symmetric_nce(x, y, known, temperature), (a, c))


@given(batches)
def test_leaving_out_a_pair_never_raises_the_loss(batch):
    a, c, matrix = batch
    fewer = matrix & (torch.arange(matrix.numel()).reshape(matrix.shape) % 2 == 0)
    assert symmetric_nce(a, c, known_of(matrix), 0.3) <= symmetric_nce(a, c, known_of(fewer), 0.3) + 1e-12


@given(batches)
def test_leaving_out_all_pairs_of_a_key_is_deleting_it_from_the_others_rows(batch):
    a, c, _ = batch
    alone = torch.zeros(len(a), len(a), dtype=torch.bool)
    alone[-1, :] = alone[:, -1] = True
    n = len(a)
    rest = symmetric_nce(a[:-1], c[:-1], NONE, 0.3) * (n - 1) / n  # the last pair itself adds 0
    assert float(symmetric_nce(a, c, known_of(alone), 0.3)) == pytest.approx(float(rest), rel=1e-9)


@given(batches, st.floats(0.01, 100))
def test_scale_of_rows_does_not_matter(batch, scale):
    a, c, matrix = batch
    known = known_of(matrix)
    assert float(symmetric_nce(a * scale, c, known, 0.3)) == pytest.approx(float(symmetric_nce(a, c, known, 0.3)))


@given(batches)
def test_swapping_sides_and_transposing_known_changes_nothing(batch):
    a, c, matrix = batch
    one, other = symmetric_nce(a, c, known_of(matrix), 0.3), symmetric_nce(c, a, known_of(matrix.T), 0.3)
    assert float(one) == pytest.approx(float(other), rel=1e-12)


def test_symmetric_nce_survives_a_hopeless_pair_in_a_large_batch_at_low_temperature():
    a = torch.zeros(4_096, 2)
    a[:, 0] = 1
    c = a.clone()
    c[0, 0] = -1
    assert torch.isfinite(symmetric_nce(a, c, NONE, 0.03))


def test_known_mass_is_the_share_of_softmax_mass():
    a, c, matrix = random_batch(1)
    unit_a, unit_c = a / a.norm(dim=1, keepdim=True), c / c.norm(dim=1, keepdim=True)
    weights = {(k, j): math.exp(float(unit_a[k] @ unit_c[j]) / 0.4) for k in range(7) for j in range(7) if k != j}
    expected = sum(w for (k, j), w in weights.items() if matrix[k, j]) / sum(weights.values())
    assert known_mass(a, c, known_of(matrix), 0.4) == pytest.approx(expected)
    assert known_mass(a[:1], c[:1], NONE, 0.4) == 0


def test_known_mass_without_a_sphere_is_by_inner_products():
    a, c, matrix = random_batch(1)
    weights = {(k, j): math.exp(float(a[k] @ c[j]) / 0.4) for k in range(7) for j in range(7) if k != j}
    expected = sum(w for (k, j), w in weights.items() if matrix[k, j]) / sum(weights.values())
    assert known_mass(a, c, known_of(matrix), 0.4, unit=False) == pytest.approx(expected, rel=1e-4)
    by_count = sum(bool(matrix[pair]) for pair in weights) / len(weights)
    assert known_mass(0 * a, c, known_of(matrix), 0.4, unit=False) == pytest.approx(by_count)
    assert 0 <= known_mass(100 * a, 100 * c, known_of(matrix), 0.4, unit=False) <= 1


def test_bpr_is_log_two_at_equal_scores_and_bounded_for_cosines_at_temperature_one():
    equal = torch.zeros(3)
    assert float(bpr(equal, equal)) == pytest.approx(math.log(2))
    best = float(bpr(torch.ones(3), -torch.ones(3)))
    assert best == pytest.approx(math.log1p(math.exp(-2)))
    assert float(bpr(torch.ones(3), -torch.ones(3), 0.1)) < 1e-8


def test_sampled_softmax_equals_the_loop_and_has_its_gradient():
    generator = torch.Generator().manual_seed(0)
    user, item, negative = (torch.randn(n, 3, generator=generator).double() for n in (5, 5, 7))
    expected = 0.0
    for own, its in zip(user, item, strict=True):
        scores = [float(own @ other) / 0.4 for other in (its, *negative)]
        expected += (math.log(math.fsum(math.exp(score) for score in scores)) - scores[0]) / 5
    assert sampled_softmax(user, item, negative, 0.4).item() == pytest.approx(expected, rel=1e-12)
    same = torch.ones(4, 2)
    assert sampled_softmax(same, same, torch.ones(9, 2), 0.1).item() == pytest.approx(math.log(10))
    rows = [side.requires_grad_() for side in (user, item, negative)]
    assert torch.autograd.gradcheck(lambda *sides: sampled_softmax(*sides, 0.4), rows)


@pytest.mark.parametrize("rows_at_once", [2**22, 2])
def test_sampled_softmax_of_rows_once_each_is_that_of_the_batch(rows_at_once, monkeypatch):
    monkeypatch.setattr("symcere.losses._BLOCK", 3 * rows_at_once)
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(n, 3, generator=generator).double().requires_grad_() for n in (5, 4, 3)]
    user, item, negative = rows
    pairs, drawn = PairRows(torch.tensor([0, 4, 4, 2, 0, 1]), torch.tensor([3, 3, 0, 1, 2, 2])), [0, 2, 2, 0, 1, 2]

    def once(*sides):
        return sampled_softmax(*sides, 0.4, pairs, torch.bincount(torch.tensor(drawn)).double())

    each = sampled_softmax(user[pairs.user], item[pairs.item], negative[drawn], 0.4)
    torch.testing.assert_close(once(*rows), each)
    for one, other in zip(*(torch.autograd.grad(loss, rows) for loss in (once(*rows), each)), strict=True):
        torch.testing.assert_close(one, other)
    assert torch.autograd.gradcheck(once, rows)


def test_sampled_softmax_of_far_scores_is_finite():
    user = torch.tensor([[1.0], [1.0]], requires_grad=True)
    loss = sampled_softmax(user, torch.tensor([[-1.0], [1.0]]), torch.tensor([[1.0], [-1.0]]), 0.005)
    assert loss.item() == pytest.approx((400 + math.log(2)) / 2)
    assert torch.autograd.grad(loss, user)[0].flatten().tolist() == pytest.approx([200, 0], abs=1e-3)


def test_l2_is_half_the_squared_length_per_pair():
    x, y = torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    assert float(l2(x, y)) == pytest.approx((1 + 4 + 1 + 4) / 4)


def loop_sincere(a, c, matrix, temperature):
    """The formula of sincere_nce, word by word."""
    a, c = unit_rows(a), unit_rows(c)
    n = len(a)
    s = [[float(a[k] @ c[j]) / temperature for j in range(n)] for k in range(n)]
    total = 0.0
    for similar, is_known in ((lambda k, j: s[k][j], lambda k, j: matrix[k][j]),
                              (lambda k, j: s[j][k], lambda k, j: matrix[j][k])):  # fmt: skip
        for k in range(n):
            positives = [j for j in range(n) if j == k or is_known(k, j)]
            negatives = [j for j in range(n) if j not in positives]
            losses = [
                math.log1p(sum(math.exp(similar(k, other) - similar(k, j)) for other in negatives)) for j in positives
            ]
            total += sum(losses) / len(losses) / (2 * n)
    return total


@given(batches, st.sampled_from([0.01, 0.1, 1.0]))
def test_sincere_nce_equals_the_loop(batch, temperature):
    a, c, matrix = batch
    expected = loop_sincere(a, c, matrix, temperature)
    assert float(sincere_nce(a, c, known_of(matrix), temperature)) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    in_float32 = float(sincere_nce(a.float(), c.float(), known_of(matrix), temperature))
    assert in_float32 == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_sincere_nce_is_symmetric_nce_where_nothing_is_known_and_zero_where_everything_is():
    a, c, _ = random_batch(3)
    assert float(sincere_nce(a, c, NONE, 0.2)) == pytest.approx(float(symmetric_nce(a, c, NONE, 0.2)))
    a.requires_grad_()
    loss = sincere_nce(a, c, known_of(torch.ones(7, 7)), 0.2)
    loss.backward()
    assert float(loss.detach()) == 0
    assert not a.grad.any()


@pytest.mark.parametrize("temperature", [0.01, 0.03, 0.05, 0.06])
def test_sincere_nce_has_a_finite_gradient_for_a_hopeless_pair_in_a_large_batch(temperature):
    a = torch.zeros(4_096, 2)
    a[:, 0] = 1
    c = a.clone()
    c[0] = torch.tensor([-1.0, 0.1])  # not quite opposite, where the cosine has no slope
    a.requires_grad_()
    loss = sincere_nce(a, c, NONE, temperature)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(a.grad).all()
    assert a.grad[0].any()


@given(batches, st.sampled_from([0.05, 0.5, 2.0]))
def test_inner_product_nce_equals_the_loop(batch, temperature):
    a, c, matrix = batch
    expected = loop_inner_product_nce(a, c, matrix, temperature)
    assert float(inner_product_nce(a, c, known_of(matrix), temperature)) == pytest.approx(
        expected, rel=1e-9, abs=1e-9
    )


def test_inner_product_nce_is_symmetric_nce_on_unit_rows_and_zero_where_everything_is_known():
    a, c, matrix = random_batch(4)
    unit = unit_rows(a), unit_rows(c)
    alone = float(symmetric_nce(*unit, known_of(matrix), 0.2))
    assert float(inner_product_nce(*unit, known_of(matrix), 0.2)) == pytest.approx(alone)
    a.requires_grad_()
    loss = inner_product_nce(a, c, known_of(torch.ones(7, 7)), 0.2)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert a.grad.abs().max() < 1e-12


def test_inner_product_nce_survives_long_rows():
    a, c, matrix = random_batch(6)
    a.requires_grad_()
    loss = inner_product_nce(a, 1_000 * c, known_of(matrix), 0.05)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(a.grad).all()


@pytest.mark.parametrize("loss", [sincere_nce, inner_product_nce])
def test_the_gradients_of_the_twins_are_derivatives(loss):
    a, c, matrix = random_batch(5)
    matrix[2] = True  # a row without negatives
    sides = (a.requires_grad_(), c.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, y: loss(x, y, known_of(matrix), 0.3), sides)


@pytest.mark.parametrize("temperature", [0.35, 0.02])
def test_blocks_of_rows_change_neither_loss_nor_gradients_nor_mass(temperature, monkeypatch):
    a, c, matrix = random_batch(0, n=33)
    a, c, known = a.float().requires_grad_(), c.float().requires_grad_(), known_of(matrix)
    known = Known(known.row.flip(0), known.column.flip(0))  # in no helpful order

    def found():
        loss = symmetric_nce(a, c, known, temperature)
        return loss, *torch.autograd.grad(loss, (a, c)), torch.tensor(known_mass(a, c, known, temperature))

    whole = found()
    monkeypatch.setattr("symcere.losses._BLOCK", 33 * 7)
    for in_blocks, at_once in zip(found(), whole, strict=True):
        assert torch.allclose(in_blocks, at_once, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("own_known", [True, False])
def test_users_and_items_once_each_are_the_batch_with_all_its_own_pairs_known_or_nothing(own_known):
    """Six pairs of three users and four items, one of them twice, two of one user and three of one item."""
    user, item = torch.tensor([0, 0, 1, 2, 2, 1]), torch.tensor([1, 3, 1, 0, 2, 1])
    taken = torch.zeros(3, 4, dtype=torch.bool)
    if own_known:
        taken[user, item] = True
        taken[1, 2] = True  # known, and not in the batch
    a, c = (torch.randn(n, 6, dtype=torch.float64, requires_grad=True) for n in (3, 4))
    known = Known(*taken.nonzero(as_tuple=True))
    once = symmetric_nce(a, c, known, 0.3, PairRows(user, item), own_known=own_known)
    each = symmetric_nce(a[user], c[item], known_of(taken[user][:, item]), 0.3)
    torch.testing.assert_close(once, each)
    for one, other in zip(*(torch.autograd.grad(loss, (a, c)) for loss in (once, each)), strict=True):
        torch.testing.assert_close(one, other)


@given(st.integers(0, 1_000))
def test_unit_rows_are_torchs_normalize_and_so_is_their_gradient(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(5, 4, generator=generator, dtype=torch.float64) * torch.tensor([1e-3, 0.1, 1, 10, 1e3])[:, None]
    x[seed % 5] = 0
    x.requires_grad_()
    weights = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    weights[seed % 5] = 1e-12  # of a zero row the gradient is divided by the least length
    ours, theirs = losses.unit_rows(x), functional.normalize(x, dim=1)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(rows, x, weights)[0] for rows in (ours, theirs)))


def test_unit_rows_need_not_be_normalised_again():
    a, c, matrix = random_batch(3, n=9)
    unit_a, unit_c = unit_rows(a), unit_rows(c)
    once = symmetric_nce(unit_a, unit_c, known_of(matrix), 0.3, unit=True)
    torch.testing.assert_close(once, symmetric_nce(a, c, known_of(matrix), 0.3))
    for longer in ((unit_a * 2, unit_c), (unit_a, unit_c * 2)):  # they are taken as they come
        assert symmetric_nce(*longer, known_of(matrix), 0.3, unit=True) != once


@given(st.integers(0, 1_000), st.sampled_from([0.2, 1.0]))
def test_bpr_of_rows_is_bpr_of_inner_products_and_so_are_its_gradients(seed, temperature):
    rows = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()
    user, positive, negative = rows
    fused = bpr_of_rows(user, positive, negative, temperature)
    plain = bpr((user * positive).sum(1), (user * negative).sum(1), temperature)
    torch.testing.assert_close(fused, plain)
    torch.testing.assert_close(*(torch.autograd.grad(loss, rows)[0] for loss in (fused, plain)))


def test_l2_is_half_the_squared_length_a_pair_and_its_gradient_the_rows():
    rows = torch.randn(2, 6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    loss = l2(*rows)
    assert loss.item() == pytest.approx(sum(x**2 for x in rows.flatten().tolist()) / 12)
    torch.testing.assert_close(torch.autograd.grad(loss, rows)[0], rows.detach() / 6)


COARSE_BATCH = (70, 90, 130)  # users, items, negatives; no multiples of a tile


@pytest.mark.parametrize("rows_at_once", [2**22, 33])
@pytest.mark.parametrize("loss", ["history", "none", "sampled"])
def test_coarse_products_give_nearly_the_same_loss_and_gradients(loss, rows_at_once, monkeypatch):
    monkeypatch.setattr("symcere.losses._BLOCK", 90 * rows_at_once)
    generator = torch.Generator().manual_seed(0)
    rows = [unit_rows(torch.randn(n, 64, generator=generator)).float().requires_grad_() for n in COARSE_BATCH]
    pairs = PairRows(*(torch.randint(n, (100,), generator=generator) for n in COARSE_BATCH[:2]))
    times = torch.randint(3, (130,), generator=generator).float()
    known = Known(torch.tensor([0, 3, 69]), torch.tensor([89, 1, 0]))

    def value(coarse):
        if loss == "sampled":
            return sampled_softmax(*rows, 0.2, pairs, times, coarse=coarse)
        own = loss == "history"
        return symmetric_nce(*rows[:2], known if own else NONE, 0.2, pairs, own_known=own, unit=True, coarse=coarse)

    exact, near = value(False), value(True)
    assert near.item() != exact.item()
    assert near.item() == pytest.approx(exact.item(), abs=0.002)
    leaves = rows[: 2 + (loss == "sampled")]
    for own, other in zip(torch.autograd.grad(exact, leaves), torch.autograd.grad(near, leaves), strict=True):
        assert other.dtype == torch.float32
        assert (other - own).norm() < 0.01 * own.norm()


def test_at_low_temperatures_products_are_not_coarse():
    a, c = (unit_rows(torch.randn(9, 4)).float() for _ in range(2))
    for loss in (
        lambda coarse: symmetric_nce(a, c, NONE, 0.09, coarse=coarse),
        lambda coarse: sampled_softmax(a, c, c, 0.09, coarse=coarse),
    ):
        assert loss(True) == loss(False)
