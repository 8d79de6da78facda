"""A fit opened up: its parts are the vectors that are served, and reasons are what the score does."""

import dataclasses

import numpy as np
import pytest
from tests.test_deletion import blanked

import symcere as sc
from symcere.analysis import why
from symcere.analysis.learned import Learned
from symcere.analysis.why import Explainer
from symcere.text.reader import Reader
from symcere.towers import Towers

VARIANTS = {
    "defaults": {},
    "two towers": {"neighbourhood_weight": 0.0, "propagated_weight": 0.0},
    "three towers alone": {"propagated_weight": 0.0},
    "two towers and the neighbours' text": {"neighbourhood_weight": 0.0},
    "no sphere": {"unit": False},
    "three times the neighbours' text, and layer 0": {"propagated_weight": 3.0, "include_ego": True},
    "text in the graph, hidden layer": {"w_text_in_graph": 0.5, "hidden": 8, "n_layers": 3},
}


def fit(split, text, quick, changes):
    settings = quick.model_copy(update={"max_epochs": 3, **changes})
    return sc.fit(split.train, text, valid=split.valid, settings=settings, seed=1)


def explainer_of(split, text, model):
    learned = Learned(split.train, text, model)
    return Explainer(learned, Reader.of(split.train, text, [sc.tfidf_encoder(64)]))


def dense_adj(train, n_users, n):
    adj = np.zeros((n, n))
    adj[train.user, train.item + n_users] = 1
    adj += adj.T
    degree = np.maximum(adj.sum(1), 1)
    return adj / np.sqrt(degree[:, None] * degree)


@pytest.fixture(scope="module")
def explainer(split, text, model):
    return explainer_of(split, text, model)


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_the_parts_sum_to_the_vectors_that_are_served(split, text, quick, changes, tmp_path):
    model = fit(split, text, quick, changes)
    learned = Learned(split.train, text, model)
    served = np.concatenate([model.user_emb, model.item_emb])
    assert np.abs(sum(learned.parts) - served).max() < 1e-5
    model.save(tmp_path / "model")
    again = Learned(split.train, text, sc.Recommender.load(tmp_path / "model"))
    assert np.array_equal(again.graph, learned.graph)
    assert again.towers.about == learned.towers.about
    node = len(split.train.users) + 3
    assert np.abs(learned.with_features(node, learned.features[node][None]) - served[node]).max() < 1e-5


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_what_a_node_hears_is_what_its_neighbours_send(split, text, quick, changes):
    learned = Learned(split.train, text, fit(split, text, quick, changes))
    n = len(learned.graph)
    adj = dense_adj(split.train, learned.n_users, n)
    towers = learned.towers
    ego = towers.layer0 if towers.include_ego else 0
    expected = (adj @ learned.sent + ego) / (towers.n_layers + towers.include_ego)
    assert np.abs(expected - learned.graph).max() < 1e-5
    near = (adj @ learned.near_sent + learned.near_texts) / learned.n_averaged
    assert near.shape == learned.near.shape == (n, towers.dim if towers.neighbourhood_weight else 0)
    assert np.abs(near - learned.near).max(initial=0) < 1e-5
    told_by_others = (adj @ learned.near_sent)[7] / learned.n_averaged
    assert np.abs(learned.beside(7)[towers.dim :] - told_by_others).max(initial=0) < 1e-5


def test_a_recommender_of_another_fit_or_without_towers_is_refused(split, text, model):
    with pytest.raises(sc.ConfigError, match="not of one fit"):
        Learned(split.train, text.shuffled(0), model)
    with pytest.raises(sc.ConfigError, match="what its vectors are made of"):
        Learned(split.train, text, dataclasses.replace(model, towers=None))


def test_towers_survive_a_file():
    matrices = tuple(np.full((1, 1), n, np.float32) for n in range(12))
    near = np.full((2, 5), 3, np.float32)
    towers = Towers(np.ones((3, 2), np.float32), matrices, 1, True, 0.5, 0.0, True, near, 0.5)
    again = Towers.of(towers.tensors, towers.about)
    assert [float(weight[0, 0]) for weight in again.projection] == list(range(12))
    assert again.about == towers.about
    assert np.array_equal(again.neighbourhood, towers.neighbourhood)
    before = {name: value for name, value in towers.about.items() if name != "neighbourhood_weight"}
    assert Towers.of({"layer0": towers.layer0, "projection0": towers.layer0}, before).neighbourhood is None


def test_a_killed_fit_that_goes_on_has_the_towers_of_its_best_epoch(split, text, quick, tmp_path):
    from symcere.training.checkpoint import checkpointing

    settings = quick.model_copy(update={"max_epochs": 9, "valid_every": 1, "patience": 9, "learning_rate": 0.05})

    class KilledError(Exception):
        pass

    def kill(epoch):
        if epoch.epoch == 8:
            raise KilledError

    whole = sc.fit(split.train, text, valid=split.valid, settings=settings, seed=0)
    with pytest.raises(KilledError), checkpointing(tmp_path, every=0):
        sc.fit(split.train, text, valid=split.valid, settings=settings, seed=0, on_epoch=kill)
    with checkpointing(tmp_path, every=0):
        again = sc.fit(split.train, text, valid=split.valid, settings=settings, seed=0)
    assert np.array_equal(again.towers.layer0, whole.towers.layer0)
    Learned(split.train, text, again)  # and they are the towers of the vectors


def test_the_three_parts_sum_to_the_score(explainer):
    model = explainer.learned.model
    for user_id in (model.users.id(0), model.users.id(17)):
        for item_id, score in model.recommend(user_id, 3):
            reason = explainer.why(user_id, item_id)
            assert reason.parts.keys() == {"graph", "text", "popularity"}
            assert sum(reason.parts.values()) == pytest.approx(score, abs=1e-4)
            assert reason.score == pytest.approx(score, abs=1e-5)


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_without_a_neighbour_a_vector_is_what_the_others_make_of_it(split, text, quick, changes):
    learned = Learned(split.train, text, fit(split, text, quick, changes))
    towers, n = learned.towers, learned.n_users
    adj = dense_adj(split.train, n, len(learned.graph))
    hops, ego = towers.n_layers, towers.include_ego
    profiles = towers.scaled(learned.features)

    def unit(x):
        return x / max(np.linalg.norm(x), 1e-12) if towers.unit else x

    def vector(row, node):
        """The final vector of a node with these weights of its neighbours, hop by hop."""

        def mean(x, own):
            far = sum(row @ np.linalg.matrix_power(adj, hop) @ x for hop in range(hops))
            return (far + own * x[node]) / (hops + own)

        heard = mean(profiles, False)
        for place, matrix in enumerate(towers.projection):
            heard = matrix @ (np.maximum(heard, 0) if place else heard)
        joined = unit(mean(towers.layer0, ego)) + towers.text_weight * towers.scaled(learned.texts)[node]
        joined = unit(joined + towers.propagated_weight * unit(heard))
        if towers.neighbourhood is None:
            return joined
        near, weight = unit(towers.neighbourhood @ mean(profiles, True)), towers.neighbourhood_weight
        return np.concatenate([joined, np.sqrt(weight) * near]) / np.sqrt(1 + weight)

    for node in (3, n + 5):
        neighbours = np.flatnonzero(adj[node])
        made = learned.gathered(neighbours, towers.layer0[node], learned.features[node])
        np.testing.assert_allclose(vector(adj[node], node), learned.final[node], atol=2e-5)
        np.testing.assert_allclose(made.final, learned.final[node], atol=2e-5)
        without = learned.without_each(neighbours, towers.layer0[node], learned.features[node])
        for neighbour, found in zip(neighbours, without, strict=True):
            left = np.where(np.arange(len(adj)) == neighbour, 0, adj[node])
            left = left * np.sqrt(len(neighbours) / (len(neighbours) - 1))
            np.testing.assert_allclose(found, vector(left, node), atol=2e-5)


def test_reasons_name_neighbours_by_how_far_the_score_falls_without_them(explainer, split):
    learned, model, train = explainer.learned, explainer.learned.model, split.train
    user, item = 3, 5
    other = learned.final[len(train.users) + item]
    chosen = np.sort(train.item[train.user == user])
    reason = explainer.why(model.users.id(user), model.items.id(item), n=100)
    layer0, features = learned.towers.layer0, learned.features
    falls = {}
    for each in chosen:
        rest = np.setdiff1d(chosen, [each]) + len(train.users)
        without = learned.gathered(rest, layer0[user], features[user]).final
        falls[model.items.id(int(each))] = (learned.final[user] - without) @ other / model.temperature
    assert dict(reason.because) == pytest.approx({id: fall for id, fall in falls.items() if fall > 0}, abs=1e-4)
    node, others = len(train.users) + item, np.sort(train.user[train.item == item])
    falls = {}
    for each in others:
        without = learned.gathered(np.setdiff1d(others, [each]), layer0[node], features[node]).final
        falls[model.users.id(int(each))] = (other - without) @ learned.final[user] / model.temperature
    assert dict(reason.alike) == pytest.approx({id: fall for id, fall in falls.items() if fall > 0}, abs=1e-4)
    assert reason.because
    assert reason.alike


def test_without_the_only_neighbour_nothing_is_heard(explainer, split):
    learned = explainer.learned
    none = np.zeros(learned.features.shape[1], np.float32)
    alone = np.array([learned.n_users + 5]), none[: learned.towers.dim], none
    assert np.linalg.norm(learned.gathered(*alone).final) == pytest.approx(1, abs=1e-5)
    assert not learned.without_each(*alone).any()


def test_a_words_value_is_how_far_the_score_falls_when_it_is_blanked_in_every_review(explainer, split, text):
    learned, train = explainer.learned, split.train
    user, item = 4, int(np.bincount(train.item).argmax())
    profile, drop = explainer.word_drops("item", item, learned.final[user])
    reviews = np.flatnonzero(train.item == item)
    table = train.review[reviews]
    whole = [f"{title}\n{body}" for title, body in table.select("title", "text").iter_rows()]
    score = learned.model.score(np.array([user]))[0, item]
    for place in range(0, len(profile.words), 7):
        word = profile.reviews.vocabulary[profile.words[place]]
        changed = explainer.reader.encode([blanked(each, {word}) for each in whole]).mean(0)
        vector = learned.with_features(learned.n_users + item, changed[None])[0]
        beside = learned.model.popularity_weight * learned.model.log_popularity[item]
        fallen = score - (vector @ learned.final[user] / learned.model.temperature + beside)
        assert drop[place] == pytest.approx(fallen, abs=2e-3)


def test_words_are_left_out_of_all_reviews_however_many_where_that_costs_no_second_reading(
    explainer, split, text, model, monkeypatch
):
    user, item = 4, int(np.bincount(split.train.item).argmax())
    ids = model.users.id(user), model.items.id(item)
    expected = explainer.why(*ids, n=100)
    monkeypatch.setattr(why, "MOST_REVIEWS", 4)
    capped = explainer_of(split, text, model)
    profile, drop = capped.word_drops("item", item, capped.learned.final[user])
    assert len(profile.reviews) == (split.train.item == item).sum() > 8
    nothing_left = profile.without_sets(np.ones((1, len(profile.words)), dtype=bool))
    assert np.linalg.norm(nothing_left) < 1e-3 * np.linalg.norm(profile.features)
    assert capped.why(*ids, n=100).item_words == expected.item_words
    for name, value in expected.item_words:
        assert drop[profile.vocabulary.index(name)] == pytest.approx(value, abs=1e-6)


def test_many_reviews_are_read_in_pieces_and_say_the_same(explainer, split, monkeypatch):
    profile = explainer.profile("item", int(np.bincount(split.train.item).argmax()))
    gone = np.random.default_rng(0).random((9, len(profile.words))) < 0.5
    changes, left = profile.changes(), profile.without_sets(gone)
    monkeypatch.setattr(why, "_BLOCK", 7)
    monkeypatch.setattr(why, "_BLOCK_OF_SETS", 2 * len(profile.reviews))
    np.testing.assert_allclose(profile.changes(), changes, atol=1e-7)
    np.testing.assert_allclose(profile.without_sets(gone), left, atol=1e-7)


def test_the_words_of_an_item_are_read_once_for_all_who_ask(split, text, model, monkeypatch):
    explainer = explainer_of(split, text, model)
    ids = model.users.id(4), model.items.id(5)
    first = explainer.why(*ids)
    monkeypatch.setattr(why, "Profile", None)  # whoever reads again is noticed
    assert explainer.why(*ids) == first
    with pytest.raises(TypeError, match="not callable"):
        explainer.why(model.users.id(4), model.items.id(6))


def test_where_every_text_is_read_again_some_reviews_drawn_at_random_stand_for_all(split, quick, monkeypatch):
    def lengths(texts):
        counts = [[len(text), text.count("a"), text.count("e"), text.count("s")] for text in texts]
        return np.array(counts, dtype=np.float32) + np.float32([1, 0.5, 0.1, 0])

    encoder = sc.function_encoder(lengths)
    text = sc.encode_reviews(split.train, encoder)
    learned = Learned(split.train, text, fit(split, text, quick, {"max_epochs": 1}))
    explainer = Explainer(learned, Reader.of(split.train, text, [encoder]))
    items = np.flatnonzero(learned.train.popularity > 12).tolist()
    whole = [explainer.profile("item", item) for item in items]
    monkeypatch.setattr(why, "MOST_REVIEWS", 6)
    drawn, again = ([explainer.profile("item", item) for item in items] for _ in range(2))
    agree, length, first_rows = 0.0, 0.0, []
    for every, some, same in zip(whole, drawn, again, strict=True):
        assert len(some.reviews) == 6 < len(every.reviews)
        assert np.array_equal(some.reviews.reviews, same.reviews.reviews)
        assert some.share.sum(0) == pytest.approx(1)
        first_rows.append(np.array_equal(some.reviews.reviews, every.reviews.reviews[:6]))
        found = dict(zip(some.vocabulary, some.changes(), strict=True))
        for word, change in zip(every.vocabulary, every.changes(), strict=True):
            agree += float(change @ found.get(word, np.zeros_like(change)))
            length += float(change @ change)
    assert len(items) > 10
    assert sum(first_rows) < 2
    assert 0.85 < agree / length < 1.15


def test_reasons_are_of_train_reviews_and_name_no_function_word(explainer, split):
    model = explainer.learned.model
    user_id = model.users.id(9)
    item_id, _ = model.recommend(user_id, 1)[0]
    reason = explainer.why(user_id, item_id, n=4)
    item = model.items.index(item_id)
    said = "\n".join(
        split.train.review["text"].filter(split.train.item == item).to_list()
        + split.train.review["title"].filter(split.train.item == item).to_list()
    )
    assert reason.snippets
    assert all(text in said for text, _ in reason.snippets)
    assert len(reason.item_words) <= 4
    assert not {word for word, _ in reason.item_words} & {"i", "the", "and", "this", "for"}
    values = [value for _, value in reason.item_words]
    assert values == sorted(values, reverse=True)
    assert min(values) > 0


def test_an_unknown_user_or_item_is_refused(explainer):
    with pytest.raises(sc.UnknownIdError):
        explainer.why("nobody", explainer.learned.model.items.id(0))
    with pytest.raises(sc.UnknownIdError):
        explainer.why(explainer.learned.model.users.id(0), "nothing")


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_the_taste_of_a_user_is_what_is_served_and_so_are_its_parts(split, text, quick, changes):
    explainer = explainer_of(split, text, fit(split, text, quick, changes))
    learned = explainer.learned
    for user in (0, 8, 40):
        taste = explainer.taste(user_id=split.train.users.id(user))
        np.testing.assert_array_equal(taste.vector, learned.final[user])
        for mine, theirs in zip(taste.made.parts, learned.parts, strict=True):
            np.testing.assert_allclose(mine, theirs[user], atol=2e-5)
        with_nothing = explainer.taste([], [" "], user_id=split.train.users.id(user))
        np.testing.assert_array_equal(with_nothing.vector, taste.vector)


def test_the_reasons_of_somebody_new_sum_to_the_score_and_each_word_is_what_the_score_falls_by(explainer, split):
    learned, model = explainer.learned, explainer.learned.model
    items = [model.items.id(place) for place in (2, 9, 30)]
    texts = ["a gasket of steel, oem", "great gasket"]
    taste = explainer.taste(items, texts)
    item = 5

    def score(vector):
        beside = model.popularity_weight * model.log_popularity[item]
        return float(vector @ model.item_emb[item] / model.temperature + beside)

    reason = explainer.why_of(taste, model.items.id(item), n=100)
    assert reason.score == pytest.approx(score(taste.vector), abs=1e-4)
    assert sum(reason.parts.values()) == pytest.approx(reason.score, abs=1e-4)
    assert {name for name, _ in reason.because} <= set(items)
    drops = dict(
        pair
        for names, values in explainer._own_words(taste, model.item_emb[item])
        for pair in zip(names, values, strict=True)
    )
    assert {"gasket", "steel", "oem", "great"} <= set(drops)
    for word in ("gasket", "steel", "great"):
        without = explainer.taste(items, [blanked(text, {word}) for text in texts])
        assert drops[word] == pytest.approx(score(taste.vector) - score(without.vector), abs=2e-3)
    assert {word for word, _ in reason.user_words} <= {"gasket", "steel", "oem", "great"}
    user_id = model.users.id(3)
    since = explainer.taste(items, texts, user_id=user_id)
    words = explainer._own_words(since, model.item_emb[item])
    assert len(words) == 2
    written = dict(zip(*words[1], strict=True))
    without = explainer.taste(items, [blanked(text, {"gasket"}) for text in texts], user_id=user_id)
    assert written["gasket"] == pytest.approx(score(since.vector) - score(without.vector), abs=2e-4)
    assert learned.features[3].any()
    assert explainer.why_of(since, model.items.id(item)).user_id == user_id
