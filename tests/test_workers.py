"""Several workers fit one model: the same gradients, the same result, and what they send."""

import multiprocessing
import os
from functools import partial

import numpy as np
import pytest
import torch

import symcere as sc
from symcere import graph
from symcere.errors import ConfigError
from symcere.graph import ShardedAdj, norm_adj, propagate
from symcere.losses import Known, PairRows, Part, symmetric_nce
from symcere.memory import Spare
from symcere.training.batches import batches
from symcere.training.loop import _gradients, fit, symcere_model, torch_generator
from symcere.workers import Shard, Workers, shard_by, working_as

WORLD = partial(sc.anchoring_world, 80, 40, 8)


def _worker(rank, size, port, task, out):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=size)
    with working_as(rank, size) as workers:
        out.put((rank, task(workers)))
    torch.distributed.destroy_process_group()


def together(task, size):
    """What each of `size` processes returns of a task, in their order."""
    context = multiprocessing.get_context("spawn")
    out = context.Queue()
    with __import__("socket").socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [context.Process(target=_worker, args=(rank, size, port, task, out)) for rank in range(size)]
    for process in processes:
        process.start()
    found = dict(out.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(30)
    return [found[rank] for rank in range(size)]


def _data():
    split = sc.split_random(sc.k_core(WORLD().reviews, 2))
    return split, sc.encode_reviews(split.train, sc.tfidf_encoder(16))


def _step(settings, workers):
    """Gradients of one step, the rows of all workers together, and what the step showed."""
    split, text = _data()
    train, generator = split.train, torch_generator(0)
    model = symcere_model(train, text, settings, generator)
    drawn = batches(train, settings.batch_size, settings.mask, np.random.default_rng(1))
    showed = _gradients(model, [next(drawn), next(drawn)], settings.weights, Spare())
    ego = model.graph.ego.grad
    whole = workers.all_rows(ego, model.shard) if workers.size > 1 else ego
    near = model.neighbourhood.weights if model.neighbourhood else ()
    return whole.numpy(), [weight.grad.numpy() for weight in (*model.text.weights, *near)], showed


def _fit(settings, workers):
    split, text = _data()
    model = fit(split.train, text, valid=split.valid, settings=settings)
    return model.user_emb, model.item_emb, model.popularity_weight, workers.sent


SETTINGS = {
    "defaults": sc.SymcereSettings(dim=8, batch_size=96),
    "mask none, text propagated": sc.SymcereSettings(
        dim=8, batch_size=96, mask="none", propagated_weight=1.0, hidden=8, include_ego=True, neighbourhood_weight=0.0
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize(("size", "name"), [(2, "defaults"), *((3, name) for name in SETTINGS)])
def test_gradients_of_several_workers_are_those_of_one_process(name, size):
    settings = SETTINGS[name]
    ego, weights, showed = _step(settings, Workers())
    for theirs, their_weights, they_showed in together(partial(_step, settings), size):
        for own, other in zip([ego, *weights], [theirs, *their_weights], strict=True):
            assert np.linalg.norm(other - own) <= 1e-5 * np.linalg.norm(own)
        assert they_showed == pytest.approx(showed, rel=1e-5)


@pytest.mark.slow
def test_several_workers_take_products_in_bfloat16_where_one_does():
    coarse = SETTINGS["defaults"].model_copy(update={"precision": "bfloat16"})
    (exact, exact_weights, _), (ego, weights, _) = (_step(how, Workers()) for how in (SETTINGS["defaults"], coarse))
    for theirs, their_weights, _ in together(partial(_step, coarse), 2):
        sides = zip([exact, *exact_weights], [ego, *weights], [theirs, *their_weights], strict=True)
        for in_float32, own, other in sides:
            rounding = np.linalg.norm(own - in_float32)
            assert np.linalg.norm(other - own) < 3 * rounding  # parts of a product are each rounded by themselves
            assert np.linalg.norm(other - in_float32) < 3 * rounding
            assert np.linalg.norm(other - in_float32) > 1e-4 * np.linalg.norm(own)


@pytest.mark.slow
def test_a_fit_of_two_workers_ends_where_that_of_one_does():
    settings = sc.SymcereSettings(dim=8, batch_size=96, max_epochs=4)
    user, item, dial, _ = _fit(settings, Workers())
    (theirs, *_), (user2, item2, dial2, sent) = together(partial(_fit, settings), 2)
    np.testing.assert_array_equal(theirs, user2)
    np.testing.assert_allclose(user2, user, atol=2e-3)
    np.testing.assert_allclose(item2, item, atol=2e-3)
    assert dial2 == dial
    assert sent > 0


def _propagated(large, coarse, workers):
    draws = np.random.default_rng(3)
    pairs = np.unique(draws.integers(0, (30, 20), (150, 2)), axis=0)
    adj = norm_adj(pairs[:, 0], pairs[:, 1], 30, 20, coarse=coarse)
    x = torch.from_numpy(draws.standard_normal((50, 4)).astype(np.float32))
    if workers.size == 1:
        return propagate(adj, x.requires_grad_(coarse), 3, include_ego=True).detach().numpy(), 0
    if large:  # in a process of this test's own
        graph._LARGE, graph._BLOCK, graph._BAND, graph._STRIP = 50, 4, 4, 8  # by all nodes, not by a worker's own
    sharded = ShardedAdj(adj, workers)
    own = propagate(sharded, x[sharded.shard.own].clone().requires_grad_(coarse), 3, include_ego=True).detach()
    assert bool(sharded.spare._rooms) == (large or coarse)
    sent = workers.sent
    return workers.all_rows(own, sharded.shard).numpy(), sent


@pytest.mark.slow
@pytest.mark.parametrize("large", [False, True])  # rows of a worker are propagated whole, or by strips and blocks
def test_propagation_over_shards_is_propagation_and_sends_each_row_once_a_layer(large):
    whole, _ = _propagated(False, False, Workers())
    found = together(partial(_propagated, large, False), 3)
    for theirs, _ in found:
        np.testing.assert_allclose(theirs, whole, atol=1e-6)
    assert sum(sent for _, sent in found) == 3 * 50 * 4 * 4


@pytest.mark.slow
def test_in_bfloat16_shards_propagate_what_one_process_does_and_send_half_the_bytes():
    exact, _ = _propagated(False, False, Workers())
    whole, _ = _propagated(False, True, Workers())
    found = together(partial(_propagated, True, True), 3)
    for theirs, _ in found:
        assert np.linalg.norm(theirs - whole) < 1.5 * np.linalg.norm(whole - exact)  # each rounds for itself
        assert 1e-4 < np.linalg.norm(theirs - exact) / np.linalg.norm(exact) < 5e-3
    assert sum(sent for _, sent in found) == 3 * 50 * 4 * 2


@pytest.mark.parametrize("own_known", [True, False])
def test_parts_of_the_nce_sum_to_the_whole(own_known):
    torch.manual_seed(0)
    a, c = torch.randn(7, 4, requires_grad=True), torch.randn(5, 4, requires_grad=True)
    user, item = torch.tensor([0, 1, 2, 3, 4, 5, 6, 6]), torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])
    known = Known(torch.tensor([0, 2, 6]), torch.tensor([3, 4, 0]))
    pairs = PairRows(user, item)
    whole = symmetric_nce(a, c, known, 0.4, pairs, own_known=own_known)
    whole.backward()
    expected = whole.item(), a.grad.clone(), c.grad.clone()
    a.grad = c.grad = None
    columns = []  # what each part adds to the denominators of columns: first collected, then summed
    parts = [slice(0, 3), slice(3, 3), slice(3, 7)]
    for rows in parts:
        collects = Part(rows, lambda own: columns.append(own.clone()) or own)
        symmetric_nce(a, c, known, 0.4, pairs, collects, own_known=own_known)
    total = sum(columns)
    losses = [
        symmetric_nce(a, c, known, 0.4, pairs, Part(rows, lambda _: total), own_known=own_known) for rows in parts
    ]
    sum(losses).backward()
    assert sum(losses).item() == pytest.approx(expected[0], rel=1e-6)
    torch.testing.assert_close(a.grad, expected[1])
    torch.testing.assert_close(c.grad, expected[2])


def test_shards_cover_all_rows_however_heavy_one_is():
    for size in (1, 2, 3, 5):
        bounds = shard_by(np.array([100.0, 1, 1, 1, 1, 1]), Workers(0, size)).bounds
        assert bounds[0] == 0
        assert bounds[-1] == 6
        assert list(bounds) == sorted(bounds)
    place, row = Shard((0, 2, 5), Workers(1, 2)).mine(torch.tensor([4, 0, 2, 4]))
    assert place.tolist() == [0, 2, 3]
    assert row.tolist() == [2, 0, 2]


def test_what_several_workers_cannot_fit_is_refused_in_a_sentence():
    split, text = _data()
    with working_as(0, 2), pytest.raises(ConfigError, match="Take one worker"):
        fit(split.train, text, valid=split.valid, settings=sc.SymcereSettings(positives="known"))
    with working_as(0, 2), pytest.raises(ConfigError, match="only SymCERE"):
        sc.fit_light_gcn(split.train, valid=split.valid)
