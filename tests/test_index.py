"""The index: what is found by a look at few bits is what comparing all scores finds."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symcere.index import eight_bits, four_bits
from symcere.index.four_bits import FourBits
from symcere.index.search import ApproximateIndex, Index

NOTHING = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)


def _world(n_items, dim, n_tastes, seed, spread=0.0):
    draws = np.random.default_rng(seed)
    emb = draws.normal(size=(n_items, dim)) * np.exp(spread * draws.normal(size=(n_items, 1)))
    tastes = draws.normal(size=(n_tastes, dim)) * np.exp(spread * draws.normal(size=(n_tastes, 1)))
    offset = np.log1p(draws.zipf(1.5, n_items) % 10_000)
    return Index(emb.astype(np.float32), offset.astype(np.float32)), tastes.astype(np.float32)


def _exact(index, tastes, dial, k, hidden):
    """Every score in double precision, sorted."""
    scores = tastes.astype(np.float64) @ index.emb.T.astype(np.float64) + dial * index.offset.astype(np.float64)
    scores[hidden] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1)


def _hidden(n_tastes, n_items, each, seed):
    item = np.random.default_rng(seed).integers(0, n_items, (n_tastes, each))
    return np.repeat(np.arange(n_tastes), each), item.ravel()


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    n_items=st.integers(300, 3_000),
    dim=st.integers(1, 70),
    n_tastes=st.integers(1, 40),
    k=st.integers(1, 20),
    dial=st.sampled_from([0.0, 0.3, -1.0, 50.0, 1e6]),
    spread=st.sampled_from([0.0, 1.0]),
    block=st.sampled_from([100, 257, 10_000]),
)
def test_a_look_at_eight_bits_loses_none_of_the_best(seed, n_items, dim, n_tastes, k, dial, spread, block):
    index, tastes = _world(n_items, dim, n_tastes, seed, spread)
    hidden = _hidden(n_tastes, n_items, 15, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eight_bits, "BLOCK", block)
        item, score = index._screened(tastes, np.float32(dial), k, hidden)
    expected = _exact(index, tastes, dial, k, hidden)
    np.testing.assert_allclose(score, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    there = set(zip(*hidden, strict=True))
    for row in range(n_tastes):
        assert len(set(item[row].tolist())) == k
        assert not there & {(row, each) for each in item[row].tolist()}


def test_the_bound_is_needed():
    """Without it, items would be lost: what the look alone finds best is not what is best."""
    index, tastes = _world(3_000, 32, 40, 0)
    found = [index._screened(tastes, np.float32(0), 10, NOTHING)[0]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eight_bits.EightBits, "_slack", lambda self, tastes, *_: np.zeros(len(tastes), dtype=np.int32))
        found.append(index._screened(tastes, np.float32(0), 10, NOTHING)[0])
    assert (found[0] != found[1]).any()


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    n_items=st.integers(2_000, 5_000),
    dim=st.integers(1, 70),
    dial=st.sampled_from([0.0, 0.3, -1.0, 50.0, 1e6]),
    spread=st.sampled_from([0.0, 1.0]),
    shift=st.sampled_from([0.0, 5.0]),
)
def test_no_item_is_better_than_a_look_at_four_bits_says(seed, n_items, dim, dial, spread, shift):
    index, tastes = _world(n_items, dim, 10, seed, spread)
    emb = index.emb + np.float32(shift)
    codes = FourBits.of(emb, index.offset)
    codes._wanted = 100
    for taste in tastes:
        item, rest = codes.look(taste, dial, 5, 0)
        assert len(set(item.tolist())) == 100
        scores = emb.astype(np.float64) @ taste.astype(np.float64) + dial * index.offset.astype(np.float64)
        assert np.delete(scores, item).max() <= rest


def _broken(index, tastes):
    """How often an item is better than a look says."""
    codes, wrong = FourBits.of(index.emb, index.offset), 0
    for taste in tastes:
        codes._wanted = 20
        item, rest = codes.look(taste, 0.0, 5, 0)
        wrong += bool(np.delete(index.emb @ taste, item).max() > rest)
    return wrong


def test_what_items_are_rounded_by_is_needed(monkeypatch):
    index, tastes = _world(5_000, 32, 40, 0)
    assert _broken(index, tastes) == 0
    rounded = four_bits._rounded
    monkeypatch.setattr(four_bits, "_rounded", lambda *of: (rounded(*of)[0], np.zeros(len(of[0]), np.float32)))
    assert _broken(index, tastes)


def test_what_sums_are_rounded_by_is_needed(monkeypatch):
    index, tastes = _world(5_000, 32, 40, 0)
    monkeypatch.setattr(four_bits, "_spread", lambda sample: (np.zeros(32, np.float32), np.ones(32, np.float32)))
    levels = four_bits._LEVEL[np.random.default_rng(1).integers(0, 16, (5_000, 32))]  # nothing is lost of these
    index = Index(levels, index.offset)
    assert _broken(index, tastes) == 0
    monkeypatch.setattr(four_bits, "_ROUNDED", 0.0)
    assert _broken(index, tastes)


def test_a_taste_of_many_items_by_four_bits_again_and_not_at_all(monkeypatch):
    index, tastes = _world(70_000, 16, 7, 6)
    hidden = _hidden(7, 70_000, 30, 6)
    expected = index._screened(tastes, np.float32(0.2), 12, hidden)
    looks = []
    look = FourBits.look

    def watched(codes, taste, dial, k, n_hidden, times):
        found = look(codes, taste, dial, k, n_hidden, times)
        looks.append((times, found is not None))
        return found

    monkeypatch.setattr(FourBits, "look", watched)
    for wanted, seen in ((0, {(1, True)}), (40, {(1, True), (4, True)}), (10**6, {(1, False)})):
        looks.clear()
        index._four_bits._wanted = wanted
        item, score = index.best(tastes, 0.2, 12, hidden)
        np.testing.assert_array_equal(item, expected[0])
        np.testing.assert_allclose(score, expected[1], rtol=1e-5)
        assert seen <= set(looks)
    many = index.best(tastes[:1], 0.2, 20_000, NOTHING)  # so many that comparing all is less
    np.testing.assert_array_equal(many[0], index._compared(tastes[:1], np.float32(0.2), 20_000, NOTHING)[0])
    monkeypatch.setattr(FourBits, "of", lambda *_: None)  # where an item has too many entries
    item, _ = Index(index.emb, index.offset).best(tastes, 0.2, 12, hidden)
    np.testing.assert_array_equal(item, expected[0])


def test_items_of_many_entries_have_no_four_bits():
    index, _ = _world(300, 251, 1, 7)
    assert FourBits.of(index.emb, index.offset) is None
    assert FourBits.of(index.emb[:, :250], index.offset) is not None


def test_looks_grow_where_they_are_not_enough_and_are_spared_where_they_never_are():
    index, tastes = _world(40_000, 8, 1, 8)
    codes = FourBits.of(index.emb, index.offset)
    found, _ = codes.look(tastes[0], 0.0, 5, 0)
    codes.learn(enough=False)
    longer, _ = codes.look(tastes[0], 0.0, 5, 0)
    assert len(longer) > 1.3 * len(found)
    for _ in range(100):
        codes.learn(enough=True)
    assert len(codes.look(tastes[0], 0.0, 5, 0)[0]) < len(longer)
    while codes.look(tastes[0], 0.0, 5, 0):
        codes.learn(enough=False)
    spared = 1
    while not codes.look(tastes[0], 0.0, 5, 0):
        spared += 1
    assert spared == four_bits._SPARED


def test_both_roads_give_the_same_list_and_equal_scores_stand_by_item():
    index, tastes = _world(4_000, 16, 20, 1)
    emb, offset, tastes = (np.round(8 * values) / 8 for values in (index.emb, index.offset, tastes))  # sums are exact
    twice = Index(np.concatenate([emb, emb]), np.concatenate([offset, offset]))
    hidden = _hidden(20, 8_000, 30, 1)
    screened, compared = (find(tastes, np.float32(0.25), 12, hidden) for find in (twice._screened, twice._compared))
    np.testing.assert_array_equal(screened[0], compared[0])
    np.testing.assert_array_equal(screened[1], compared[1])


@pytest.mark.parametrize("n_items", [50, 5_000, 40_000])
@pytest.mark.parametrize("n_tastes", [1, 100])
def test_few_items_left_and_threads(n_items, n_tastes):
    index, tastes = _world(n_items, 8, n_tastes, 2)
    left = np.array([3, 17, 40])
    rest = np.setdiff1d(np.arange(n_items), left)
    hidden = np.zeros(len(rest), dtype=np.int64), rest  # of the first taste, all but three
    item, score = index.best(tastes, 0.5, 10, hidden)
    assert set(item[0].tolist()) == {*left.tolist(), -1}
    assert np.isneginf(score[0, 3:]).all()
    expected = _exact(index, tastes, 0.5, 10, hidden)
    np.testing.assert_allclose(score[1:], expected[1:], rtol=1e-4, atol=1e-4)
    again = index.best(tastes, 0.5, 10, hidden, n_threads=3)
    np.testing.assert_array_equal(again[0], item)
    best, value = index.best_among(tastes[0], 0.5, 10, left)
    np.testing.assert_array_equal(best, item[0, :3])
    np.testing.assert_allclose(value, score[0, :3], rtol=1e-5)
    assert len(index.best_among(tastes[0], 0.5, 10, left[:0])[0]) == 0


def test_nobody_gets_what_the_dial_says():
    index, _ = _world(40_000, 8, 1, 3)
    item, score = index.best(np.zeros((1, 8), dtype=np.float32), 1.0, 5, NOTHING)
    np.testing.assert_array_equal(item[0], np.argsort(-index.offset, kind="stable")[:5])
    np.testing.assert_array_equal(score[0], np.sort(index.offset)[::-1][:5])
    item, _ = index.best(np.zeros((1, 8), dtype=np.float32), 0.0, 5, NOTHING)
    np.testing.assert_array_equal(item[0], np.arange(5))


@pytest.mark.parametrize("last", [0, 5_000])
def test_of_items_most_of_which_are_alike_the_best_are_found(last):
    """Items whose sum of four bits is the least of all are not looked at: that few are found proves nothing."""
    emb, offset = np.zeros((70_000, 8), dtype=np.float32), np.zeros(70_000, dtype=np.float32)
    some = np.random.default_rng(1).choice(70_000, 400, replace=False)
    emb[some, 0], offset[some] = np.linspace(0.1, 1, 400), np.arange(400)
    offset[-1] = last
    index = Index(emb, offset)
    for taste, dial in ((0.0, 1.0), (1.0, 0.0), (0.0, 0.0)):
        tastes = np.full((1, 8), taste, dtype=np.float32)
        item, score = index.best(tastes, dial, 5, NOTHING)
        exact = tastes[0] @ emb.T + dial * offset
        np.testing.assert_array_equal(item[0], np.argsort(-exact, kind="stable")[:5])
        np.testing.assert_allclose(score[0], exact[item[0]], rtol=1e-6)


def test_links_find_nearly_all_of_the_best_and_nothing_that_is_hidden():
    draws = np.random.default_rng(4)
    centres = draws.normal(size=(60, 16))
    emb = centres[draws.integers(0, 60, 5_000)] + 0.3 * draws.normal(size=(5_000, 16))
    emb = (emb / np.linalg.norm(emb, axis=1, keepdims=True)).astype(np.float32)
    offset = np.log1p(draws.zipf(1.6, 5_000) % 1_000).astype(np.float32)
    exact, linked = Index(emb, offset), ApproximateIndex(emb, offset, 0.06)
    linked.prepare()
    for dial in (0.0, 0.3):
        found = []
        for number, taste in enumerate(5 * emb[:200]):
            hidden = _hidden(1, 5_000, 20, number)
            (best,), (score,) = exact.best(taste[None], dial, 10, hidden)
            (near,), (value,) = linked.best(taste[None], dial, 10, hidden)
            found.append(np.isin(best, near).mean())
            assert not np.isin(near, hidden[1]).any()
            same = np.isin(near, best)
            np.testing.assert_allclose(value[same], score[np.isin(best, near)], rtol=1e-5)
        assert np.mean(found) > 0.97
    many = _hidden(1, 5_000, 400, 0)  # too many to look past: exactly
    np.testing.assert_array_equal(linked.best(emb[:1], 0.3, 10, many)[0], exact.best(emb[:1], 0.3, 10, many)[0])
    np.testing.assert_array_equal(linked.best(emb[:9], 0.3, 10, NOTHING)[0], exact.best(emb[:9], 0.3, 10, NOTHING)[0])


def test_an_index_that_has_searched_can_be_sent_to_another_process():
    index, tastes = _world(40_000, 8, 2, 5)
    found = index.best(tastes, 0.3, 5, NOTHING)
    sent = pickle.loads(pickle.dumps(index))
    np.testing.assert_array_equal(sent.best(tastes, 0.3, 5, NOTHING)[0], found[0])
