"""The id-only graph baselines: each loss against slow loops, each propagation against dense matrix powers."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import symcere as sc
from conftest import reviews_of
from symcere.baselines import bpr_mf, direct_au, light_gcn_ssm, sim_gcl, x_sim_gcl
from symcere.data.dataset import HeldOut
from symcere.graph import norm_adj
from symcere.losses import Known, alignment, info_nce, uniformity
from symcere.models.lightgcn import GraphTower
from symcere.training.space import GRAPH, Choice, Real
from symcere.training.tuning import valid_ndcg

NONE = Known(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
USER = np.array([0, 0, 1, 2, 2, 3, 4, 4, 1])
ITEM = np.array([0, 1, 1, 2, 3, 3, 4, 0, 2])  # 5 x 5
BATCH = torch.tensor([0, 0, 1, 2, 4]), torch.tensor([0, 1, 1, 2, 0]), torch.tensor([2, 4, 3, 0, 1])


def random_rows(seed, n=6, dim=4):
    return tuple(torch.randn(2, n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))


rows = st.integers(0, 10_000).map(random_rows)


def unit(x):
    return [row / math.sqrt(sum(float(value) ** 2 for value in row)) for row in x]


def cosine(x, y):
    return float(x @ y) / math.sqrt(float(x @ x) * float(y @ y))


def loop_info_nce(a, c, temperature):
    """The formula, word by word."""
    total = 0.0
    for k in range(len(a)):
        s = [cosine(a[k], c[j]) / temperature for j in range(len(c))]
        top = max(s)
        total += top + math.log(sum(math.exp(value - top) for value in s)) - s[k]
    return total / len(a)


def loop_alignment(a, c):
    return sum(sum(float(v) ** 2 for v in x - y) for x, y in zip(unit(a), unit(c), strict=True)) / len(a)


def loop_uniformity(x):
    pairs = list(itertools.combinations(unit(x), 2))
    return math.log(sum(math.exp(-2 * sum(float(v) ** 2 for v in x - y)) for x, y in pairs) / len(pairs))


def loop_bpr(x_user, x_item, x_negative):
    differences = [float(u @ j - u @ i) for u, i, j in zip(x_user, x_item, x_negative, strict=True)]
    return sum(math.log1p(math.exp(value)) for value in differences) / len(differences)


def loop_l2(*sides):
    return sum(float(value) ** 2 for side in sides for row in side for value in row) / (2 * len(sides[0]))


@given(rows, st.sampled_from([0.01, 0.05, 0.2, 1.0]))
def test_info_nce_equals_the_loop(pair, temperature):
    a, c = pair
    expected = loop_info_nce(a, c, temperature)
    assert float(info_nce(a, c, temperature)) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert float(info_nce(a.float(), c.float(), temperature)) == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_info_nce_has_its_closed_forms():
    ones, eye = torch.ones(8, 3), torch.eye(5)
    assert float(info_nce(ones, ones, 0.2)) == pytest.approx(math.log(8), rel=1e-6)
    assert float(info_nce(eye, eye, 0.5)) == pytest.approx(math.log(1 + 4 * math.exp(-2)), rel=1e-6)


def test_info_nce_goes_one_way_only():
    a, c = random_rows(2)
    assert float(info_nce(a, c, 0.2)) != pytest.approx(float(info_nce(c, a, 0.2)), rel=1e-3)


@pytest.mark.parametrize("temperature", [0.01, 0.03])
def test_info_nce_survives_a_row_opposite_to_all_others_at_low_temperature(temperature):
    a = torch.zeros(2_048, 2)
    a[:, 0] = 1
    c = a.clone()
    a[0, 0] = -1
    a.requires_grad_()
    loss = info_nce(a, c, temperature)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2_048), rel=1e-5)
    assert torch.isfinite(a.grad).all()


@given(rows)
def test_alignment_and_uniformity_equal_their_loops(pair):
    a, c = pair
    assert float(alignment(a, c)) == pytest.approx(loop_alignment(a, c), rel=1e-9)
    assert float(uniformity(a)) == pytest.approx(loop_uniformity(a), rel=1e-9)
    assert float(uniformity(a.float())) == pytest.approx(loop_uniformity(a), rel=1e-4)


def test_uniformity_is_that_of_pairwise_distances():
    x = torch.nn.functional.normalize(torch.randn(300, 16, generator=torch.Generator().manual_seed(0)), dim=1)
    assert float(uniformity(x)) == pytest.approx(float(torch.pdist(x).square().mul(-2).exp().mean().log()), rel=1e-5)


def test_alignment_and_uniformity_have_their_closed_forms():
    eye = torch.eye(4)
    assert float(alignment(eye, 3 * eye)) == 0
    assert float(alignment(eye, eye.roll(1, 0))) == pytest.approx(2)
    assert float(alignment(eye, -eye)) == pytest.approx(4)
    assert float(uniformity(eye)) == pytest.approx(-4)
    assert float(uniformity(torch.ones(7, 3))) == pytest.approx(0, abs=1e-5)
    assert float(uniformity(eye[:1])) == 0


@pytest.mark.parametrize(
    "loss", [lambda x, y: info_nce(x, y, 0.2), alignment, lambda x, y: uniformity(x) + uniformity(y)]
)
def test_gradients_are_the_derivatives(loss):
    a, c = random_rows(3)
    assert torch.autograd.gradcheck(loss, (a.requires_grad_(), c.requires_grad_()))


def dense():
    """A of the 5 x 5 graph from its definition, entry by entry."""
    a = np.zeros((10, 10))
    for u, i in zip(USER, ITEM, strict=True):
        a[u, 5 + i] = a[5 + i, u] = 1
    degree = a.sum(1)
    return a / np.sqrt(np.outer(degree, degree))


def tower(n_layers=2, include_ego=False):
    generator = torch.Generator().manual_seed(4)
    graph = GraphTower(norm_adj(USER, ITEM, 5, 5), 4, n_layers, include_ego=include_ego, generator=generator)
    graph.ego.data.mul_(5)  # so that scores differ visibly
    return graph


def dense_layers(graph, eps=0.0, noise=None):
    """Layers 0..n_layers by the formula; a layer is propagated with the noise that it got in its own orthant."""
    layers = [graph.ego.detach().double().numpy()]
    for _ in range(graph.n_layers):
        layer = dense() @ layers[-1]
        if noise is not None:
            draw = torch.rand(layer.shape, generator=noise).double().numpy()
            for node in range(len(layer)):
                layer[node] = layer[node] + np.sign(layer[node]) * draw[node] / np.linalg.norm(draw[node]) * eps
        layers.append(layer)
    return layers


def dense_mean(graph, layers):
    return torch.from_numpy(np.mean(layers if graph.include_ego else layers[1:], axis=0))


def noise(seed=9):
    return torch.Generator().manual_seed(seed)


def loop_contrast(one, other, temperature):
    """InfoNCE over the distinct users 0, 1, 2, 4 and the distinct items 0, 1, 2 of BATCH."""
    users, items = [0, 1, 2, 4], [5, 6, 7]
    return sum(loop_info_nce(one[nodes], other[nodes], temperature) for nodes in (users, items))


def found(model):
    return {name: float(term.detach()) for name, term in model.terms(*BATCH, NONE, model.tables()).items()}


def expected_bpr_and_l2(g, ego):
    user, item, negative = BATCH[0], BATCH[1] + 5, BATCH[2] + 5
    return {
        "bpr": loop_bpr(g[user], g[item], g[negative]),
        "l2": loop_l2(ego[user], ego[item], ego[negative]),
    }


def test_matrix_factorisation_is_bpr_and_l2_on_its_own_vectors():
    model = bpr_mf.MatrixFactorisation(5, 5, 4, torch.Generator().manual_seed(0))
    x = torch.cat([model.user, model.item]).detach()
    assert found(model) == pytest.approx(expected_bpr_and_l2(x, x), rel=1e-5)
    assert torch.equal(torch.cat(model.embeddings()), x)


@pytest.mark.parametrize("include_ego", [True, False])
def test_light_gcn_ssm_picks_the_item_by_cosine_of_the_dense_propagation(include_ego):
    graph = tower(3, include_ego)
    model = light_gcn_ssm.LightGCNSSM(graph, 5, temperature=0.2, score="cosine")
    g, ego = dense_mean(graph, dense_layers(graph)), graph.ego.detach()
    user, item = BATCH[0], BATCH[1] + 5
    expected = {"ssm": loop_info_nce(g[user], g[item], 0.2), "l2": loop_l2(ego[user], ego[item])}
    assert found(model) == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(
        torch.cat(model.embeddings()).numpy(), np.array([row.numpy() for row in unit(g)]), atol=1e-5
    )
    inner = light_gcn_ssm.LightGCNSSM(graph, 5, temperature=0.2, score="inner")
    assert (model.temperature, inner.temperature) == (0.2, None)
    np.testing.assert_allclose(torch.cat(inner.embeddings()).numpy(), g.numpy(), atol=1e-5)


@pytest.mark.parametrize("include_ego", [True, False])
def test_sim_gcl_contrasts_two_noisy_dense_propagations_and_ranks_without_noise(include_ego):
    graph = tower(2, include_ego)
    model = sim_gcl.SimGCL(graph, 5, eps=0.3, contrast_temperature=0.2, noise=noise())
    same = noise()
    one, other = (dense_mean(graph, dense_layers(graph, 0.3, same)) for _ in range(2))
    g = dense_mean(graph, dense_layers(graph))
    expected = expected_bpr_and_l2(g, graph.ego.detach()) | {"contrast": loop_contrast(one, other, 0.2)}
    assert found(model) == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(torch.cat(model.embeddings()).numpy(), g.numpy(), atol=1e-5)


@pytest.mark.parametrize("include_ego", [True, False])
@pytest.mark.parametrize("layer", [1, 2])
def test_x_sim_gcl_contrasts_its_one_noisy_pass_with_a_layer_and_ranks_without_noise(layer, include_ego):
    graph = tower(2, include_ego)
    model = x_sim_gcl.XSimGCL(graph, 5, eps=0.3, contrast_temperature=0.2, contrast_layer=layer, noise=noise())
    layers = dense_layers(graph, 0.3, noise())
    noisy = dense_mean(graph, layers)
    contrasted = loop_contrast(noisy, torch.from_numpy(layers[layer]), 0.2)
    expected = expected_bpr_and_l2(noisy, graph.ego.detach()) | {"contrast": contrasted}
    assert found(model) == pytest.approx(expected, rel=1e-4)
    quiet = dense_mean(graph, dense_layers(graph))
    np.testing.assert_allclose(torch.cat(model.embeddings()).numpy(), quiet.numpy(), atol=1e-5)


@pytest.mark.parametrize(("n_layers", "include_ego"), [(0, True), (2, True), (3, False)])
def test_direct_au_aligns_and_spreads_the_dense_propagation_and_ranks_by_inner_product(n_layers, include_ego):
    graph = tower(n_layers, include_ego)
    model = direct_au.DirectAU(graph, 5)
    g, ego = dense_mean(graph, dense_layers(graph)), graph.ego.detach()
    user, item = BATCH[0], BATCH[1] + 5
    expected = {
        "align": loop_alignment(g[user], g[item]),
        "uniform": (loop_uniformity(g[user]) + loop_uniformity(g[item])) / 2,
        "l2": loop_l2(ego[user], ego[item]),
    }
    assert found(model) == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(torch.cat(model.embeddings()).numpy(), g.numpy(), atol=1e-5)


def test_noise_has_its_length_in_the_layers_own_orthant_and_leaves_lonely_nodes_at_zero():
    adj = norm_adj(USER, ITEM, 6, 6)  # the last user and the last item have no neighbour
    graph = GraphTower(adj, 8, 1, include_ego=False, generator=torch.Generator().manual_seed(1))
    quiet = graph().detach()
    noisy = sim_gcl.noisy_layers(graph, 0.1, noise())[1].detach()
    added = noisy - quiet
    lonely = torch.tensor([5, 11])
    others = torch.tensor([node for node in range(12) if node not in (5, 11)])
    assert not noisy[lonely].any()
    np.testing.assert_allclose(added[others].norm(dim=1).numpy(), 0.1, rtol=1e-4)
    assert torch.equal(torch.sign(noisy[others]), torch.sign(quiet[others]))


@pytest.mark.parametrize(
    "model",
    [
        light_gcn_ssm.LightGCNSSM(tower(), 5, temperature=0.2, score="cosine"),
        sim_gcl.SimGCL(tower(), 5, eps=0.1, contrast_temperature=0.2, noise=noise()),
        x_sim_gcl.XSimGCL(tower(), 5, eps=0.1, contrast_temperature=0.2, contrast_layer=1, noise=noise()),
        direct_au.DirectAU(tower(), 5),
    ],
    ids=["light_gcn_ssm", "sim_gcl", "x_sim_gcl", "direct_au"],
)
def test_every_term_but_l2_moves_every_node_through_the_graph(model):
    terms = model.terms(*BATCH, NONE, model.tables())
    torch.stack([term for name, term in terms.items() if name != "l2"]).sum().backward()
    assert model.graph.ego.grad.any(1).all()


SYSTEMS = {
    "bpr_mf": (bpr_mf.fit_bpr_mf, bpr_mf.BPRMFSettings, bpr_mf),
    "light_gcn_ssm": (light_gcn_ssm.fit_light_gcn_ssm, light_gcn_ssm.LightGCNSSMSettings, light_gcn_ssm),
    "sim_gcl": (sim_gcl.fit_sim_gcl, sim_gcl.SimGCLSettings, sim_gcl),
    "x_sim_gcl": (x_sim_gcl.fit_x_sim_gcl, x_sim_gcl.XSimGCLSettings, x_sim_gcl),
    "direct_au": (direct_au.fit_direct_au, direct_au.DirectAUSettings, direct_au),
}


WEIGHTS = {
    "bpr_mf": ({}, {"bpr": 1}),
    "light_gcn_ssm": ({}, {"ssm": 1}),
    "sim_gcl": ({"w_contrast": 0.3}, {"bpr": 1, "contrast": 0.3}),
    "x_sim_gcl": ({"w_contrast": 0.3}, {"bpr": 1, "contrast": 0.3}),
    "direct_au": ({"w_uniform": 0.6}, {"align": 1, "uniform": 0.6}),
}


def fit(name, split, seed=0, on_epoch=None, **changes):
    fit_system, settings, _ = SYSTEMS[name]
    quick = settings(**{"dim": 16, "batch_size": 256, "max_epochs": 30} | changes)
    return fit_system(split.train, valid=split.valid, settings=quick, seed=seed, on_epoch=on_epoch)


@pytest.fixture(scope="module")
def systems(split):
    return {name: fit(name, split) for name in SYSTEMS}


@pytest.fixture(scope="module")
def camps():
    """Four camps of 30 users and 12 items: each user has seen 8 items of the camp, and all are equally popular."""
    pairs = [
        (f"user{camp}.{user:02}", f"item{camp}.{(user + 5 * step) % 12:02}")
        for camp, user, step in itertools.product(range(4), range(30), range(8))
    ]
    return sc.split_random(reviews_of(pairs), seed=0)


@pytest.mark.parametrize("name", SYSTEMS)
class TestEverySystem:
    def test_beats_chance_in_a_world_of_words(self, systems, split, name):
        n_items = len(split.train.items)
        chance = sum(1 / math.log2(rank + 1) for rank in range(1, 11)) / n_items
        assert valid_ndcg(systems[name], split.train, split.valid) > 1.3 * chance

    def test_finds_the_camps_that_popularity_cannot_see(self, camps, name):
        popularity = sc.fit_popularity(camps.train, valid=camps.valid)
        report = sc.compare({"popularity": popularity, name: fit(name, camps)}, camps, [sc.ndcg(10)])
        assert report.mean(name, "ndcg@10") > 2 * report.mean("popularity", "ndcg@10")

    def test_the_same_seed_gives_the_same_bytes(self, split, name):
        first, again = (fit(name, split, max_epochs=3) for _ in range(2))
        assert first.user_emb.tobytes() == again.user_emb.tobytes()
        assert first.item_emb.tobytes() == again.item_emb.tobytes()

    def test_another_seed_gives_other_initial_values(self, split, name):
        first, other = (fit(name, split, seed=seed, max_epochs=1, learning_rate=1e-9) for seed in (0, 1))
        assert not np.allclose(first.item_emb, other.item_emb, atol=1e-3)

    def test_the_loss_is_the_sum_of_the_terms_under_the_weights_of_the_settings(self, split, name):
        changes, weights = WEIGHTS[name]
        epochs = []
        fit(name, split, on_epoch=epochs.append, max_epochs=2, w_l2=0.07, **changes)
        for epoch in epochs:
            assert set(epoch.terms) == {*weights, "l2"}
            expected = 0.07 * epoch.terms["l2"] + sum(weight * epoch.terms[term] for term, weight in weights.items())
            assert epoch.loss == pytest.approx(expected, rel=1e-5)

    def test_another_valid_part_changes_no_vector_of_the_same_epoch(self, split, name):
        other = HeldOut(split.valid.users, split.valid.items, split.valid.user[::2], split.valid.item[::2])
        first = fit(name, split, max_epochs=2)
        second = fit(name, dataclasses.replace(split, valid=other), max_epochs=2)
        assert first.user_emb.tobytes() == second.user_emb.tobytes()
        assert first.item_emb.tobytes() == second.item_emb.tobytes()

    def test_published_settings_lie_within_the_space(self, name):
        _, settings, home = SYSTEMS[name]
        assert set(home.SPACE) <= set(settings.model_fields)
        assert {key: home.SPACE[key] for key in ("learning_rate", "batch_size", "w_l2")}.items() <= GRAPH.items()
        for published in home.PUBLISHED:
            for key, place in home.SPACE.items():
                assert place.holds(getattr(published, key)), key

    def test_both_ends_of_the_space_are_valid_settings(self, name):
        _, settings, home = SYSTEMS[name]
        for end in (0, -1):
            settings(
                **{
                    key: place.values[end] if isinstance(place, Choice) else (place.low, place.high)[end]
                    for key, place in home.SPACE.items()
                }
            )

    def test_weights_are_searched_on_a_log_scale(self, name):
        _, _, home = SYSTEMS[name]
        assert all(place.log for place in home.SPACE.values() if isinstance(place, Real))


def test_direct_au_without_layers_is_matrix_factorisation_whatever_include_ego_says(split):
    with_ego, without = (fit("direct_au", split, n_layers=0, include_ego=ego, max_epochs=3) for ego in (True, False))
    assert with_ego.user_emb.tobytes() == without.user_emb.tobytes()


def test_noise_of_another_length_changes_the_fit(split):
    for name in ("sim_gcl", "x_sim_gcl"):
        one, other = (fit(name, split, eps=eps, max_epochs=3) for eps in (0.05, 0.5))
        assert one.user_emb.tobytes() != other.user_emb.tobytes()


def test_a_layer_that_does_not_exist_is_refused(split):
    with pytest.raises(sc.ConfigError, match="contrast_layer must be at most n_layers = 1; found 2"):
        fit("x_sim_gcl", split, n_layers=1, contrast_layer=2)


def test_the_score_of_light_gcn_ssm_is_a_cosine_in_units_of_its_temperature(systems, split):
    system = systems["light_gcn_ssm"]
    assert system.temperature == light_gcn_ssm.LightGCNSSMSettings().temperature
    np.testing.assert_allclose(np.linalg.norm(system.user_emb, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(system.item_emb, axis=1), 1, rtol=1e-5)
