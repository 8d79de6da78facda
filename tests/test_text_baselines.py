"""The baselines that read reviews: each loss and each pool against slow loops, each graph against dense matrices."""

import dataclasses
import math

import numpy as np
import pytest
import torch

import symcere as sc
from symcere import rng
from symcere.baselines import alpha_rec, narre, rgcl, rlmrec_con, text_only
from symcere.data.dataset import REVIEW, Dataset, HeldOut
from symcere.evaluation.compare import measure_test
from symcere.evaluation.measures import mean
from symcere.graph import norm_adj
from symcere.ids import IdMap
from symcere.losses import Known
from symcere.models.lightgcn import GraphTower
from symcere.models.projection import LeakyTextTower, TextTower
from symcere.text.features import OwnReviews, TextFeatures
from symcere.training.config import GraphSettings
from symcere.training.space import GRAPH, TEMPERATURE, Choice, Real
from symcere.training.text import review_of_pair, review_vectors
from symcere.training.tuning import valid_ndcg

NONE = Known(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
USER = np.array([0, 0, 1, 1, 2, 2, 3, 4, 4])
ITEM = np.array([0, 1, 1, 2, 2, 3, 3, 0, 4])  # 5 x 5, sorted by user and item
BATCH = torch.tensor([0, 0, 1, 2, 4]), torch.tensor([0, 1, 1, 2, 0]), torch.tensor([2, 4, 3, 0, 1])
NEW_USER, NEW_ITEM = 5, 5  # of SIX, which has a user and an item without interactions


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def numbers(*shape, seed=1):
    return torch.randn(*shape, generator=source(seed))


def cosine(x, y):
    """0 for a vector of zeros: a node that lost all its edges points nowhere."""
    return float(x @ y) / (math.sqrt(float(x @ x) * float(y @ y)) or 1)


def log_sum_exp(values):
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))


def loop_info_nce(a, c, temperature):
    """Each row of `a` picks its own among the rows of `c`, word by word."""
    total = 0.0
    for k in range(len(a)):
        s = [cosine(a[k], c[j]) / temperature for j in range(len(c))]
        total += log_sum_exp(s) - s[k]
    return total / len(a)


def loop_bpr(positive, negative):
    return sum(math.log1p(math.exp(float(n) - float(p))) for p, n in zip(positive, negative, strict=True)) / len(
        positive
    )


def loop_l2(*sides):
    return sum(float(value) ** 2 for side in sides for row in side for value in row) / (2 * len(sides[0]))


def found(model):
    return {name: float(term.detach()) for name, term in model.terms(*BATCH, NONE, model.tables()).items()}


def dense(n_users=5, n_items=5):
    """A of the graph from its definition, entry by entry."""
    a = np.zeros((n_users + n_items, n_users + n_items))
    degree = np.concatenate([np.bincount(USER, minlength=n_users), np.bincount(ITEM, minlength=n_items)])
    for u, i in zip(USER, ITEM, strict=True):
        a[u, n_users + i] = a[n_users + i, u] = 1 / math.sqrt(degree[u] * degree[n_users + i])
    return a


def dense_light_gcn(a, x, n_layers, include_ego):
    layers = [np.linalg.matrix_power(a, layer) @ x.double().numpy() for layer in range(n_layers + 1)]
    return torch.from_numpy(np.mean(layers if include_ego else layers[1:], axis=0))


def leaky(x, first, second):
    """A projection with one hidden layer, entry by entry."""
    hidden = [[float(row @ w) for w in first] for row in x]
    hidden = torch.tensor([[value if value > 0 else 0.01 * value for value in row] for row in hidden])
    return hidden @ second.T


# --- RLMRec -------------------------------------------------------------------------------------------------


def rlmrec_of(features, include_ego=False):
    graph = GraphTower(norm_adj(USER, ITEM, 5, 5), 4, 2, include_ego=include_ego, generator=source(4))
    return rlmrec_con.RLMRecCon(graph, LeakyTextTower(features, 4, 6, source(5)), 5, align_temperature=0.2)


@pytest.mark.parametrize("include_ego", [True, False])
def test_rlmrec_is_bpr_and_l2_and_the_alignment_of_each_node_with_its_own_text(include_ego):
    features = numbers(10, 7)
    model = rlmrec_of(features, include_ego)
    ego = model.graph.ego.detach()
    g = dense_light_gcn(dense(), ego, 2, include_ego)
    t = leaky(features, *(w.detach() for w in model.text.weights))
    user, item, negative = BATCH[0], BATCH[1] + 5, BATCH[2] + 5
    expected = {
        "bpr": loop_bpr((g[user] * g[item]).sum(1), (g[user] * g[negative]).sum(1)),
        "l2": loop_l2(ego[user], ego[item], ego[negative]),
        "align": sum(loop_info_nce(g[node].float(), t[node], 0.2) for node in (user, item, negative)),
    }
    assert found(model) == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(torch.cat(model.embeddings()).numpy(), g.numpy(), atol=1e-6)


def test_rlmrec_does_not_align_nodes_without_text():
    features = numbers(10, 7)
    features[0] = features[6] = 0  # user 0, item 1
    model = rlmrec_of(features)
    g, t = model.graph().detach(), model.text().detach()
    nodes = ([1, 2, 4], [5, 7, 5], [7, 9, 8, 5])  # of BATCH, those with text
    expected = sum(loop_info_nce(g[node], t[node], 0.2) for node in nodes)
    assert found(model)["align"] == pytest.approx(expected, rel=1e-4)
    assert found(rlmrec_of(features * 0))["align"] == 0


# --- AlphaRec -----------------------------------------------------------------------------------------------


def alpha_of(features, *, include_ego=True, negatives="batch", n_users=5, n_items=5, hidden=6):
    return alpha_rec.AlphaRec(
        norm_adj(USER, ITEM, n_users, n_items),
        LeakyTextTower(features, 4, hidden, source(5)),
        n_users,
        n_layers=2,
        include_ego=include_ego,
        temperature=0.2,
        negatives=negatives,
    )


@pytest.mark.parametrize("include_ego", [True, False])
@pytest.mark.parametrize("negatives", ["batch", "uniform"])
def test_alpha_rec_picks_the_item_by_cosine_of_densely_propagated_text(include_ego, negatives):
    features = numbers(10, 7)
    model = alpha_of(features, include_ego=include_ego, negatives=negatives)
    t = leaky(features, *(w.detach() for w in model.text.weights))
    f = dense_light_gcn(dense(), t, 2, include_ego)
    user, item, negative = BATCH[0].tolist(), (BATCH[1] + 5).tolist(), (BATCH[2] + 5).tolist()
    total = 0.0
    for k in range(5):
        own = cosine(f[user[k]], f[item[k]]) / 0.2
        others = item[:k] + item[k + 1 :] if negatives == "batch" else negative
        total += log_sum_exp([own, *(cosine(f[user[k]], f[j]) / 0.2 for j in others)]) - own
    expected = {"softmax": total / 5, "l2": loop_l2(t[user], t[item])}
    assert found(model) == pytest.approx(expected, rel=1e-4)
    unit = f / f.norm(dim=1, keepdim=True)
    np.testing.assert_allclose(torch.cat(model.embeddings()).numpy(), unit.numpy(), atol=1e-5)


@pytest.mark.parametrize("include_ego", [True, False])
def test_alpha_rec_ranks_nodes_without_neighbours_by_their_own_text(include_ego):
    features = numbers(12, 7)
    model = alpha_of(features, include_ego=include_ego, n_users=6, n_items=6, hidden=0)
    t = (features @ model.text.weights[0].T).detach()
    users, items = model.embeddings()
    torch.testing.assert_close(users[NEW_USER], t[NEW_USER] / t[NEW_USER].norm())
    torch.testing.assert_close(items[NEW_ITEM], t[6 + NEW_ITEM] / t[6 + NEW_ITEM].norm())


@pytest.mark.parametrize("large", [1, 131_072])  # nodes, from which on a graph is propagated over in blocks
def test_users_start_from_the_mean_of_the_told_profiles_of_their_train_items(large, monkeypatch):
    monkeypatch.setattr("symcere.graph._LARGE", large)
    features = numbers(12, 3)
    features[6 + 1] = features[6 + 3] = 0  # items 1 and 3 have no text
    found = alpha_rec.user_profiles(features, norm_adj(USER, ITEM, 6, 6), 6)
    for user in range(5):
        told = [features[6 + i] for u, i in zip(USER, ITEM, strict=True) if u == user and features[6 + i].any()]
        expected = torch.stack(told).mean(0) if told else features[user]
        torch.testing.assert_close(found[user], expected)
    assert torch.equal(found[NEW_USER], features[NEW_USER])
    assert torch.equal(found[3], features[3])  # none of the items has text
    assert torch.equal(found[6:], features[6:])


@pytest.mark.parametrize("user_text", ["items", "own"])
def test_profiles_on_the_sphere_have_no_lengths_before_they_are_averaged(split, text, user_text):
    long = 2.0 ** rng.stream(0, "lengths").integers(-3, 4, len(split.train.items))  # whole powers: no rounding
    longer = dataclasses.replace(text, item=(text.item * long[:, None]).astype(np.float32))
    for unit_profiles in (True, False):
        how = {"user_text": user_text, "unit_profiles": unit_profiles, "max_epochs": 2}
        made = [scores(fit("alpha_rec", split, each, **how)) for each in (text, longer)]
        assert (made[0] == made[1]) is unit_profiles


# --- text alone ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [0, 6])
def test_text_only_is_an_nce_in_both_directions_over_pairs_with_text(hidden):
    features = numbers(10, 7)
    features[0] = features[7] = 0  # user 0 and item 2: pairs 0, 1 and 3 of BATCH
    model = text_only.TextOnly(TextTower(features, 4, hidden, source(5)), 5, temperature=0.2)
    t = model.text().detach()
    user, item = t[[1, 4]], t[[6, 5]]
    expected = (loop_info_nce(user, item, 0.2) + loop_info_nce(item, user, 0.2)) / 2
    assert found(model) == pytest.approx({"nce": expected}, rel=1e-4)
    emb = torch.cat(model.embeddings())
    assert not emb[0].any()
    np.testing.assert_allclose(emb[[1, 4, 6]].norm(dim=1).numpy(), 1, rtol=1e-5)
    silent = text_only.TextOnly(TextTower(features * 0, 4, hidden, source(5)), 5, temperature=0.2)
    assert found(silent) == {"nce": 0}


# --- NARRE --------------------------------------------------------------------------------------------------

VECTORS = numbers(9, 7, seed=2)
VECTORS[3] = 0  # (user 1, item 2) has no text


def pool_of(node, counterpart, max_reviews=9, n_nodes=6):
    return narre.ReviewPool(
        VECTORS,
        node,
        counterpart,
        n_nodes,
        6,
        np.arange(9.0) % 4,  # recency
        max_reviews=max_reviews,
        dim=4,
        generator=source(6),
    )


@torch.no_grad()
def loop_pool(pool, node, counterpart, which, without=-1, max_reviews=9):
    """The pool of node `which`: its latest reviews with text, then without the one to leave out, weighed."""
    reviews = [r for r in range(9) if node[r] == which and VECTORS[r].any()]
    reviews = sorted(reviews, key=lambda r: -(r % 4))[:max_reviews]
    reviews = [r for r in reviews if r != without]
    if not reviews:
        return torch.zeros(4)
    o = [pool.projection @ VECTORS[r] for r in reviews]
    a = [
        math.exp(float(pool.score @ torch.relu(pool.attention @ x + pool.ids[counterpart[r]] + pool.bias)))
        for r, x in zip(reviews, o, strict=True)
    ]
    return sum(weight / sum(a) * x for weight, x in zip(a, o, strict=True)).detach()


@pytest.mark.parametrize("max_reviews", [1, 9])
@pytest.mark.parametrize(("node", "counterpart"), [(USER, ITEM), (ITEM, USER)])
def test_a_pool_is_the_attention_over_the_latest_told_reviews_of_its_node(node, counterpart, max_reviews):
    pool = pool_of(node, counterpart, max_reviews)
    pool.bias.data += 0.3
    pool.score.data *= 5  # so that reviews weigh differently
    expected = [loop_pool(pool, node, counterpart, which, max_reviews=max_reviews) for which in range(6)]
    torch.testing.assert_close(pool(torch.arange(6)).detach(), torch.stack(expected))
    assert not expected[5].any()


def test_a_pool_leaves_out_the_review_of_each_row_and_of_that_row_alone():
    pool = pool_of(USER, ITEM)
    node, without = torch.tensor([0, 0, 0, 3, 4]), torch.tensor([0, 1, -1, 6, 2])
    expected = [loop_pool(pool, USER, ITEM, n, w) for n, w in zip(node.tolist(), without.tolist(), strict=True)]
    torch.testing.assert_close(pool(node, without).detach(), torch.stack(expected))
    assert not expected[3].any()  # user 3 wrote no other review


def five_by_five():
    frame = sc.split_random(sc.k_core(sc.anchoring_world(60, 30, 5).reviews, 2)).train.review
    ids = (IdMap(tuple(f"{kind}{n}" for n in range(5)), kind) for kind in ("user", "item"))
    return Dataset(*ids, USER, ITEM, frame[:9].select(REVIEW))


def narre_of(leave_one_out):
    model = narre.NARRE(
        pool_of(USER, ITEM, n_nodes=5),
        pool_of(ITEM, USER, n_nodes=5),
        review_of_pair(five_by_five()),
        dim=4,
        dropout=0.0,
        leave_one_out=leave_one_out,
        init=source(7),
        noise=source(8),
    )
    model.weight.data += 0.2 * numbers(4)
    model.bias.data += numbers(5)
    return model


@pytest.mark.parametrize("leave_one_out", [True, False])
def test_narre_ranks_by_the_weighted_product_of_ids_and_pools_and_the_bias(leave_one_out):
    model = narre_of(leave_one_out)
    pools, q, p = (model.user_pool, model.item_pool), model.user.detach(), model.item.detach()

    @torch.no_grad()
    def score(u, i, own):
        x = q[u] + loop_pool(pools[0], USER, ITEM, u, own)
        y = p[i] + loop_pool(pools[1], ITEM, USER, i, own)
        return float((model.weight * x * y).sum() + model.bias[i])

    @torch.no_grad()
    def negative_score(u, i, own):
        x = q[u] + loop_pool(pools[0], USER, ITEM, u, own)
        y = p[i] + loop_pool(pools[1], ITEM, USER, i)
        return float((model.weight * x * y).sum() + model.bias[i])

    # pairs of BATCH that train has; the fourth is (2, 2) and the last (4, 0)
    own = [0, 1, 2, 4, 7] if leave_one_out else [-1] * 5
    user, item, negative = (side.tolist() for side in BATCH)
    expected = {
        "bpr": loop_bpr(map_list(score, user, item, own), map_list(negative_score, user, negative, own)),
        "l2": loop_l2(q[BATCH[0]], p[BATCH[1]], p[BATCH[2]]),
    }
    assert found(model) == pytest.approx(expected, rel=1e-4)
    users, items = model.embeddings()
    whole = [[score(u, i, -1) for i in range(5)] for u in range(5)]
    np.testing.assert_allclose((users @ items.T).numpy(), whole, rtol=1e-4, atol=1e-5)


def map_list(function, *sides):
    return [function(*each) for each in zip(*sides, strict=True)]


def test_dropout_drops_its_share_and_keeps_the_mean():
    model = narre_of(False)
    model.dropout = 0.4
    dropped = model._drop(torch.ones(400, 50))
    assert float((dropped == 0).float().mean()) == pytest.approx(0.4, abs=0.02)
    assert float(dropped.mean()) == pytest.approx(1, abs=0.03)


# --- RGCL ---------------------------------------------------------------------------------------------------


def rgcl_of(*, include_ego=False, dropout=0.0, leave_one_out=False):
    train = five_by_five()
    return rgcl.RGCL(
        rgcl.review_graph(train),
        VECTORS,
        5,
        review_of_pair(train),
        dim=4,
        n_layers=2,
        include_ego=include_ego,
        contrast_temperature=0.2,
        dropout=dropout,
        leave_one_out=leave_one_out,
        init=source(7),
        noise=source(8),
    )


@torch.no_grad()
def loop_rgcl(model, e, keep):
    """Every message of every edge, one at a time."""
    layer, a = model.ego.detach(), dense()
    layers = [layer] if model.include_ego else []
    for gate, matrix in zip(model.gates, model.matrices, strict=True):
        arrived = torch.zeros(10, 4)
        for edge, (u, i) in enumerate(zip(USER, ITEM + 5, strict=True)):
            for node, neighbour in ((u, i), (i, u)):
                passes = 1 / (1 + math.exp(-float(gate @ e[edge])))
                arrived[node] += keep[edge] * a[u, i] * (passes * layer[neighbour] + matrix.detach() @ e[edge])
        layer = arrived
        layers.append(layer)
    return torch.stack(layers).mean(0)


@pytest.mark.parametrize("include_ego", [True, False])
def test_rgcl_propagates_gated_neighbours_and_what_reviews_say(include_ego):
    model = rgcl_of(include_ego=include_ego, dropout=0.5)
    e = (VECTORS @ model.projection.T).detach()
    expected = loop_rgcl(model, e, np.ones(9))
    torch.testing.assert_close(torch.cat(model.embeddings()), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("leave_one_out", [True, False])
def test_rgcl_ranks_in_two_views_and_contrasts_their_nodes_and_the_reviews_of_pairs(leave_one_out):
    model = rgcl_of(dropout=0.3, leave_one_out=leave_one_out)
    e = (VECTORS @ model.projection.T).detach()
    own = [0, 1, 2, 4, 7]
    carried = e.clone()
    if leave_one_out:
        carried[own] = 0
    draws = source(8)
    views = [loop_rgcl(model, carried, (torch.rand(9, generator=draws) >= 0.3) / 0.7) for _ in range(2)]
    user, item, negative = BATCH[0], BATCH[1] + 5, BATCH[2] + 5
    ego, f = model.ego.detach(), model.feature.detach()
    expected = {
        "bpr": sum(loop_bpr((g[user] * g[item]).sum(1), (g[user] * g[negative]).sum(1)) for g in views) / 2,
        "nodes": sum(loop_info_nce(views[0][n], views[1][n], 0.2) for n in ([0, 1, 2, 4], [5, 6, 7])),
        "edges": sum(loop_info_nce((g[user] * g[item]) @ f.T, e[own], 0.2) for g in views) / 2,
        "l2": loop_l2(ego[user], ego[item], ego[negative]),
    }
    assert found(model) == pytest.approx(expected, rel=1e-4)


def test_the_gradient_of_messages_is_the_derivative():
    graph = rgcl.review_graph(five_by_five())
    x, gate, said = (numbers(*shape).double().requires_grad_() for shape in ((10, 3), (9,), (9, 3)))
    weight = numbers(9, seed=3).double()
    assert torch.autograd.gradcheck(lambda *inputs: rgcl.messages(*inputs, weight, graph), (x, gate, said))


def test_a_pair_without_text_is_not_in_edge_discrimination():
    model = rgcl_of()
    with_silent = tuple(torch.cat([side, torch.tensor([more])]) for side, more in zip(BATCH, (1, 2, 4), strict=True))
    edges = [model.terms(*batch, NONE, ())["edges"].item() for batch in (BATCH, with_silent)]
    assert edges[0] == pytest.approx(edges[1], rel=1e-5)


# --- all of them --------------------------------------------------------------------------------------------

SYSTEMS = {
    "rlmrec_con": (rlmrec_con.fit_rlmrec_con, rlmrec_con.RLMRecConSettings, rlmrec_con),
    "alpha_rec": (alpha_rec.fit_alpha_rec, alpha_rec.AlphaRecSettings, alpha_rec),
    "text_only": (text_only.fit_text_only, text_only.TextOnlySettings, text_only),
    "narre": (narre.fit_narre, narre.NARRESettings, narre),
    "rgcl": (rgcl.fit_rgcl, rgcl.RGCLSettings, rgcl),
}
CHANGES = {
    "rlmrec_con": {"w_align": 1.0, "temperature": 0.5, "projection": "linear", "n_layers": 1, "w_l2": 0.1},
    "alpha_rec": {
        "temperature": 0.1, "projection": "mlp", "user_text": "items", "unit_profiles": True, "negatives": "batch",
        "include_ego": False, "w_l2": 0.1,
    },
    "text_only": {"temperature": 0.1, "hidden": 8, "leave_one_out": True},
    "narre": {"dropout": 0.0, "max_reviews": 1, "leave_one_out": True, "w_l2": 1e-5},
    "rgcl": {
        "temperature": 0.5, "dropout": 0.6, "w_nodes": 1.0, "w_edges": 1.0, "leave_one_out": False, "w_l2": 0.1,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def told(split):
    """Features that know their reviews, by two encoders."""
    return sc.encode_reviews(split.train, sc.tfidf_encoder(32), sc.tfidf_encoder(16), leave_one_out=True)


def fit(name, split, text, seed=0, **changes):
    fit_system, settings, _ = SYSTEMS[name]
    quick = settings(**{"dim": 16, "batch_size": 256, "max_epochs": 30} | changes)
    return fit_system(split.train, text, valid=split.valid, settings=quick, seed=seed)


def scores(system):
    return system.score(np.arange(5)).tobytes()


@pytest.fixture(scope="module")
def two_epochs(split, told):
    return {name: fit(name, split, told, max_epochs=2) for name in SYSTEMS}


@pytest.mark.parametrize("name", SYSTEMS)
class TestEverySystem:
    def test_beats_popularity_in_a_world_of_words(self, split, told, name):
        popularity = sc.fit_popularity(split.train, valid=split.valid)
        seeds = {str(seed): fit(name, split, told, seed=seed) for seed in (0, 1)}  # a seed alone moves by .02
        report = sc.compare({"popularity": popularity, **seeds}, split, [sc.ndcg(10)])
        valid = [valid_ndcg(system, split.train, split.valid) for system in seeds.values()]
        assert np.mean(valid) > valid_ndcg(popularity, split.train, split.valid)
        assert np.mean([report.mean(seed, "ndcg@10") for seed in seeds]) > report.mean("popularity", "ndcg@10")

    def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(self, split, told, two_epochs, name):
        assert scores(fit(name, split, told, max_epochs=2)) == scores(two_epochs[name])
        assert scores(fit(name, split, told, seed=1, max_epochs=2)) != scores(two_epochs[name])

    def test_every_setting_reaches_the_model(self, split, told, two_epochs, name):
        for key, value in CHANGES[name].items():
            assert scores(fit(name, split, told, max_epochs=2, **{key: value})) != scores(two_epochs[name]), key

    def test_another_valid_part_changes_no_vector_of_the_same_epoch(self, split, told, two_epochs, name):
        other = HeldOut(split.valid.users, split.valid.items, split.valid.user[::2], split.valid.item[::2])
        again = fit(name, dataclasses.replace(split, valid=other), told, max_epochs=2)
        assert again.user_emb.tobytes() == two_epochs[name].user_emb.tobytes()
        assert again.item_emb.tobytes() == two_epochs[name].item_emb.tobytes()

    def test_published_settings_lie_within_the_space(self, name):
        _, settings, home = SYSTEMS[name]
        assert set(home.SPACE) <= set(settings.model_fields)
        for published in home.PUBLISHED:
            for key, place in home.SPACE.items():
                assert place.holds(getattr(published, key)), key

    def test_what_is_shared_is_searched_as_elsewhere(self, name):
        _, settings, home = SYSTEMS[name]
        shared = dict(GRAPH) if issubclass(settings, GraphSettings) else {}
        shared |= {"learning_rate": GRAPH["learning_rate"], "batch_size": GRAPH["batch_size"]}
        shared |= {"temperature": TEMPERATURE} if "temperature" in settings.model_fields else {}
        assert shared.items() <= home.SPACE.items()
        weights = [place for key, place in home.SPACE.items() if key.startswith("w_")]
        assert all(isinstance(place, Real) and place.log for place in weights)

    def test_both_ends_of_the_space_are_valid_settings(self, name):
        _, settings, home = SYSTEMS[name]
        for end in (0, -1):
            settings(
                **{
                    key: place.values[end] if isinstance(place, Choice) else (place.low, place.high)[end]
                    for key, place in home.SPACE.items()
                }
            )

    def test_text_of_another_train_part_is_refused(self, split, told, name):
        with pytest.raises(sc.ConfigError, match="a row for each of"):
            fit(name, split, dataclasses.replace(told, user=told.user[1:]))


@pytest.mark.parametrize("name", ["alpha_rec", "text_only"])
def test_cosines_have_unit_rows_and_the_temperature_of_the_softmax(two_epochs, name):
    system = two_epochs[name]
    assert system.temperature == SYSTEMS[name][1]().temperature
    np.testing.assert_allclose(np.linalg.norm(system.user_emb, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(system.item_emb, axis=1), 1, rtol=1e-5)


@pytest.fixture(scope="module")
def cold():
    """Items without train interactions, in a world that its texts tell."""
    world = sc.anchoring_world(300, 120, 6, taste=3.0)
    split = sc.split_cold_items(sc.k_core(world.reviews), seed=0)
    return split, sc.encode_reviews(split.train, sc.tfidf_encoder(64))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["alpha_rec", "text_only"])
def test_cold_items_are_ranked_by_their_text_and_not_by_that_of_others(cold, name):
    split, text = cold
    without_dial = {"popularity_weights": (0.0,)}  # a negative one would tell the cold from the warm
    ndcg = [
        mean(measure_test(fit(name, split, each, **without_dial), split, [sc.ndcg(10)])["ndcg@10"])
        for each in (text, *(text.shuffled(seed=seed) for seed in (1, 2, 3)))  # each moves by .02
    ]
    assert ndcg[0] > 0.1 > 2 * np.mean(ndcg[1:])


@pytest.mark.parametrize("name", ["narre", "rgcl"])
def test_single_reviews_need_features_that_know_them(split, text, told, name):
    with pytest.raises(sc.ConfigError, match=r"encode_reviews\(..., leave_one_out=True\)"):
        fit(name, split, text)
    own = told.own[0]
    fewer = OwnReviews(own.vectors[1:], own.user_share[1:], own.item_share[1:])
    with pytest.raises(sc.ConfigError, match=f"the {len(split.train)} reviews of train; they know"):
        fit(name, split, dataclasses.replace(told, own=(fewer,)))


def test_leave_one_out_of_text_alone_needs_features_that_know_their_reviews(split, text):
    with pytest.raises(sc.ConfigError, match="leave_one_out needs text features that know their reviews"):
        fit("text_only", split, text, leave_one_out=True)


def test_vectors_of_several_encoders_stand_side_by_side(split, told):
    vectors = review_vectors(split.train, told)
    assert vectors.shape == (len(split.train), 48)
    np.testing.assert_array_equal(vectors[:, 32:], told.own[1].vectors)


def test_divergence_is_a_sentence_that_names_the_term(split, told):
    huge = TextFeatures(*(np.full_like(side, 3e38) for side in (told.user, told.item)), "broken", "x")
    with pytest.raises(sc.ConfigError, match="diverged in epoch 1: the term 'align'"):
        fit("rlmrec_con", split, huge)
