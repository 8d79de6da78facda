"""Anchors: drops are what editing the text does, LIME agrees, and the instrument finds what was planted."""

import dataclasses

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr
from tests.test_deletion import blanked

import symcere as sc
from symcere.analysis.anchoring import (
    Drops,
    Weights,
    contrast,
    drops,
    frozen_lens,
    learned_lens,
    recovered_share,
    word_weights,
)  # fmt: skip
from symcere.analysis.anchoring_page import FROZEN, SHUFFLED, anchoring_findings
from symcere.analysis.learned import Learned
from symcere.analysis.lexicon import classes_of, is_function_word
from symcere.data.items import Items, items_of
from symcere.data.synthetic import FACTS, SENTIMENTS
from symcere.text.reader import Reader
from symcere.text.words import words as words_of


@pytest.fixture(scope="module")
def opened(split, text, model):
    reader = Reader.of(split.train, text, [sc.tfidf_encoder(64)])
    return Learned(split.train, text, model), reader


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_a_drop_is_what_blanking_the_word_does_to_the_alignment(opened, split):
    learned, reader = opened
    some = np.array([0, 5, 40])
    reviews = reader.open(some)
    user, item = split.train.user[some], split.train.item[some]
    found = drops(reviews, [learned_lens("ours", learned, user, item)])
    graph, n = unit(learned.graph), learned.n_users
    whole = [f"{t}\n{b}" for t, b in split.train.review[some].select("title", "text").iter_rows()]

    def aligned(place, text):
        projected = unit(learned.towers.project(reader.encode([text])))[0]
        one = (graph[user[place]] - graph[:n].mean(0)) @ projected
        return (one + (graph[n + item[place]] - graph[n:].mean(0)) @ projected) / 2

    assert len(found.place) > 15
    for place, word, drop in zip(found.place, found.word, found.drop["ours"], strict=True):
        left = aligned(place, blanked(whole[place], {found.vocabulary[word]}))
        assert drop == pytest.approx(aligned(place, whole[place]) - left, abs=1e-5)


def test_lime_on_random_masks_finds_the_same_words(opened, split):
    """LIME: words kept at random, weighted by nearness to the whole text, a ridge regression on what is kept."""
    learned, reader = opened
    long = np.argsort(-split.train.review["text"].str.len_chars().to_numpy(), kind="stable")[:12]
    user, item = split.train.user[long], split.train.item[long]
    reviews = reader.open(long)
    lens = learned_lens("ours", learned, user, item)
    found = drops(reviews, [lens])
    draws = np.random.default_rng(0)
    agreement = []
    for place in range(len(long)):
        mine = found.place == place
        word = found.word[mine]
        kept = draws.random((400, len(word))) < draws.uniform(0.4, 1, (400, 1))
        gone = np.zeros((400, len(reviews.vocabulary)), dtype=bool)
        gone[:, word] = ~kept
        value = lens.alignment(np.full(400, place), reviews.without_sets(gone)[:, place])
        near = np.exp(-((1 - np.sqrt(kept.mean(1))) ** 2) / 0.25**2)
        x = kept - np.average(kept, axis=0, weights=near)
        y = value - np.average(value, weights=near)
        gram = (x * near[:, None]).T @ x + np.eye(len(word))
        weight = np.linalg.solve(gram, (x * near[:, None]).T @ y)
        agreement.append(spearmanr(weight, found.drop["ours"][mine]).statistic)
    assert np.median(agreement) > 0.8


def test_the_frozen_encoder_is_asked_without_the_review_itself(opened, split, text):
    _, reader = opened
    some = np.array([7, 3])
    reviews = reader.open(some)
    lens = frozen_lens("frozen", text, reader, reviews, split.train.user[some], split.train.item[some])
    user = split.train.user[some[0]]
    others = np.flatnonzero((split.train.user == user) & (np.arange(len(split.train)) != some[0]))
    rest = unit(reader.open(others).vectors().mean(0))
    expected = rest - (text.user / np.linalg.norm(text.user, axis=1, keepdims=True)).mean(0)
    assert np.abs(lens.targets[0][0] - expected).max() < 5e-3


def test_a_part_of_the_occurrences_is_a_sample_of_all(opened, split):
    learned, reader = opened
    some = np.arange(30)
    lens = learned_lens("ours", learned, split.train.user[some], split.train.item[some])
    whole = drops(reader.open(some), [lens])
    part = drops(reader.open(some), [lens], at_most=20, seed=3)
    assert len(part.place) == 20
    every = {
        (place, word): drop for place, word, drop in zip(whole.place, whole.word, whole.drop["ours"], strict=True)
    }
    for place, word, drop in zip(part.place, part.word, part.drop["ours"], strict=True):
        assert drop == pytest.approx(every[place, word], abs=1e-6)


def test_of_a_part_of_the_occurrences_the_reviews_that_have_a_word_are_still_counted(opened, split):
    learned, reader = opened
    some = np.arange(200)
    lens = learned_lens("ours", learned, split.train.user[some], split.train.item[some])
    whole, part = drops(reader.open(some), [lens]), drops(reader.open(some), [lens], at_most=300, seed=3)
    every, drawn = word_weights(whole, "ours"), word_weights(part, "ours")
    assert whole.n_reviews.tolist() == np.bincount(whole.word, minlength=len(whole.vocabulary)).tolist()
    assert part.n_reviews.tolist() == whole.n_reviews.tolist()
    expected = dict(zip(every.words, every.n_reviews.tolist(), strict=True))
    n_drawn = np.bincount(part.word, minlength=len(part.vocabulary))
    means = np.bincount(part.word, part.drop["ours"], minlength=len(n_drawn)) / np.maximum(n_drawn, 1)
    assert len(drawn.words) > 20
    for word, n, mean in zip(drawn.words, drawn.n_reviews, drawn.mean, strict=True):
        assert n == expected[word]
        assert mean == pytest.approx(means[part.vocabulary.index(word)], abs=1e-9)


def test_a_word_drawn_once_has_no_interval_and_is_no_anchor():
    found = made_drops(np.array([[1.0, 2.0], [1.0, np.nan], [1.2, np.nan]]), n_reviews=[30, 30])
    weights = word_weights(found, "x")
    assert weights.words == ("w0",)
    assert weights.n_reviews.tolist() == [30]
    assert word_weights(found, "x", least=31).words == ()
    assert word_weights(found, "x", least=1).words == ("w0", "w1")


def made_drops(drop, user=None, item=None, n_reviews=None):
    """Drops of a table reviews x words, NaN where the review lacks the word."""
    place, word = np.nonzero(~np.isnan(drop))
    n = len(drop)
    user = np.arange(n) if user is None else user
    item = np.arange(n) if item is None else item
    names = tuple(f"w{w}" for w in range(drop.shape[1]))
    n_reviews = (~np.isnan(drop)).sum(0) if n_reviews is None else np.array(n_reviews)
    return Drops(names, n_reviews, place, word, {"x": drop[place, word]}, user, item)


def test_a_weight_is_the_mean_over_the_reviews_that_have_the_word():
    drop = np.array([[1.0, np.nan], [3.0, 5.0], [np.nan, 5.0]])
    weights = word_weights(made_drops(drop), "x", least=2)
    assert weights.mean.tolist() == [2.0, 5.0]
    assert weights.n_reviews.tolist() == [2, 2]
    assert word_weights(made_drops(drop), "x", least=3).words == ()


def test_an_interval_knows_that_reviews_of_one_item_are_not_independent():
    draws = np.random.default_rng(0)
    item = np.repeat(np.arange(8), 50)
    by_item = draws.normal(size=8)[item][:, None]
    drop = np.concatenate([by_item, draws.normal(size=(400, 1))], axis=1)
    low, high = word_weights(made_drops(drop, item=item), "x").interval
    width = high - low
    assert width[0] > 2 * width[1]
    assert width[1] > 2 * 1.96 / np.sqrt(400)  # never narrower than if all reviews were independent


def weights_of(mean, n_reviews, noise=0.0):
    mean = np.asarray(mean, dtype=float)
    resampled = mean[:, None] + noise * np.random.default_rng(0).normal(size=(len(mean), 400))
    return Weights(tuple(f"w{n}" for n in range(len(mean))), np.asarray(n_reviews), mean, resampled)


def test_a_difference_that_is_only_one_of_frequency_is_no_difference():
    often = np.repeat([10, 1_000], [40, 40])
    mean = np.where(often == 10, 1.0, 0.1)  # rare words weigh more, whatever they mean
    objective = np.arange(80) % 4 != 0
    objective[40:] = np.arange(40) % 4 == 0  # and objective words are rare
    compared = contrast(weights_of(mean, often), objective, ~objective)
    assert compared.objective == pytest.approx(compared.subjective)
    assert compared.above == 0.5


def test_the_contrast_of_words_that_differ_by_class():
    often = np.full(60, 20)
    objective = np.arange(60) < 40
    compared = contrast(weights_of(np.where(objective, 0.3, 0.1), often, 0.01), objective, ~objective)
    assert (compared.objective, compared.subjective) == pytest.approx((0.3, 0.1))
    assert compared.above == 1
    assert 0.19 < compared.low < 0.2 < compared.high < 0.21
    assert (compared.n_objective, compared.n_subjective) == (40, 20)
    assert contrast(weights_of([1.0, 2.0], [10, 1_000]), np.array([True, False]), np.array([False, True])) is None


def test_words_are_sorted_by_lexicon_part_of_speech_and_metadata():
    words = ["gasket", "great", "xlr9", "awful", "the", "beautiful", "quickly", "cloth", "a"]
    items = items_of(pl.DataFrame({"item_id": ["1"], "title": ["Cleaning Cloth"]}))
    classes = classes_of(words, np.array([1, 1, 1, 1, 5, 1, 1, 1, 3]), items)
    named = {word: classes.name(place) for place, word in enumerate(words)}
    assert named == {
        "gasket": "objective", "great": "subjective", "xlr9": "objective", "awful": "subjective", "the": "other",
        "beautiful": "subjective", "quickly": "other", "cloth": "objective", "a": "other",
    }  # fmt: skip
    assert classes.english
    assert not classes_of(["la", "guitarra", "buena"], np.array([5, 3, 2]), items).english


def test_what_contractions_leave_are_function_words_and_never_objective():
    texts = [
        "I don't, didn't, doesn't, isn't, wasn't, couldn't, wouldn't, weren't, aren't, hasn't, haven't, hadn't",
        "shouldn't mustn't needn't mightn't shan't ain't won't can't oughtn't, I've you're they'll we'd it's I'm",
        "dont didnt doesnt isnt wasnt couldnt wouldnt werent arent hasnt havent hadnt shouldnt mustnt neednt mightnt",
        "cant wont aint im ive youre theyre thats whats theres its hes gonna wanna gotta kinda sorta dunno",
        "couldn\u2019t they\u2019re",
    ]
    left = list(dict.fromkeys(word for text in texts for word in words_of(text)))
    classes = classes_of(left, np.ones(len(left), dtype=int), Items())
    assert len(left) > 60
    assert [word for word in left if not is_function_word([word])[0]] == []
    assert not classes.objective.any()
    assert not classes.subjective.any()


def test_words_that_are_spelled_like_a_contraction_and_as_often_something_else_are_no_function_words():
    words = ["ill", "id", "shed", "shell", "hell", "wed", "nt", "heaven", "donut", "guitar"]
    assert not is_function_word(words).any()


def test_texts_in_another_language_have_anchors_and_no_comparison():
    drop = np.random.default_rng(0).normal(0.1, 0.05, (40, 3))
    found = made_drops(drop)
    found = dataclasses.replace(found, vocabulary=("guitarra", "cuerda", "buena"))
    names = [finding.name for finding in anchoring_findings(found, "x", Items())]
    assert names == ["anchors"]


def test_too_few_reviews_are_a_sentence():
    (finding,) = anchoring_findings(made_drops(np.ones((3, 2))), "x", Items())
    assert "nothing to say" in finding.answer


@pytest.mark.slow
def test_the_instrument_finds_what_was_planted_and_nothing_in_the_shuffled_world():
    split = sc.split_random(sc.k_core(sc.anchoring_world().reviews, 5))
    encoder = sc.tfidf_encoder()
    text = sc.encode_reviews(split.train, encoder)
    reader = Reader.of(split.train, text, [encoder])
    reviews = reader.open(np.arange(len(split.train)))
    sides = split.train.user, split.train.item
    lenses = [frozen_lens(FROZEN, text, reader, reviews, *sides)]
    shuffles = [SHUFFLED, "again", "once more"]
    made = [("ours", text), *((name, text.shuffled(seed)) for seed, name in enumerate(shuffles))]
    for name, features in made:
        model = sc.fit(split.train, features, valid=split.valid)
        lenses.append(learned_lens(name, Learned(split.train, features, model), *sides))
    found = drops(reviews, lenses)
    weights = {lens: word_weights(found, lens) for lens in found.drop}
    feelings = [word for words in SENTIMENTS for word in words]
    assert recovered_share(weights["ours"], FACTS) > 0.9
    assert recovered_share(weights["ours"], feelings) == 0
    by_chance = [recovered_share(weights[name], FACTS) for name in shuffles]  # one in forty, by intervals of 95 %
    assert np.mean(by_chance) < 0.05
    own = weights["ours"]
    compared = contrast(own, np.isin(own.words, FACTS), np.isin(own.words, feelings))
    assert compared.above_low > 0.95
    (objective, *_) = anchoring_findings(found, "ours", Items())
    assert "more than words of feeling" in objective.answer
    assert "Shuffled text: 0." in objective.answer
