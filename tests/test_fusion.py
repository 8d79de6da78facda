"""How much the text counts, asked of valid."""

import dataclasses

import numpy as np
import pytest
import torch

import symcere as sc
from conftest import Silent, reviews_of
from symcere.analysis.learned import Learned
from symcere.graph import norm_adj
from symcere.pipeline.stages import Fitted, fit_system
from symcere.pipeline.systems import ours
from symcere.pipeline.workspace import Workspace
from symcere.text.features import TextFeatures
from symcere.towers import Towers
from symcere.training import fusion, loop
from symcere.training.checkpoint import checkpointing
from symcere.training.fusion import LADDERS, check_text
from symcere.training.loop import _gradients
from symcere.training.progress import Epoch
from symcere.training.tuning import OfUsers, ndcg_of_users, of_users, valid_ndcg
from test_checkpoint import killed_at, same, unlike_time
from test_learned import VARIANTS, fit

DIALS = (0.0, 0.6)


@pytest.fixture(scope="module")
def long_histories() -> sc.Split:
    """Groups of users who choose among the items of their group, and now and then any: interactions say enough."""
    rng = np.random.default_rng(0)
    pairs = {
        (f"user{user}", f"item{item}")
        for user in range(300)
        for item in (*rng.choice(np.arange(user % 6, 150, 6), 12, replace=False), *rng.integers(150, size=3))
    }
    return sc.split_random(reviews_of(sorted(pairs)), seed=0)


def noise_of(split: sc.Split, seed: int = 0) -> TextFeatures:
    rng = np.random.default_rng(seed)
    sides = (rng.standard_normal((len(ids), 32), np.float32) for ids in (split.train.users, split.train.items))
    return TextFeatures(*sides, "noise", "noise")


def scripted(monkeypatch, means, louder=None, log_ranks=None):
    """Let valid say these means, of weights counted once, then of each asked for; returns what was asked for.

    Gains over those counted once have a standard error of 0.002, but ten times that for those counted `louder` times.
    Ranks are the same for all but those whose mean log is given.
    """
    asked, noise, ranks = [], np.tile([0.01, -0.01], 50), {1: 3.0, **(log_ranks or {})}

    def joined(system, towers, parts, times):
        asked.append(times)
        return dataclasses.replace(system, temperature=times, towers=system.towers.counting_text(times))

    def of_users(other, dials, *more):
        once = other is first
        times = 1 if once else other.temperature
        ndcg = np.full(100, means.get(times, 0.0)) + noise * (-1 if once else 19 if times == louder else 1)
        log_rank = np.full(100, ranks.get(times, 3.0)) + noise * (1 if once else -1)
        worse = np.full(100, 9.0)  # a dial that nobody wants
        return OfUsers(np.stack([ndcg, ndcg - 1]), np.stack([worse, log_rank]))

    first = None

    def check(system, *more):
        nonlocal first
        first = system
        return check_text(system, *more)

    monkeypatch.setattr(fusion, "_joined", joined)
    monkeypatch.setattr(fusion, "_parts_of", lambda *more: None)
    monkeypatch.setattr(fusion, "of_users", of_users)
    return asked, check


@pytest.mark.parametrize(
    ("means", "asked", "chosen"),
    [
        ({1: 0.3, 1 / 2: 0.2, 2: 0.2}, [1 / 2, 2], 1),
        ({1: 0.3, 1 / 2: 0.4, 1 / 4: 0.5, 1 / 8: 0.4}, [1 / 2, 1 / 4, 1 / 8], 1 / 4),
        ({1: 0.3, 1 / 2: 0.4, 1 / 4: 0.5, 1 / 8: 0.6, 1 / 64: 0.7}, [*LADDERS[0]], 1 / 64),
        ({1: 0.3, 1 / 2: 0.2, 2: 0.4, 4: 0.5}, [1 / 2, 2, 4], 4),
        ({1: 0.3, 1 / 2: 0.3039, 1 / 4: 0.2}, [1 / 2, 1 / 4], 1),  # 1.95 standard errors: believed from 2 on
        ({1: 0.3, 1 / 2: 0.3041, 1 / 4: 0.2}, [1 / 2, 1 / 4], 1 / 2),
    ],
)
def test_each_ladder_is_climbed_while_valid_rises_and_clear_gains_alone_are_taken(
    model, split, text, monkeypatch, means, asked, chosen
):
    found, check = scripted(monkeypatch, means)
    best, in_the_way = check(model, split.train, text, split.valid, DIALS)
    assert found == asked if chosen != 1 or 1 / 64 in asked else found == [*asked, 1 / 64]
    assert best is model if chosen == 1 else best.temperature == chosen
    assert in_the_way == (chosen <= 1)  # ranks are the same with a 64th of it


@pytest.mark.parametrize(
    ("means", "log_ranks", "asked", "chosen"),
    [
        ({1: 0.3, 1 / 2: 0.301, 1 / 4: 0.2}, {1 / 2: 2.9939}, [1 / 2, 1 / 4], 1 / 2),
        (
            {1: 0.3, 1 / 2: 0.301, 1 / 4: 0.2},
            {1 / 2: 2.9941},
            [1 / 2, 1 / 4],
            1,
        ),  # 2.95 standard errors: believed from 3 on
        ({1: 0.3, 1 / 2: 0.301, 1 / 4: 0.2}, {1 / 2: 3.1}, [1 / 2, 1 / 4], 1),
        # ranks rise clearly all the way: the best of it by NDCG is taken, though NDCG falls in between
        (
            {1: 0.3, 1 / 2: 0.299, 1 / 4: 0.301, 1 / 8: 0.2, 1 / 64: 0.302},
            dict.fromkeys(LADDERS[0], 2.9),
            [*LADDERS[0]],
            1 / 64,
        ),
        # ranks alone decide nothing
        ({1: 0.3, **dict.fromkeys((*LADDERS[0], 2), 0.299)}, dict.fromkeys(LADDERS[0], 2.9), [*LADDERS[0], 2], 1),
        ({1: 0.3, 1 / 2: 0.2, 2: 0.301, 4: 0.2}, {2: 2.9}, [1 / 2, 2, 4], 2),
        # clear at any step of the ladder, though that step is not the one that is taken; not on the other ladder
        ({1: 0.3, 1 / 2: 0.299, 1 / 4: 0.301, 1 / 8: 0.2}, {1 / 2: 2.9}, [1 / 2, 1 / 4, 1 / 8], 1 / 4),
        ({1: 0.3, 1 / 2: 0.299, 1 / 4: 0.2, 2: 0.301, 4: 0.2}, {1 / 2: 2.9}, [1 / 2, 1 / 4, 2, 4], 1),
    ],
)
def test_ranks_over_all_items_may_make_a_direction_clear(
    model, split, text, monkeypatch, means, log_ranks, asked, chosen
):
    found, check = scripted(monkeypatch, means, log_ranks=log_ranks)
    best, _ = check(model, split.train, text, split.valid, DIALS)
    assert found == asked if chosen != 1 or 1 / 64 in asked else found == [*asked, 1 / 64]
    assert best is model if chosen == 1 else (best.temperature, best.popularity_weight) == (chosen, DIALS[0])


@pytest.mark.parametrize(
    ("mean", "least", "in_the_way"),
    [(0.2, 3.0019, True), (0.2, 3.0021, False), (0.4, 9.0, False), (0.2, 2.9, True)],  # a standard error is .002
)
@pytest.mark.parametrize("n_asked", [3, 6])
def test_text_is_in_the_way_that_ranks_would_not_miss(
    model, split, text, monkeypatch, mean, least, in_the_way, n_asked
):
    ladder = dict.fromkeys(LADDERS[0][:3], 2.9) if n_asked == 6 else {}  # climbed to its end for the ranks
    found, check = scripted(monkeypatch, {1: 0.3, 2: mean}, log_ranks={**ladder, 1 / 64: least})
    best, said = check(model, split.train, text, split.valid, DIALS)
    assert said == in_the_way
    assert found == ([*LADDERS[0]] if n_asked == 6 else [1 / 2]) + ([2.0, 4.0] if mean > 0.3 else [2.0]) + (
        [1 / 64] if n_asked == 3 and mean < 0.3 else []
    )
    assert (best is model) == (mean < 0.3)


def test_ranks_are_those_among_all_that_is_ranked(split, model):
    system = model.with_popularity_weight(0.3)
    found = of_users(system, [0.3, 2.5], split.train, split.valid)
    assert np.array_equal(found.ndcg, ndcg_of_users(system, [0.3, 2.5], split.train, split.valid))
    for dial, log_rank in zip((0.3, 2.5), found.log_rank, strict=True):
        for place, user in enumerate(np.unique(split.valid.user)):
            score = system.with_popularity_weight(dial).score(np.array([user]))[0].astype(float)
            score[split.train.item[split.train.user == user]] = -np.inf
            items = split.valid.item[split.valid.user == user]
            ranks = [1 + (score > score[item]).sum() + (score[:item] == score[item]).sum() for item in items]
            assert log_rank[place] == pytest.approx(np.mean(np.log(ranks)))


@pytest.mark.parametrize(("first", "chosen"), [(0.3041, 1 / 4), (0.3039, None)])
def test_the_best_of_a_direction_is_taken_that_is_clear_at_any_step(model, split, text, monkeypatch, first, chosen):
    _, check = scripted(monkeypatch, {1: 0.3, 1 / 2: first, 1 / 4: 0.31, 1 / 8: 0.2}, louder=1 / 4)
    best, _ = check(model, split.train, text, split.valid, DIALS)
    assert best.temperature == (chosen or model.temperature)


def test_valid_is_not_asked_where_there_is_no_text_or_no_weight_of_it(model, split, text, monkeypatch):
    asked, check = scripted(monkeypatch, dict.fromkeys((1, *LADDERS[0], *LADDERS[1]), 0.3))
    none = TextFeatures(np.zeros_like(text.user), np.zeros_like(text.item), "none", "none")
    assert check_text(model, split.train, none, split.valid, DIALS) == (model, False)
    weightless = dataclasses.replace(model, towers=model.towers.counting_text(0.0))
    assert check_text(weightless, split.train, text, split.valid, DIALS) == (weightless, False)
    unknown = dataclasses.replace(model, towers=None)
    assert check_text(unknown, split.train, text, split.valid, DIALS) == (unknown, False)
    assert not asked
    check(model, split.train, text, split.valid, DIALS)
    assert asked


def graph_of(split):
    return norm_adj(split.train.user, split.train.item, len(split.train.users), len(split.train.items))


def test_a_fit_hands_its_graph_on_and_without_one_it_is_made(split, text, quick, monkeypatch):
    made = []
    monkeypatch.setattr(fusion, "norm_adj", lambda *more: made.append(more) or norm_adj(*more))
    fitted = sc.fit(split.train, text, valid=split.valid, settings=quick)
    assert not made
    asked = []
    monkeypatch.setattr(fusion, "_joined", lambda *more: asked.append(more[2]) or more[0])
    for adj in (None, graph_of(split)):
        check_text(fitted, split.train, text, split.valid, DIALS, adj)
    assert len(made) == 1
    half = len(asked) // 2
    for one, other in zip(asked[0], asked[half], strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_steps_needed_is_dropped_before_the_text_is_checked(split, text, quick, monkeypatch):
    seen = {}

    def gradients(model, group, weights, spare):
        seen.update(model=model, spare=spare)
        return _gradients(model, group, weights, spare)

    def check(system, *more):
        model = seen["model"]
        seen["held"] = [*seen["spare"]._rooms, *(part.grad for part in model.parameters() if part.grad is not None)]
        seen["held"] += model.graph.adj.spare._rooms
        return fusion.Checked(system, in_the_way=False)

    monkeypatch.setattr(loop, "_gradients", gradients)
    monkeypatch.setattr(loop, "check_text", check)
    sc.fit(split.train, text, valid=split.valid, settings=quick.model_copy(update={"precision": "bfloat16"}))
    assert seen["held"] == []


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_counted_again_the_vectors_are_those_of_their_towers(split, text, quick, changes):
    model = fit(split, text, quick, {"check_text": False} | changes)
    parts = fusion._parts_of(model.towers, text, graph_of(split))
    once = fusion._joined(model, model.towers, parts, 1.0)
    assert np.abs(once.user_emb - model.user_emb).max() < 1e-5 * max(1, np.abs(model.user_emb).max())
    less = fusion._joined(model, model.towers, parts, 0.25)
    assert less.towers.text_times == 0.25
    for name in ("text_weight", "propagated_weight", "neighbourhood_weight"):
        assert getattr(less.towers, name) == 0.25 * getattr(model.towers, name)
    assert not np.allclose(less.item_emb, model.item_emb, atol=1e-3)
    assert (less.temperature == model.temperature) == model.towers.unit  # the spread of inner products is another
    assert Towers.of(less.towers.tensors, less.towers.about).text_times == 0.25
    Learned(split.train, text, less)  # it joins the towers by a road of its own, and refuses what is not their sum


NOISY = sc.SymcereSettings(dim=16, batch_size=256, max_epochs=8, valid_every=4)


@pytest.fixture(scope="module")
def apart(long_histories) -> tuple[sc.Recommender, list[Epoch]]:
    """A fit of which valid says that text is in the way, and what its epochs told."""
    told: list[Epoch] = []
    text = noise_of(long_histories)
    return sc.fit(long_histories.train, text, valid=long_histories.valid, settings=NOISY, on_epoch=told.append), told


def noisy(split, on_epoch=None, valid=None, draw=0, **changes):
    """The same fit under other settings, or of other noise."""
    settings, text = NOISY.model_copy(update=changes), noise_of(split, draw)
    return sc.fit(split.train, text, valid=valid or split.valid, settings=settings, on_epoch=on_epoch)


def test_where_reviews_are_noise_and_histories_long_text_counts_less(long_histories, apart):
    split = long_histories
    checked, _ = apart
    as_set = noisy(split, check_text=False)
    assert as_set.towers.text_times == 1 > checked.towers.text_times
    assert not as_set.towers.apart
    on_test = [valid_ndcg(system, split.train, split.test) for system in (as_set, checked)]
    assert on_test[1] > 1.1 * on_test[0]


@pytest.mark.slow
def test_nonsense_costs_little_of_what_ids_alone_give(long_histories):
    split = long_histories
    no_text = ("text_weight", "propagated_weight", "neighbourhood_weight", "w_cross", "w_intra_text")
    alone = noisy(split, **dict.fromkeys(no_text, 0.0))
    fits = [noisy(split, draw=draw) for draw in range(4)]  # of 300 users each moves by a tenth
    on_test = [valid_ndcg(system, split.train, split.test) for system in (alone, *fits)]
    assert np.mean(on_test[1:]) > 0.9 * on_test[0]


def test_where_text_is_in_the_way_all_is_learned_once_more_without_what_joins_both(long_histories, apart):
    found, told = apart
    n_first = sum(not epoch.again for epoch in told)
    assert 0 < n_first < len(told)
    assert [epoch.epoch for epoch in told] == list(range(1, len(told) + 1))
    assert [epoch.again for epoch in told] == sorted(epoch.again for epoch in told)
    shown = []
    other = noisy(long_histories, shown.append, w_cross=0.0)  # a setting that asks for it from the start
    assert same(found, other)
    assert found.towers.apart
    assert not other.towers.apart
    assert found.towers.text_times == other.towers.text_times < 1
    assert [epoch.terms for epoch in told[n_first:]] == [epoch.terms for epoch in shown]
    assert [epoch.best_ndcg for epoch in told[n_first:]] == [epoch.best_ndcg for epoch in shown]
    assert not any(epoch.again for epoch in shown)  # there is nothing to leave out a second time
    assert Towers.of(found.towers.tensors, found.towers.about).apart
    assert told[-1].share_of(NOISY.max_epochs) <= 1
    assert told[n_first - 1].share_of(n_first) == 1


def test_of_both_the_better_on_valid_is_taken_and_the_first_of_two_as_good(long_histories, apart, monkeypatch):
    split, asked = long_histories, []

    def the_first(systems, train, valid):
        asked.extend(systems)
        return systems[0], 0.0

    monkeypatch.setattr(loop, "choose", the_first)
    told = []
    found = noisy(split, told.append)
    first, again = asked
    assert found is first
    assert not first.towers.apart
    assert same(again, apart[0])
    assert first.towers.text_times < 1
    assert valid_ndcg(again, split.train, split.valid) > valid_ndcg(first, split.train, split.valid)
    chosen = sc.Chosen.of(found, told)
    best = max((epoch.valid_ndcg or 0.0, -epoch.epoch) for epoch in told if not epoch.again)
    assert chosen == sc.Chosen(-best[1], first.popularity_weight, first.towers.text_times, apart=False)


@pytest.mark.parametrize("confirmed", [False, True])
def test_text_that_would_not_be_missed_is_doubted_and_where_it_says_something_the_first_stays(
    split, text, quick, monkeypatch, confirmed
):
    """The second time counts only if text has to count less there: of two as good, valid would choose by chance."""
    asked = []

    def doubting(system, *more):
        asked.append(system)
        times = 0.25 if confirmed and len(asked) == 2 else 1.0
        return fusion.Checked(dataclasses.replace(system, towers=system.towers.counting_text(times)), in_the_way=True)

    monkeypatch.setattr(loop, "check_text", doubting)
    monkeypatch.setattr(loop, "choose", lambda systems, *more: (systems[-1], 0.0))  # the later is better on valid
    told = []
    found = sc.fit(split.train, text, valid=split.valid, settings=quick, on_epoch=told.append)
    assert [system.towers.apart for system in asked] == [False, True]
    assert any(epoch.again for epoch in told)
    assert found.towers.apart == confirmed
    assert same(found, asked[confirmed])
    assert sc.Chosen.of(found, told).apart == confirmed


@pytest.mark.slow
def test_text_that_is_in_the_graph_cannot_be_left_out_a_second_time(long_histories):
    told = []
    found = noisy(long_histories, told.append, w_text_in_graph=0.5)
    assert found.towers.text_times < 1
    assert not found.towers.apart
    assert not any(epoch.again for epoch in told)


@pytest.mark.slow
def test_where_the_second_time_diverges_the_first_stays(long_histories, monkeypatch, tmp_path):
    def diverging(model, group, weights, spare):
        step = _gradients(model, group, weights, spare)
        return step if weights["cross"] else step | {"intra_graph": float("nan")}

    monkeypatch.setattr(loop, "_gradients", diverging)
    told = []
    with checkpointing(tmp_path, every=0):
        found = noisy(long_histories, told.append)
    assert not found.towers.apart
    assert found.towers.text_times < 1
    assert not any(epoch.again for epoch in told)
    assert not list(tmp_path.iterdir())
    with pytest.raises(sc.DivergedError, match="intra_graph"):
        noisy(long_histories, w_cross=0.0)


def test_what_was_learned_apart_is_learned_so_from_everything_too(long_histories, apart):
    found, told = apart
    n_first = sum(not epoch.again for epoch in told)
    best = max((epoch.valid_ndcg or 0.0, -epoch.epoch) for epoch in told if epoch.again)
    chosen = sc.Chosen.of(found, told)
    assert chosen == sc.Chosen(-best[1] - n_first, found.popularity_weight, found.towers.text_times, apart=True)
    shown = []
    once_more = noisy(long_histories, shown.append, chosen)  # nothing held out, and else the same
    assert once_more.towers.apart
    assert len(shown) == chosen.epochs
    np.testing.assert_array_equal(once_more.user_emb, found.user_emb)
    np.testing.assert_array_equal(once_more.item_emb, found.item_emb)


@pytest.mark.parametrize("step", [5, 150])
def test_killed_the_first_or_the_second_time_it_goes_on_to_the_same_bytes(long_histories, apart, tmp_path, step):
    found, told = apart
    with killed_at(step, tmp_path):
        noisy(long_histories, lambda epoch: None)  # who is told is told of the mask too
    (file,) = tmp_path.iterdir()
    is_second = torch.load(file, weights_only=True)["first"] is not None
    assert is_second == (step == 150)
    shown = []
    with checkpointing(tmp_path):
        resumed = noisy(long_histories, shown.append)
    assert same(resumed, found)
    assert resumed.towers.about == found.towers.about
    assert list(map(unlike_time, shown)) == list(map(unlike_time, told))
    assert not list(tmp_path.iterdir())


def test_a_stage_and_the_settings_of_a_page_tell_how_text_was_counted(long_histories, apart, tmp_path):
    text, watch = noise_of(long_histories), Silent()
    _, detail, _ = fit_system(Workspace(tmp_path, watch), ours(NOISY), long_histories, ["key"], text, 0)
    assert (detail["text_times"], detail["apart"]) == (apart[0].towers.text_times, True)
    note = (
        f"all text counted {detail['text_times']:g} times: valid is clearly better so, graph and text learned apart"
    )
    assert note in watch.said[-1][1]
    as_set = detail | {"text_times": 1.0, "apart": False}

    def settings(*details):
        fitted = Fitted([(long_histories, {"symcere": {}})], {"symcere": list(details)}, {}, text, [])
        return fitted.settings["symcere"]

    told = {"text_times": [1.0, detail["text_times"]], "apart": [False, True]}
    assert settings(as_set, detail) == detail["settings"] | told
    assert settings(as_set, as_set) == detail["settings"]


def test_where_words_tell_tastes_the_weights_stay_and_so_does_every_bit(split, text, quick):
    kept = quick.model_copy(update={"check_text": False})
    checked, as_set = (sc.fit(split.train, text, valid=split.valid, settings=how) for how in (quick, kept))
    assert checked.towers.text_times == 1
    assert same(checked, as_set)


def test_who_has_no_interactions_is_still_told_apart_by_text(model, split, text):
    parts = fusion._parts_of(model.towers, text, graph_of(split))
    cold = parts._replace(graph=np.zeros_like(parts.graph))
    least = fusion._joined(model, model.towers, cold, LADDERS[0][-1])
    assert np.linalg.norm(least.item_emb, axis=1).min() > 0.99


def test_ndcg_of_users_is_a_row_a_dial_and_valids_mean(model, split):
    values = ndcg_of_users(model, DIALS, split.train, split.valid)
    assert values.shape == (2, len(np.unique(split.valid.user)))
    for dial, row in zip(DIALS, values, strict=True):
        own = valid_ndcg(model.with_popularity_weight(dial), split.train, split.valid)
        assert row.mean() == pytest.approx(own)


def test_a_fit_killed_while_the_text_is_checked_loses_no_step(split, text, quick, tmp_path, monkeypatch):
    def killed(*more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, checkpointing(tmp_path, every=0):
        patch.setattr("symcere.training.loop.check_text", killed)
        with pytest.raises(KeyboardInterrupt):
            sc.fit(split.train, text, valid=split.valid, settings=quick)
    assert list(tmp_path.iterdir())
    with checkpointing(tmp_path):
        resumed = sc.fit(split.train, text, valid=split.valid, settings=quick)
    assert same(resumed, sc.fit(split.train, text, valid=split.valid, settings=quick))
    assert not list(tmp_path.iterdir())
