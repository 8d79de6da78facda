"""One contract for every system, and the baselines against their formulas."""

import numpy as np
import pytest

import symcere as sc
from symcere.baselines.ease import ease_weights
from symcere.baselines.item_knn import item_cosine
from symcere.baselines.item_model import co_occurrence
from symcere.training.config import POPULARITY_WEIGHTS
from symcere.training.tuning import valid_ndcg


@pytest.fixture(scope="session")
def fitters(text, quick):
    light = sc.LightGCNSettings(dim=16, batch_size=256, max_epochs=9)
    return {
        "popularity": lambda split: sc.fit_popularity(split.train, valid=split.valid),
        "item_knn": lambda split: sc.fit_item_knn(split.train, valid=split.valid),
        "ease": lambda split: sc.fit_ease(split.train, valid=split.valid),
        "light_gcn": lambda split: sc.fit_light_gcn(split.train, valid=split.valid, settings=[light]),
        "symcere": lambda split: sc.fit(split.train, text, valid=split.valid, settings=quick),
    }


@pytest.fixture(scope="session")
def systems(fitters, split):
    return {name: fit(split) for name, fit in fitters.items()}


NAMES = ["popularity", "item_knn", "ease", "light_gcn", "symcere"]


@pytest.mark.parametrize("name", NAMES)
class TestEverySystem:
    def test_scores_are_finite_float32_for_every_pair(self, systems, split, name):
        scores = systems[name].score(np.arange(len(split.train.users)))
        assert scores.shape == (len(split.train.users), len(split.train.items))
        assert scores.dtype == np.float32
        assert np.isfinite(scores).all()

    def test_a_batch_of_users_scores_as_single_users_do(self, systems, name):
        users = np.array([4, 2, 7])
        batch = systems[name].score(users)
        single = np.concatenate([systems[name].score(users[i : i + 1]) for i in range(3)])
        np.testing.assert_allclose(batch, single, rtol=1e-5, atol=1e-5)

    def test_seen_items_are_not_recommended_and_scores_descend(self, systems, split, name):
        known = split.train.matrix + split.valid.matrix
        for user in range(20):
            rows = systems[name].recommend(split.train.users.id(user), 10)
            items = [split.train.items.index(item) for item, _ in rows]
            assert len(set(items)) == 10
            assert not known[[user], :].toarray()[0, items].any()
            assert [score for _, score in rows] == sorted((score for _, score in rows), reverse=True)

    def test_asking_for_more_than_there_is_gives_what_there_is(self, systems, split, name):
        user_id = split.train.users.id(0)
        n_known = (split.train.matrix + split.valid.matrix)[[0], :].nnz
        assert len(systems[name].recommend(user_id, 10_000)) == len(split.train.items) - n_known

    def test_unknown_users_and_bad_k_are_sentences(self, systems, name):
        with pytest.raises(sc.UnknownIdError, match=r"Unknown user id 'user0000x' among 150. Closest: user"):
            systems[name].recommend("user0000x")
        with pytest.raises(sc.ConfigError, match="at least 1"):
            systems[name].recommend("user00001", 0)

    def test_the_same_seed_gives_the_same_scores(self, fitters, systems, split, name):
        again = fitters[name](split).score(np.arange(10))
        assert again.tobytes() == systems[name].score(np.arange(10)).tobytes()


def test_every_system_beats_chance_and_symcere_beats_them_all_in_its_world(systems, split):
    report = sc.compare(systems, split, [sc.ndcg(10), sc.recall(20)])
    chance = 10 / len(split.train.items) * 0.5
    assert all(report.mean(name, "ndcg@10") > chance for name in NAMES)
    assert report.best("ndcg@10", among=NAMES) == "symcere"
    assert "symcere" in str(report)


def test_ease_solves_its_normal_equations(split):
    """The optimum of |R - R B|^2 + l2 |B|^2 with zero diagonal: the gradient vanishes off the diagonal."""
    r, l2 = split.train.matrix.toarray().astype(float), 7.0
    b = ease_weights(co_occurrence(split.train), l2).astype(float)
    gradient = r.T @ (r @ b - r) + l2 * b
    off = ~np.eye(len(b), dtype=bool)
    np.testing.assert_allclose(gradient[off], 0, atol=1e-3)
    assert not b.diagonal().any()


def test_item_cosine_equals_its_loop(split):
    r = split.train.matrix.toarray()
    found = item_cosine(co_occurrence(split.train), neighbours=5, shrink=2.0)
    for j in range(10):
        full = np.zeros(r.shape[1])
        for i in range(r.shape[1]):
            if i != j:
                full[i] = (r[:, i] * r[:, j]).sum() / (np.sqrt(r[:, i].sum() * r[:, j].sum()) + 2.0)
        least = np.sort(full)[-5]
        np.testing.assert_allclose(found[:, j], np.where(full >= least, full, 0), rtol=1e-5)


def test_baselines_take_the_best_of_their_settings_on_valid(split):
    both = sc.fit_ease(split.train, valid=split.valid, l2=(1.0, 100.0))
    each = [sc.fit_ease(split.train, valid=split.valid, l2=(l2,)) for l2 in (1.0, 100.0)]
    on_valid = [valid_ndcg(system, split.train, split.valid) for system in each]
    assert on_valid[0] != on_valid[1]
    assert valid_ndcg(both, split.train, split.valid) == max(on_valid)


def test_baselines_are_offered_every_dial(split):
    system = sc.fit_ease(split.train, valid=split.valid, l2=(30.0,))
    each = [valid_ndcg(system.with_popularity_weight(w), split.train, split.valid) for w in POPULARITY_WEIGHTS]
    assert valid_ndcg(system, split.train, split.valid) == max(each)


def test_the_unit_of_a_baseline_is_the_spread_of_its_affinities(systems, split):
    for name in ("item_knn", "ease", "light_gcn"):
        affinity = systems[name].affinity(np.arange(len(split.train.users)))
        assert systems[name].temperature == pytest.approx(float(affinity.std()), rel=1e-5)


def test_a_catalogue_too_large_for_dense_weights_is_refused(split, monkeypatch):
    monkeypatch.setattr("symcere.baselines.item_model.MAX_ITEMS", 10)
    with pytest.raises(sc.ConfigError, match="at most 10 items"):
        sc.fit_ease(split.train, valid=split.valid)
