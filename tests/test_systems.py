"""One contract for every system, and the baselines against their formulas."""

import dataclasses

import numpy as np
import pytest

import symcere as sc
from conftest import Silent
from symcere.baselines.ease import ease_weights
from symcere.baselines.item_knn import item_cosine
from symcere.baselines.item_model import co_occurrence
from symcere.evaluation.compare import measure_test
from symcere.pipeline.stages import fit_system
from symcere.pipeline.systems import baselines, cosine_at_test, ours, twins
from symcere.pipeline.workspace import Workspace
from symcere.training.config import POPULARITY_WEIGHTS
from symcere.training.space import GRAPH, TEMPERATURE, Choice, Real
from symcere.training.tuning import valid_ndcg

SYSTEMS = {system.name: system for system in [*baselines(), ours()]}
QUICK = {"dim": 16, "batch_size": 256, "max_epochs": 12, "valid_every": 3}
TUNABLE = [name for name, system in SYSTEMS.items() if system.space]
WITHOUT_TEXT = [name for name, system in SYSTEMS.items() if not system.uses_text]


LEARNED = [name for name, system in SYSTEMS.items() if hasattr(system.candidates[0], "max_epochs")]


def fit_first(system, split, text, on_epoch=lambda _: None):
    """Fit a system under the first of its settings, with few epochs."""
    settings = system.candidates[0]
    changes = {key: value for key, value in QUICK.items() if key in type(settings).model_fields}
    return system.fit(split.train, split.valid, text, settings.model_copy(update=changes), 0, on_epoch)


@pytest.fixture(scope="session")
def reviewed(split):
    """Profiles of the train part that know their reviews."""
    return sc.encode_reviews(split.train, sc.tfidf_encoder(64), leave_one_out=True)


@pytest.fixture(scope="session")
def systems(split, reviewed):
    """Every system, fitted under the first of its settings."""
    return {name: fit_first(system, split, reviewed) for name, system in SYSTEMS.items()}


@pytest.mark.parametrize("name", SYSTEMS)
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

    def test_the_same_seed_gives_the_same_scores(self, systems, split, reviewed, name):
        again = fit_first(SYSTEMS[name], split, reviewed).score(np.arange(10))
        assert again.tobytes() == systems[name].score(np.arange(10)).tobytes()


def test_every_system_beats_chance_and_symcere_those_that_read_no_text_in_its_world(systems, split):
    report = sc.compare(systems, split, [sc.ndcg(10), sc.recall(20)])
    chance = 10 / len(split.train.items) * 0.5
    assert all(report.mean(name, "ndcg@10") > chance for name in SYSTEMS)
    assert report.best("ndcg@10", among=[*WITHOUT_TEXT, "symcere"]) == "symcere"
    assert "symcere" in str(report)


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_search_may_move_every_shared_setting_that_a_system_has(name):
    system = SYSTEMS[name]
    has = set(type(system.candidates[0]).model_fields)
    assert has & {*GRAPH, "temperature"} <= set(system.space)


@pytest.mark.parametrize("name", TUNABLE)
def test_spaces_name_settings_and_hold_the_published_ones(name):
    system = SYSTEMS[name]
    kind = type(system.candidates[0])
    assert set(system.space) <= set(kind.model_fields)
    assert system.published
    for published in system.published:
        values = {key: getattr(published, key) for key in system.space}
        assert kind(**values) == published  # nothing of it lies outside the space
        for key, value in values.items():
            range_ = system.space[key]
            assert value in range_.values if isinstance(range_, Choice) else range_.low <= value <= range_.high


def test_what_systems_share_is_offered_to_all_alike():
    shared = {**GRAPH, "temperature": TEMPERATURE}
    wider = {("direct_au", "n_layers")}  # 0 is matrix factorisation, its published encoder
    for name, system in SYSTEMS.items():
        for key, range_ in system.space.items():
            if key in shared and (name, key) not in wider:
                assert range_ == shared[key], (name, key)
        if {"learning_rate"} <= set(system.space):
            assert isinstance(system.space["learning_rate"], Real)


DEFAULTS = sc.SymcereSettings()
TWINS = {
    "no_mask": {"mask": "none"},
    "same_item_mask": {"mask": "same_item"},
    "sincere": {"positives": "known"},  # the mask is the history's already
    "no_sphere": {"unit": False},
    "no_dial": {"popularity_weights": (0.0,)},
    "no_text": dict.fromkeys(
        ("text_weight", "propagated_weight", "neighbourhood_weight", "w_cross", "w_intra_text"), 0.0
    ),
    "no_cross": {"w_cross": 0.0},
    "no_intra": {"w_intra_graph": 0.0, "w_intra_text": 0.0},
    "no_bpr": {"w_bpr": 0.0},
    "same_entity": {"pairs": "same_entity"},
    "no_neighbourhood": {"neighbourhood_weight": 0.0},
    "no_propagated_text": {"propagated_weight": 0.0},
    "text_in_graph": {"w_text_in_graph": 0.5},
    "leave_one_out": {"leave_one_out": True},
    "with_ego": {"include_ego": True},
    "shuffled_text": {},
}


def changed(twin, settings):
    """What the settings of a twin change."""
    (other,) = twin.candidates
    names = type(settings).model_fields
    return {name: getattr(other, name) for name in names if getattr(other, name) != getattr(settings, name)}


def test_each_twin_changes_exactly_what_it_is_named_for():
    found = {twin.name: changed(twin, DEFAULTS) for twin in twins(ours())}
    assert found == {f"symcere:{name}": change for name, change in TWINS.items()}


def test_twins_of_settings_that_already_have_a_change_get_its_opposite():
    settings = DEFAULTS.model_copy(update={"leave_one_out": True, "include_ego": True, "w_bpr": 0.0})
    found = {twin.name.removeprefix("symcere:"): changed(twin, settings) for twin in twins(ours(settings))}
    gone, opposite = {"leave_one_out", "with_ego", "no_bpr"}, {"own_review_in", "without_ego"}
    assert found.keys() == TWINS.keys() - gone | opposite
    without = DEFAULTS.model_copy(update={"propagated_weight": 0.0, "mask": "none"})
    found_there = {twin.name: changed(twin, without) for twin in twins(ours(without))}
    assert "symcere:no_propagated_text" not in found_there
    assert found_there["symcere:propagated_text"] == {"propagated_weight": 1.0}
    assert found_there["symcere:history_mask"] == {"mask": "history"}
    assert found_there["symcere:sincere"] == {"mask": "history", "positives": "known"}  # without, nothing is known
    assert found["own_review_in"] == {"leave_one_out": False}
    assert found["without_ego"] == {"include_ego": False}
    assert found["shuffled_text"] == {"leave_one_out": False}  # the review of a pair is among the shuffled no more


def test_every_twin_can_be_fitted(split, reviewed):
    for twin in twins(ours(sc.SymcereSettings(dim=8, batch_size=256, max_epochs=1))):
        (settings,) = twin.candidates
        fitted = twin.fit(split.train, split.valid, reviewed, settings, 0, lambda _: None)
        assert np.isfinite(fitted.score(np.arange(3))).all(), twin.name


def test_the_twin_with_shuffled_text_reads_the_text_of_others(split, reviewed):
    system = ours()
    twin = next(each for each in twins(system) if each.name.endswith("shuffled_text"))
    elsewhere = fit_first(system, split, reviewed.shuffled(0))
    assert fit_first(twin, split, reviewed).user_emb.tobytes() == elsewhere.user_emb.tobytes()


def test_cosine_at_test_is_the_same_fit_on_unit_rows(split, reviewed):
    system = SYSTEMS["light_gcn"]
    control = fit_first(cosine_at_test(system), split, reviewed)
    plain = fit_first(system, split, reviewed)
    np.testing.assert_allclose(np.linalg.norm(control.item_emb, axis=1), 1, rtol=1e-5)
    length = np.linalg.norm(plain.user_emb, axis=1, keepdims=True)
    np.testing.assert_allclose(control.user_emb, plain.user_emb / length, rtol=1e-5, atol=1e-6)
    dials = [control.with_popularity_weight(weight) for weight in (0.0, 1.0)]
    assert all(
        valid_ndcg(control, split.train, split.valid) >= valid_ndcg(each, split.train, split.valid) for each in dials
    )


def test_a_system_under_other_settings_keeps_its_name_and_says_what_it_needs():
    system = ours().under(sc.SymcereSettings(leave_one_out=True))
    assert system.name == "symcere"
    assert system.needs_reviews
    assert not ours().needs_reviews
    assert SYSTEMS["rgcl"].needs_reviews
    assert set(SYSTEMS["ease"].settings) == {"best_of"}
    assert dataclasses.replace(system).settings["leave_one_out"] is True


def test_the_best_on_valid_of_several_candidates_is_taken_wherever_it_stands(split, reviewed, tmp_path):
    knn = SYSTEMS["item_knn"]
    candidates = knn.candidates[:6]
    each = [knn.fit(split.train, split.valid, reviewed, settings, 0, lambda _: None) for settings in candidates]
    on_valid = [valid_ndcg(system, split.train, split.valid) for system in each]
    best = int(np.argmax(on_valid))
    assert on_valid.count(max(on_valid)) == 1
    for turn in (0, 3):  # the best stands elsewhere
        order = [*candidates[turn:], *candidates[:turn]]
        workspace = Workspace(tmp_path / str(turn), Silent())
        values, manifest, _ = fit_system(workspace, knn.under(*order), split, ["a split"], reviewed, 0)
        assert manifest["settings"] == candidates[best].model_dump(mode="json")
        assert manifest["valid_ndcg@10"] == on_valid[best]
        assert manifest["n_candidates"] == 6
        own = measure_test(each[best], split, [sc.ndcg(10)])["ndcg@10"]
        np.testing.assert_array_equal(values["ndcg@10"], own)


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
