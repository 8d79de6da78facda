"""Every system that can be run, tuned and compared: one contract, its space, its published settings; the twins."""

import dataclasses

import numpy as np
import pytest

import symcere as sc
from symcere.pipeline.systems import baselines, cosine_at_test, ours, twins
from symcere.training.space import GRAPH, TEMPERATURE, Choice, Real
from symcere.training.tuning import valid_ndcg

SYSTEMS = {system.name: system for system in [*baselines(), ours()]}
TUNABLE = [name for name, system in SYSTEMS.items() if system.space]
FEW = {"dim": 8, "max_epochs": 4, "valid_every": 2, "batch_size": 256}


@pytest.fixture(scope="module")
def reviewed(split):
    """Features that know their reviews."""
    return sc.encode_reviews(split.train, sc.tfidf_encoder(32), leave_one_out=True)


def quick(system):
    """The system's first candidate, with few epochs."""
    settings = system.candidates[0]
    return system.under(
        settings.model_copy(update={key: value for key, value in FEW.items() if hasattr(settings, key)})
    )


def fitted(system, split, text):
    return system.fit(split.train, split.valid, text, system.candidates[0], 0, lambda _: None)


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_scores_hides_what_was_seen_and_repeats_itself(name, split, reviewed):
    system = quick(SYSTEMS[name])
    first = fitted(system, split, reviewed)
    scores = first.score(np.arange(12))
    assert scores.shape == (12, len(split.train.items))
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
    np.testing.assert_allclose(first.score(np.array([5])), scores[5:6], rtol=1e-5, atol=1e-5)
    known = split.train.matrix + split.valid.matrix
    for user in range(3):
        items = [split.train.items.index(item) for item, _ in first.recommend(split.train.users.id(user), 10)]
        assert not known[[user], :].toarray()[0, items].any()
    assert fitted(system, split, reviewed).score(np.arange(12)).tobytes() == scores.tobytes()


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


def test_each_twin_differs_in_what_its_name_says_and_fits(split, reviewed):
    system = quick(ours())
    (base,) = system.candidates
    made = {twin.name: twin for twin in twins(system)}
    assert len(made) == 14  # of leave_one_out and its opposite, and of layer 0 in and out, one each
    changed = {}
    for name, twin in made.items():
        (settings,) = twin.candidates
        changed[name] = {key for key in type(base).model_fields if getattr(settings, key) != getattr(base, key)}
        assert np.isfinite(fitted(twin, split, reviewed).score(np.arange(3))).all()
    assert changed["symcere:no_mask"] == {"mask"}
    assert changed["symcere:no_text"] == {"text_weight", "w_cross", "w_intra_text"}
    assert changed["symcere:no_intra"] == {"w_intra_graph", "w_intra_text"}
    assert changed["symcere:shuffled_text"] == set()
    assert all(changed[name] for name in made if name != "symcere:shuffled_text")


def test_the_twin_with_shuffled_text_reads_the_text_of_others(split, reviewed):
    system = quick(ours())
    twin = next(each for each in twins(system) if each.name.endswith("shuffled_text"))
    elsewhere = fitted(system, split, reviewed.shuffled(0))
    assert fitted(twin, split, reviewed).user_emb.tobytes() == elsewhere.user_emb.tobytes()


def test_cosine_at_test_is_the_same_fit_on_unit_rows(split, reviewed):
    system = quick(SYSTEMS["light_gcn"])
    control = fitted(cosine_at_test(system), split, reviewed)
    plain = fitted(system, split, reviewed)
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
