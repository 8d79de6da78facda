"""Leaving words out of texts: exact against encoding the text again with a word that nobody knows in their place."""

import dataclasses

import numpy as np
import pytest
from tests.test_encoders import TEACHER

import symcere as sc
from symcere.text.corpus import corpus_of
from symcere.text.deletion import Gone, Reread
from symcere.text.distilled import DistilledEncoder
from symcere.text.reader import Reader
from symcere.text.words import spans, words

TEXTS = [
    "oem gasket fits the old gasket well",
    "great great gasket and a great price",
    "the strap is leather, the strap holds well",
    "leather strap, great price",
    "oem strap and gasket",
    "zebra",
]


def fitted(name):
    encoder = {"tfidf": sc.tfidf_encoder(5), "distilled": DistilledEncoder(teacher=TEACHER)}[name]
    return encoder.fit(corpus_of(TEXTS)).table


def blanked(text, gone):
    """The text with unknown words in the place of some."""
    out, at = [], 0
    for word, begin, end in spans(text):
        if word in gone:
            out += [text[at:begin], f"xq{len(out)}xq"]
            at = end
    return "".join([*out, text[at:]])


def nothing(n):
    return Gone(np.zeros(n + 1, dtype=np.int64), np.zeros(0, dtype=np.int64))


@pytest.mark.parametrize("name", ["tfidf", "distilled"])
def test_a_bag_with_all_its_words_is_the_text(name):
    encoder = fitted(name)
    bag = encoder.bag(TEXTS)
    assert np.abs(bag.without(np.arange(len(TEXTS)), nothing(len(TEXTS))) - encoder.encode(TEXTS)).max() < 1e-6


@pytest.mark.parametrize("name", ["tfidf", "distilled"])
def test_a_bag_keeps_the_rows_of_its_own_terms_alone(name):
    bag = fitted(name).bag(["oem gasket, zebra"])
    assert [len(rows) for rows in bag.rows] == [len(set(bag.row[bag.block == n])) for n in range(len(bag.rows))]


@pytest.mark.parametrize("name", ["tfidf", "distilled"])
def test_leaving_a_word_out_is_encoding_the_text_with_an_unknown_word_in_its_place(name):
    encoder = fitted(name)
    bag = encoder.bag(TEXTS)
    text, word = bag.occurrences
    assert len(text) >= 20
    expected = encoder.encode(
        [blanked(TEXTS[t], {bag.vocabulary[w]}) for t, w in zip(text.tolist(), word.tolist(), strict=True)]
    )
    assert np.abs(bag.without(text, Gone.one_each(word)) - expected).max() < 1e-6


@pytest.mark.parametrize("name", ["tfidf", "distilled"])
def test_sets_of_words_go_together_by_both_ways(name):
    encoder = fitted(name)
    bag = encoder.bag(TEXTS)
    sets = [{"gasket", "oem"}, {"strap"}, {"great", "price", "leather", "gasket"}, set()]
    gone = np.array([[word in each for word in bag.vocabulary] for each in sets])
    dense = bag.without_sets(gone)
    for row, each in enumerate(sets):
        mine = np.flatnonzero(gone[row])
        listed = Gone(np.arange(len(TEXTS) + 1) * len(mine), np.tile(mine, len(TEXTS)))
        expected = encoder.encode([blanked(text, each) for text in TEXTS])
        assert np.abs(dense[row] - expected).max() < 1e-6
        assert np.abs(bag.without(np.arange(len(TEXTS)), listed) - expected).max() < 1e-6


def test_a_text_of_which_nothing_is_left_is_zero():
    bag = fitted("tfidf").bag(TEXTS)
    assert not bag.without_sets(np.ones((1, len(bag.vocabulary)), dtype=bool)).any()


def test_any_other_encoder_reads_the_text_without_the_words():
    seen = []

    def encode(texts):
        seen.extend(texts)
        return np.ones((len(texts), 2), dtype=np.float32)

    cut = Reread(["Strap, strap! OEM", "zebra"], encode)
    word = cut.vocabulary.index("strap")
    vectors = cut.without(
        np.array([0, 0, 1]), Gone(np.array([0, 1, 1, 2]), np.array([word, cut.vocabulary.index("zebra")]))
    )
    assert seen == [", ! OEM", "Strap, strap! OEM", ""]
    assert vectors.tolist() == [[1, 1], [1, 1], [0, 0]]
    assert cut.without_sets(np.array([[name == "oem" for name in cut.vocabulary]])).shape == (1, 2, 2)
    assert "Strap, strap! " in seen


def test_spans_are_the_words():
    text = "Très bon: 5 cm. 弦が हिन्दी"
    assert [word for word, _, _ in spans(text)] == words(text)


@pytest.mark.parametrize(
    ("encoders", "parts", "weightings"),
    [
        ([sc.tfidf_encoder(16)], ("review",), []),
        ([sc.tfidf_encoder(16), sc.tfidf_encoder(8)], ("title", "body"), [sc.Recency()]),
        ([DistilledEncoder(teacher=TEACHER)], ("review",), []),
    ],
)
def test_profiles_are_the_weighted_sums_of_what_the_reader_reads(split, encoders, parts, weightings):
    train = split.train
    text = sc.encode_reviews(train, *encoders, parts=parts, weightings=weightings)
    reader = Reader.of(train, text, encoders, parts, weightings)
    reviews = reader.open(np.arange(len(train)))
    for side, node, profiles in (("user", train.user, text.user), ("item", train.item, text.item)):
        share = reader.shares(side)
        assert np.allclose(np.bincount(node, share[:, 0]), 1)
        summed = np.zeros_like(profiles)
        np.add.at(summed, node, share[:, reader.block_of_column] * reviews.vectors())
        assert np.abs(summed - profiles).max() < 2e-3 * np.abs(profiles).max()  # vectors are kept as float16


def test_a_review_without_a_word_is_read_as_its_text_with_the_word_blanked(split, text):
    reader = Reader.of(split.train, text, [sc.tfidf_encoder(64)])
    some = np.array([3, 0, 11])
    reviews = reader.open(some)
    place, word = reviews.occurrences
    assert set(place.tolist()) == {0, 1, 2}
    cut = reviews.without(place, Gone.one_each(word))
    table = split.train.review[some]
    whole = [f"{title}\n{body}" for title, body in table.select("title", "text").iter_rows()]
    expected = reader.encode(
        [blanked(whole[p], {reviews.vocabulary[w]}) for p, w in zip(place.tolist(), word.tolist(), strict=True)]
    )
    assert np.abs(cut - expected).max() < 1e-6
    gone = np.array([[name in ("gasket", "great", "oem", "i") for name in reviews.vocabulary]])
    sets = reviews.without_sets(gone)[0]
    assert (
        np.abs(sets - reader.encode([blanked(each, {"gasket", "great", "oem", "i"}) for each in whole])).max() < 1e-6
    )


def test_profiles_that_are_not_of_words_or_were_made_otherwise_are_refused(split, text, tmp_path):
    np.save(tmp_path / "v.npy", np.ones((1, 3), dtype=np.float32))
    (tmp_path / "v.keys.csv").write_text("item_id\nitem00000\n")
    with pytest.raises(sc.ConfigError, match="vectors of a file"):
        Reader.of(split.train, text, [sc.precomputed(tmp_path / "v.npy")])
    with pytest.raises(sc.ConfigError, match="made otherwise"):
        Reader.of(split.train, text, [sc.tfidf_encoder(8)])


def test_profiles_that_another_encoder_of_the_same_shape_made_are_refused(split, text):
    sides = np.where(np.arange(64) % 3, 1, -1).astype(np.float32)  # the same directions, a third of them turned round
    turned = dataclasses.replace(text, user=text.user * sides, item=text.item * sides)
    with pytest.raises(
        sc.ConfigError, match=r"do not give their profiles \(relative difference 1\.\d\d\).*Run again"
    ):
        Reader.of(split.train, turned, [sc.tfidf_encoder(64)])
    with pytest.raises(sc.ConfigError, match="do not give their profiles"):
        Reader.of(split.train, text, [sc.lift_encoder(64)])


def test_features_are_saved_and_loaded_with_what_conditioned_them(split, tmp_path):
    text = sc.encode_reviews(split.train, sc.tfidf_encoder(8), DistilledEncoder(teacher=TEACHER))
    text.save(tmp_path)
    again = sc.TextFeatures.load(tmp_path)
    assert again.affines[0] is None
    assert np.array_equal(again.affines[1].matrix, text.affines[1].matrix)
    assert np.array_equal(again.affines[1].mean, text.affines[1].mean)
