"""The model and the loop: worlds with a known answer, steps, determinism, bad settings."""

import dataclasses

import numpy as np
import pytest
import torch

import symcere as sc
from conftest import reviews_of
from symcere.evaluation.compare import measure, measure_test
from symcere.evaluation.measures import mean
from symcere.graph import norm_adj, propagate
from symcere.losses import Known
from symcere.models.lightgcn import GraphTower
from symcere.models.projection import Projection, TextTower
from symcere.models.symcere import SymcereModel
from symcere.text.features import TextFeatures
from symcere.training import loop
from symcere.training.loop import _gradients, torch_generator
from symcere.training.tuning import choose_popularity_weight, valid_ndcg
from test_losses import known_of, loop_inner_product_nce, loop_nce, loop_sincere

NONE = Known(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))


def small_model(features, hidden=0, **changes):
    adj = norm_adj(np.arange(8), np.arange(8), 8, 8)
    graph = GraphTower(adj, 8, 1, include_ego=True, generator=torch_generator(0))
    text = TextTower(features, 8, hidden, torch_generator(1))
    return SymcereModel(graph, text, 8, temperature=0.2, text_weight=1.0, **changes)


def test_eight_pairs_are_learned_by_heart():
    torch.manual_seed(0)
    model = small_model(torch.randn(16, 12))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.02)
    pair = torch.arange(8)
    for _ in range(200):
        optimiser.zero_grad()
        terms = model.terms(pair, pair, (pair + 1) % 8, NONE, model.tables())
        sum(terms[name] for name in ("cross", "intra_graph", "intra_text", "bpr")).backward()
        optimiser.step()
    assert all(terms[name].item() < 0.1 for name in ("cross", "intra_graph", "intra_text", "bpr"))


@pytest.mark.parametrize("hidden", [0, 5])
def test_every_parameter_gets_a_gradient_and_text_features_do_not_move(hidden):
    model = small_model(torch.randn(16, 12), hidden=hidden)
    before = model.text.features.clone()
    pair = torch.arange(8)
    sum(model.terms(pair, pair, (pair + 1) % 8, NONE, model.tables()).values()).backward()
    assert all(parameter.grad.any() for parameter in model.parameters())
    assert torch.equal(model.text.features, before)
    assert not model.text.features.requires_grad


def test_nodes_without_text_take_no_part_in_text_terms():
    features = torch.randn(16, 12)
    features[0] = features[9] = 0  # user 0 and item 1
    model = small_model(features)
    pair, rest = torch.arange(8), torch.arange(2, 8)
    known = Known(torch.tensor([3, 0, 5]), torch.tensor([4, 3, 1]))
    without = Known(torch.tensor([1]), torch.tensor([2]))
    all_pairs = model.terms(pair, pair, pair, known, model.tables())["intra_text"]
    assert all_pairs.item() == pytest.approx(
        model.terms(rest, rest, rest, without, model.tables())["intra_text"].item()
    )
    silent = small_model(features * 0)
    assert torch.isfinite(torch.stack(list(silent.terms(pair, pair, pair, NONE, silent.tables()).values()))).all()


def test_a_checkerboard_is_solved():
    """User u takes the items of its own colour: the held-out ones are known to be the rest of them."""
    pairs = [(f"u{u:02d}", f"i{i:02d}") for u in range(30) for i in range(24) if (u + i) % 2 == 0]
    split = sc.split_random(
        sc.k_core(reviews_of(pairs, text=[f"colour{int(u[1:]) % 2} x" for u, _ in pairs])), seed=0
    )
    text = sc.encode_reviews(split.train, sc.tfidf_encoder(4))
    settings = sc.SymcereSettings(dim=8, batch_size=64, max_epochs=30)
    model = sc.fit(split.train, text, valid=split.valid, settings=settings)
    recall = measure_test(model, split, [sc.recall(12)])["recall@12"]
    assert mean(recall) > 0.99


def test_a_world_told_by_its_texts_is_solved_with_them_and_not_with_shuffled_ones(tmp_path):
    world = sc.anchoring_world(300, 120, 6, taste=3.0)
    sc.write_amazon(world, tmp_path / "reviews.json.gz")
    split = sc.split_random(sc.k_core(sc.read_reviews(tmp_path / "reviews.json.gz")), seed=0)
    text = sc.encode_reviews(split.train, sc.tfidf_encoder(64))
    settings = sc.SymcereSettings(dim=16, batch_size=256, max_epochs=12, learning_rate=1e-2)

    def ndcg(system):
        return mean(measure_test(system, split, [sc.ndcg(10)])["ndcg@10"])

    told = ndcg(sc.fit(split.train, text, valid=split.valid, settings=settings))
    shuffled = ndcg(sc.fit(split.train, shuffle(text), valid=split.valid, settings=settings))
    truth = ndcg(world.truth(split.train.users, split.train.items))
    assert 1.25 * shuffled < told < truth


CHANGES = {
    "learning_rate": 1e-2, "batch_size": 100, "dim": 8, "n_layers": 1, "include_ego": True, "w_l2": 1.0,
    "temperature": 0.2, "text_weight": 0.1, "hidden": 8, "mask": "none", "w_cross": 0, "w_intra_graph": 0,
    "w_intra_text": 0, "w_bpr": 0, "popularity_weights": (3.0,), "positives": "known", "pairs": "same_entity",
    "unit": False, "w_text_in_graph": 1.0, "batches_per_propagation": 2, "valid_users": 1,
    "precision": "bfloat16",
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_every_setting_reaches_the_model(split, text, name):
    settings = {"dim": 16, "batch_size": 256, "max_epochs": 2, "valid_every": 2}
    base = sc.fit(split.train, text, valid=split.valid, settings=sc.SymcereSettings(**settings))
    changed = sc.SymcereSettings(**settings | {name: CHANGES[name]})
    other = sc.fit(split.train, text, valid=split.valid, settings=changed)
    scores = [system.score(np.arange(5)).tobytes() for system in (base, other)]
    assert scores[0] != scores[1]


@pytest.mark.parametrize("change", [{"w_l2": 1.0}, {"include_ego": True}, {"n_layers": 1}])
def test_every_setting_reaches_light_gcn(split, change):
    settings = {"dim": 8, "batch_size": 256, "max_epochs": 2, "valid_every": 2}
    scores = [
        sc.fit_light_gcn(split.train, valid=split.valid, settings=[sc.LightGCNSettings(**settings | more)])
        .score(np.arange(5))
        .tobytes()
        for more in ({}, change)
    ]
    assert scores[0] != scores[1]


def test_the_terms_are_those_of_the_method():
    """Each term rebuilt from the two towers by the formulas of docs/method.md."""
    torch.manual_seed(0)
    model = small_model(torch.randn(16, 12))
    user, item, negative = torch.tensor([0, 1, 2, 2]), torch.tensor([3, 4, 3, 5]), torch.tensor([7, 6, 7, 0])
    matrix = torch.zeros(4, 4, dtype=torch.bool)
    matrix[0, 2] = matrix[2, 0] = matrix[3, 1] = True
    found = {
        name: term.item()
        for name, term in model.terms(user, item, negative, known_of(matrix), model.tables()).items()
    }
    g, t, ego = (x.detach() for x in (model.graph(), model.text(), model.graph.ego))
    gu, gi, tu, ti = g[user], g[item + 8], t[user], t[item + 8]

    def unit(x):
        return x / x.norm(dim=1, keepdim=True)

    def nce(a, c):
        return loop_nce(a, c, matrix, 0.2)

    f = unit(unit(g) + 1.0 * unit(t))
    margin = (f[user] * (f[item + 8] - f[negative + 8])).sum(1) / 0.2
    expected = {
        "cross": (nce(gu, ti) + nce(tu, gi)) / 2,
        "intra_graph": nce(gu, gi),
        "intra_text": nce(tu, ti),
        "bpr": torch.log1p(torch.exp(-margin)).mean().item(),
        "l2": (ego[user].square().sum() + ego[item + 8].square().sum()).item() / 8,
    }
    assert found == pytest.approx(expected, rel=1e-4)
    user_emb, item_emb = model.embeddings()
    torch.testing.assert_close(torch.cat([user_emb, item_emb]), f)


BATCH = torch.tensor([0, 1, 2, 2]), torch.tensor([3, 4, 3, 5]), torch.tensor([7, 6, 7, 0])


def batch_of_twin(**changes):
    """A twin's terms of one batch with known pairs, the pairs, and the raw vectors of both towers at its nodes."""
    torch.manual_seed(0)
    model = small_model(torch.randn(16, 12), **changes)
    matrix = torch.zeros(4, 4, dtype=torch.bool)
    matrix[0, 2] = matrix[2, 0] = matrix[3, 1] = True
    found = {name: term.item() for name, term in model.terms(*BATCH, known_of(matrix), model.tables()).items()}
    user, item, _ = BATCH
    with torch.no_grad():
        sides = [tower[nodes] for tower in (model.graph(), model.text()) for nodes in (user, item + 8)]
    return model, found, matrix, sides


def test_pairs_of_the_same_entity_join_each_node_with_its_own_text():
    _, found, matrix, (gu, gi, tu, ti) = batch_of_twin(pairs="same_entity")
    expected = (loop_nce(gu, tu, matrix, 0.2) + loop_nce(gi, ti, matrix, 0.2)) / 2
    assert found["cross"] == pytest.approx(expected, rel=1e-4)


def test_known_positives_make_every_nce_a_sincere_one():
    _, found, matrix, (gu, gi, tu, ti) = batch_of_twin(positives="known")
    expected = (loop_sincere(gu, ti, matrix, 0.2) + loop_sincere(tu, gi, matrix, 0.2)) / 2
    assert found["cross"] == pytest.approx(expected, rel=1e-4)
    assert found["intra_graph"] == pytest.approx(loop_sincere(gu, gi, matrix, 0.2), rel=1e-4)
    assert found["intra_text"] == pytest.approx(loop_sincere(tu, ti, matrix, 0.2), rel=1e-4)


def test_without_the_sphere_lengths_count_in_every_term_and_in_the_score():
    model, found, matrix, (gu, gi, tu, ti) = batch_of_twin(unit=False)
    user, item, negative = BATCH
    f = (model.graph() + model.text()).detach()
    margin = (f[user] * (f[item + 8] - f[negative + 8])).sum(1)
    nce = loop_inner_product_nce
    expected = {
        "cross": (nce(gu, ti, matrix, 0.2) + nce(tu, gi, matrix, 0.2)) / 2,
        "intra_graph": nce(gu, gi, matrix, 0.2),
        "intra_text": nce(tu, ti, matrix, 0.2),
        "bpr": torch.log1p(torch.exp(-margin)).mean().item(),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert model.temperature is None
    torch.testing.assert_close(torch.cat(model.embeddings()), f)


def test_propagated_text_joins_the_final_vector_and_nothing_else_but_the_ranking_term():
    torch.manual_seed(0)
    adj = norm_adj(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2]), 3, 3)
    graph = GraphTower(adj, 4, 2, include_ego=True, generator=torch_generator(0))
    text = TextTower(torch.randn(6, 5), 4, 0, torch_generator(1))
    unit = torch.nn.functional.normalize
    averaged = propagate(adj, text.features, 2, include_ego=False)
    model, plain = (
        SymcereModel(graph, text, 3, temperature=0.2, text_weight=0.7, **more)
        for more in ({"averaged": averaged, "propagated_weight": 0.4}, {})
    )
    dense = torch.zeros(6, 6)
    for user, item, weight in ((0, 0, 2**-0.5), (0, 1, 0.5), (1, 1, 2**-0.5), (2, 2, 1.0)):
        dense[user, 3 + item] = dense[3 + item, user] = weight
    x = text().detach()
    expected = unit(unit(graph().detach()) + 0.7 * unit(x) + 0.4 * unit(dense @ x + dense @ dense @ x))
    torch.testing.assert_close(torch.cat(model.embeddings()), expected)
    user, item, negative = torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2]), torch.tensor([2, 0, 1])
    terms, without = (each.terms(user, item, negative, NONE, each.tables()) for each in (model, plain))
    assert [name for name in terms if terms[name] != without[name]] == ["bpr"]
    score = expected[:3] @ expected[3:].T / 0.2
    ranking = torch.nn.functional.softplus(score[user, negative] - score[user, item]).mean()
    torch.testing.assert_close(terms["bpr"].detach(), ranking)


def test_the_third_tower_is_averaged_text_learned_alone_and_its_cosine_joins_the_score():
    """Averaged over the hops before it is projected: the same as after, for both are linear."""
    torch.manual_seed(0)
    adj = norm_adj(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 2]), 3, 3)
    features = torch.randn(6, 5)
    features[4] = 0  # an item without text has that of its neighbours
    graph = GraphTower(adj, 4, 2, include_ego=False, generator=torch_generator(0))
    text = TextTower(features, 4, 0, torch_generator(1))
    averaged = propagate(adj, features, 2, include_ego=False)
    near = Projection(5, 4, 0, torch_generator(2))
    plain, model = (
        SymcereModel(graph, text, 3, temperature=0.2, text_weight=0.7, **more)
        for more in ({}, {"averaged": averaged, "neighbourhood": near, "neighbourhood_weight": 3.0})
    )
    dense = torch.zeros(6, 6)
    for user, item, weight in ((0, 0, 2**-0.5), (0, 1, 0.5), (1, 1, 2**-0.5), (2, 2, 1.0)):
        dense[user, 3 + item] = dense[3 + item, user] = weight
    x = features @ near.weights[0].detach().T
    h = torch.nn.functional.normalize(x + dense @ x + dense @ dense @ x, dim=1)
    f = torch.cat(plain.embeddings())
    served = torch.cat(model.embeddings())
    torch.testing.assert_close(served @ served.T, (f @ f.T + 3 * h @ h.T) / 4)
    torch.testing.assert_close(served.norm(dim=1), torch.ones(6))
    user, item, negative = torch.tensor([0, 1, 2]), torch.tensor([0, 1, 2]), torch.tensor([2, 0, 1])
    terms, without = (each.terms(user, item, negative, NONE, each.tables()) for each in (model, plain))
    assert terms.keys() - without.keys() == {"neighbourhood"}
    assert all(terms[name] == without[name] for name in without)
    own = (h[user] * h[3 + item]).sum(1) / 0.2
    total = torch.exp(own) + torch.exp(h[user] @ h[3 + negative].T / 0.2).sum(1)
    torch.testing.assert_close(terms["neighbourhood"].detach(), (total.log() - own).mean())
    sum(without.values()).backward()
    assert near.weights[0].grad is None


def test_text_in_the_graph_adds_weighted_unit_profiles_to_layer_0():
    torch.manual_seed(0)
    features = torch.randn(16, 12)
    plain, mixed = small_model(features), small_model(features, text_in_graph=0.5)
    with torch.no_grad():
        profiles = plain.text()
        plain.graph.ego += 0.5 * profiles / profiles.norm(dim=1, keepdim=True)
    torch.testing.assert_close(torch.cat(mixed.embeddings()), torch.cat(plain.embeddings()))


def shuffle(text: TextFeatures) -> TextFeatures:
    draws = np.random.default_rng(0)
    return dataclasses.replace(text, user=draws.permutation(text.user), item=draws.permutation(text.item))


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(split, text, quick, model):
    again = sc.fit(split.train, text, valid=split.valid, settings=quick, seed=0)
    other = sc.fit(split.train, text, valid=split.valid, settings=quick, seed=1)
    assert again.user_emb.tobytes() == model.user_emb.tobytes()
    assert again.item_emb.tobytes() == model.item_emb.tobytes()
    assert other.user_emb.tobytes() != model.user_emb.tobytes()


def test_final_vectors_have_unit_length(model):
    np.testing.assert_allclose(np.linalg.norm(model.user_emb, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(model.item_emb, axis=1), 1, rtol=1e-5)


def test_what_is_returned_is_the_best_epoch_on_valid(split, text, quick):
    told = []
    model = sc.fit(split.train, text, valid=split.valid, settings=quick, on_epoch=told.append)
    best = max(epoch.valid_ndcg for epoch in told if epoch.valid_ndcg is not None)
    assert valid_ndcg(model, split.train, split.valid) == pytest.approx(best)
    assert [epoch.epoch for epoch in told] == list(range(1, len(told) + 1))
    assert all(0 < epoch.known_share < epoch.known_mass < 1 for epoch in told[3:])
    assert told[-1].loss < told[0].loss
    assert all(epoch.interactions_per_second * epoch.seconds > len(split.train) for epoch in told)


def test_choices_on_valid_see_the_ndcg_of_the_whole_ranking(split, model):
    for weight in (0.0, 0.7):
        dialled = model.with_popularity_weight(weight)
        whole = measure(dialled, split.train, split.valid, [sc.ndcg(10)], exclude=split.train.seen)["ndcg@10"]
        assert valid_ndcg(dialled, split.train, split.valid) == pytest.approx(mean(whole), abs=1e-12)
        assert choose_popularity_weight(model, split.train, split.valid, [weight])[1] == pytest.approx(
            mean(whole), abs=1e-12
        )


def test_training_stops_after_patience_without_a_better_epoch(split, text):
    settings = sc.SymcereSettings(dim=4, batch_size=256, max_epochs=500, valid_every=1, patience=2, learning_rate=0.3)
    told = []
    sc.fit(split.train, text, valid=split.valid, settings=settings, on_epoch=told.append)
    ndcg = [epoch.valid_ndcg for epoch in told]
    assert len(told) < 500
    assert len(told) - 1 - int(np.argmax(ndcg)) == 2


def test_the_dial_is_the_best_of_those_offered(split, model):
    offered = (0.0, 0.5, 2.0)
    chosen, ndcg = choose_popularity_weight(model, split.train, split.valid, offered)
    each = {w: valid_ndcg(model.with_popularity_weight(w), split.train, split.valid) for w in offered}
    assert ndcg == max(each.values()) == each[chosen.popularity_weight]


def test_divergence_is_a_sentence_that_names_the_term(split, text, quick):
    huge = [np.full_like(side, 3e38) for side in (text.user, text.item)]  # finite, but no longer once projected
    broken = TextFeatures(*huge, "broken", "x")
    with pytest.raises(sc.DivergedError, match="diverged in epoch 1: the term 'cross'"):
        sc.fit(split.train, broken, valid=split.valid, settings=quick.model_copy(update={"unit": False}))


def test_a_gradient_that_diverges_alone_is_named(split, text, quick, monkeypatch):
    monkeypatch.setattr(loop, "_gradients", lambda *of: _gradients(*of) | {"grad_norm": float("inf")})
    with pytest.raises(sc.DivergedError, match="diverged in epoch 1: the length of the gradient is inf"):
        sc.fit(split.train, text, valid=split.valid, settings=quick)


def test_valid_without_interactions_is_refused_before_the_first_epoch(split, text, quick):
    empty, told = dataclasses.replace(split.valid, user=split.valid.user[:0], item=split.valid.item[:0]), []
    for fit in (
        lambda: sc.fit(split.train, text, valid=empty, settings=quick, on_epoch=told.append),
        lambda: sc.fit_item_knn(split.train, valid=empty),
    ):
        with pytest.raises(sc.ConfigError, match="valid holds no interactions"):
            fit()
    assert not told


def test_profiles_that_no_sphere_holds_are_a_sentence(split, text, quick):
    broken = TextFeatures(*(np.full_like(side, 3e38) for side in (text.user, text.item)), "broken", "x")
    with pytest.raises(sc.ConfigError, match="its length is no number of 32 bits"):
        sc.fit(split.train, broken, valid=split.valid, settings=quick)


@pytest.mark.parametrize("unit", [True, False])
def test_the_length_of_a_profile_says_nothing_on_the_sphere(split, text, quick, unit):
    draws = np.random.default_rng(0)
    longer = dataclasses.replace(
        text, **{name: getattr(text, name) * draws.uniform(0.2, 5, (len(getattr(text, name)), 1)).astype(np.float32)
                 for name in ("user", "item")}
    )  # fmt: skip
    how = quick.model_copy(update={"unit": unit, "max_epochs": 2, "check_text": False})
    first, second = (sc.fit(split.train, each, valid=split.valid, settings=how, seed=0) for each in (text, longer))
    apart = np.abs(first.item_emb - second.item_emb).max() / np.abs(first.item_emb).max()
    assert apart < 1e-3 if unit else apart > 0.05


def test_text_of_another_split_is_refused(split, text):
    fewer = TextFeatures(text.user[1:], text.item, "tfidf", "x")
    with pytest.raises(sc.ConfigError, match="a row for each of"):
        sc.fit(split.train, fewer, valid=split.valid)


def test_settings_refuse_unknown_keys_and_values_out_of_range():
    with pytest.raises(sc.ConfigError, match=r"Unknown setting 'tau'. Valid: .*temperature"):
        sc.SymcereSettings(tau=0.1)
    with pytest.raises(sc.ConfigError, match=r"Setting temperature: .*greater than or equal to 0.01; found 0"):
        sc.SymcereSettings(temperature=0)
