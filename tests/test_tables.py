"""Rows that batches read of one propagation, and the way back that they share."""

import numpy as np
import pytest
import torch

import symcere as sc
from symcere.graph import propagate
from symcere.memory import Spare
from symcere.models.lightgcn import LightGCN
from symcere.models.projection import TextTower
from symcere.models.symcere import SymcereModel
from symcere.models.tables import Rows, bpr_of_nodes, l2_of_nodes, send_back
from symcere.training.adam import Adam
from symcere.training.batches import Batch, batches, in_groups
from symcere.training.config import Schedule
from symcere.training.loop import _gradients, graph_tower, torch_generator
from symcere.training.text import profiles
from symcere.training.tuning import some_users
from test_training import NONE

WEIGHTS = {"cross": 0.5, "intra_graph": 0.8, "intra_text": 1.2, "bpr": 0.5, "l2": 1e-2}


def symcere_model(split, text, *, propagated_weight=0.5, **more):
    settings = sc.SymcereSettings(dim=8)
    graph = graph_tower(split.train, settings, torch_generator(0))
    features = profiles(split.train, text)
    features[:3] = features[-3:] = 0  # users and items without text
    tower = TextTower(features, 8, 0, torch_generator(1))
    if propagated_weight:
        more["averaged"] = propagate(graph.adj, features, 2, include_ego=False)
        more["propagated_weight"] = propagated_weight
    return SymcereModel(graph, tower, len(split.train.users), temperature=0.3, text_weight=0.7, **more)


def light_gcn(split, text):
    return LightGCN(graph_tower(split.train, sc.LightGCNSettings(dim=8), torch_generator(0)), len(split.train.users))


def mean_loss(model, group, tables):
    losses = [
        sum(WEIGHTS[name] * term for name, term in model.terms(b.user, b.item, b.negative, b.known, tables).items())
        for b in group
    ]
    return sum(losses) / len(losses)


@pytest.mark.parametrize("make", [symcere_model, light_gcn])
@pytest.mark.parametrize("n", [1, 3])
def test_gathered_gradients_are_those_of_autograd(split, text, make, n):
    group = next(in_groups(batches(split.train, 100, "history", np.random.default_rng(0)), n))
    assert len(group) == n
    plain, gathered = make(split, text), make(split, text)
    mean_loss(plain, group, plain.tables()).backward()
    tables = [Rows(table) for table in gathered.tables()]
    for batch in group:  # each on its own way to the rows, one way back for all
        (mean_loss(gathered, [batch], tables) / n).backward()
    send_back(tables)
    for one, other in zip(plain.parameters(), gathered.parameters(), strict=True):
        rounding = 2e-6 * float(one.grad.abs().max())  # of sums in another order, at what cancels
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=rounding)


def test_a_step_of_several_batches_learns_from_their_mean(split, text):
    group = next(in_groups(batches(split.train, 50, "history", np.random.default_rng(0)), 2))
    model, found = symcere_model(split, text), []
    for some in (group[:1], group[1:2], group[:2]):
        model.zero_grad()
        step = _gradients(model, some, WEIGHTS, Spare())
        found.append((step["loss"], [parameter.grad.clone() for parameter in model.parameters()]))
    (one, first), (other, second), (both, together) = found
    assert both == pytest.approx((one + other) / 2, rel=1e-5)
    for a, b, mean in zip(first, second, together, strict=True):
        torch.testing.assert_close((a + b) / 2, mean, rtol=1e-3, atol=2e-6 * float(mean.abs().max()))


def test_a_step_is_taken_once_for_each_group(split, text, monkeypatch):
    steps, step = [], Adam.step
    monkeypatch.setattr(Adam, "step", lambda self: (steps.append(1), step(self)))
    settings = sc.SymcereSettings(dim=8, batch_size=100, batches_per_propagation=3, max_epochs=2, valid_every=2)
    sc.fit(split.train, text, valid=split.valid, settings=settings)
    n_batches = -(-len(split.train) // 100)
    assert len(steps) == 2 * -(-n_batches // 3)


@pytest.mark.parametrize("batch", [1, 20])  # fewer nodes than the table has rows, and more
def test_squares_of_rows_are_those_of_a_loop_whether_read_or_counted(batch):
    draws = torch.Generator().manual_seed(batch)
    table = torch.randn(10, 4, generator=draws, dtype=torch.float64, requires_grad=True)
    nodes = torch.randint(0, 10, (3, batch), generator=draws)
    rows = Rows(table * 2)
    found = l2_of_nodes(rows, nodes)
    (5 * found).backward()
    send_back([rows])
    doubled = 2 * table.detach()
    assert found.item() == pytest.approx(
        sum(float(doubled[at].square().sum()) for at in nodes.flatten()) / (2 * batch)
    )
    expected = torch.zeros_like(table)
    for at in nodes.flatten():
        expected[at] += 5 * 2 * doubled[at] / batch
    torch.testing.assert_close(table.grad, expected)
    assert l2_of_nodes(table, nodes).item() == pytest.approx(found.item() / 4)


@pytest.mark.parametrize("before", [False, True])  # whether the rows have a gradient already
def test_squares_that_were_counted_join_what_was_gathered(before):
    table, nodes = torch.nn.Parameter(torch.arange(6.0).reshape(3, 2)), torch.tensor([[0, 1], [1, 2]])
    rows = Rows(table)
    if before:
        rows[torch.tensor([1])].sum().backward()
    l2_of_nodes(rows, nodes).backward()
    send_back([rows])
    assert table.grad.tolist() == [[0, 0.5], [2 + before, 3 + before], [2, 2.5]]


def test_a_parameter_that_has_a_gradient_keeps_it_beside_what_is_sent_back():
    table = torch.nn.Parameter(torch.ones(2, 1))
    two = [Rows(table), Rows(table)]
    for rows, node in zip(two, ([0, 0], [1]), strict=True):
        rows[torch.tensor(node)].sum().backward()
    send_back(two)
    assert table.grad.tolist() == [[2], [1]]


def test_gradients_are_gathered_where_those_before_were_whatever_was_in_it():
    spare, places = Spare(), []
    matrix = torch.nn.Parameter(torch.ones(3, 2))
    for _ in range(2):
        rows = Rows(2 * matrix, spare=spare)
        assert not rows.was_read
        rows[torch.tensor([0, 0, 2])].sum().backward()
        send_back([rows])
        places.append(rows.gathered.data_ptr())
        assert matrix.grad.tolist() == [[4, 4], [0, 0], [2, 2]]
        rows = matrix.grad = None
    assert places == [spare._rooms[0][0].data_ptr()] * 2
    assert len(spare._rooms) == 1


def test_a_fit_gathers_where_the_step_before_did(split, monkeypatch):
    spares, make = [], Rows.__init__
    monkeypatch.setattr(Rows, "__init__", lambda self, *how: (spares.append(how[2]), make(self, *how))[1])
    settings = sc.LightGCNSettings(dim=8, batch_size=100, max_epochs=1)
    sc.fit_light_gcn(split.train, valid=split.valid, settings=[settings])
    assert len(spares) > 4
    assert all(spare is spares[0] for spare in spares)
    assert not spares[0]._rooms  # all is given back


def test_bpr_of_nodes_and_its_gradient_are_those_of_the_rows():
    draws = torch.Generator().manual_seed(0)
    table = torch.randn(10, 4, generator=draws, dtype=torch.float64, requires_grad=True)
    triples = torch.randint(0, 10, (3, 7), generator=draws)  # nodes come back, also in other roles
    rows = Rows(2 * table)
    found = bpr_of_nodes(rows, triples)
    (3 * found).backward()
    send_back([rows])
    (grad,) = torch.autograd.grad(3 * bpr_of_nodes(2 * table, triples), table)
    margin = [float((4 * table[u] @ (table[p] - table[n])).detach()) for u, p, n in triples.T]
    assert found.item() == pytest.approx(np.mean(np.logaddexp(0, -np.array(margin))))
    torch.testing.assert_close(table.grad, grad)


@pytest.mark.parametrize("mask", ["history", "none"])
@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_nodes_taken_once_give_the_same_terms_and_gradients(split, text, weight, mask):
    found = []
    for distinct in (False, True):
        model = symcere_model(split, text, distinct=distinct, own_known=mask == "history", propagated_weight=weight)
        (batch,) = next(in_groups(batches(split.train, 300, mask, np.random.default_rng(0)), 1))
        terms = model.terms(batch.user, batch.item, batch.negative, batch.known, model.tables())
        sum(WEIGHTS[name] * term for name, term in terms.items()).backward()
        found.append([*(term.detach() for term in terms.values()), *(p.grad for p in model.parameters())])
    assert len(batch.user.unique()) < len(batch.user)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(
    ("n", "together", "expected"),
    [(7_302, 0, 1), (64 * 1_024, 0, 1), (64 * 1_024 + 1, 0, 2), (20_000_000, 0, 306), (9, 5, 5)],
)
def test_an_epoch_has_64_steps_at_most_unless_told_otherwise(n, together, expected):
    assert Schedule(batches_per_propagation=together).batches_per_step(n) == expected


def test_groups_hold_every_batch_once_and_draw_no_more_than_a_group_ahead():
    drawn = []

    def batch(number):
        drawn.append(number)
        return Batch(*[torch.tensor([number])] * 3, NONE)

    groups = in_groups(map(batch, range(5)), 2)
    assert [b.user.item() for b in next(groups)] == [0, 1]
    assert drawn == [0, 1]
    assert [len(group) for group in groups] == [2, 1]


def test_users_who_decide_are_drawn_once_by_the_seed(split):
    some, again, others = (some_users(split.valid, 10, seed) for seed in (0, 0, 1))
    assert len(np.unique(some.user)) == 10
    assert some.user.tolist() == again.user.tolist() != others.user.tolist()
    all_pairs = set(zip(split.valid.user.tolist(), split.valid.item.tolist(), strict=True))
    of_them = {pair for pair in all_pairs if pair[0] in set(some.user.tolist())}
    assert of_them == set(zip(some.user.tolist(), some.item.tolist(), strict=True))
    assert some_users(split.valid, 10**6, 0) is split.valid
