"""The vector cache: each text once, whoever is killed and whoever else is writing."""

import multiprocessing
import os
import signal
import time

import numpy as np
import pytest

import symcere as sc
from symcere.text.cache import VectorCache
from symcere.text.corpus import corpus_of
from symcere.text.encoders import FittedEncoder, TextVectors


class Counting:
    """An encoder that remembers what it was asked for; a vector holds the length and the first letter of its text."""

    fingerprint, reach, half = "0" * 64, 2**31, False

    def __init__(self, seconds=0.0):
        self.asked, self.seconds = [], seconds

    def encode(self, texts):
        self.asked += texts
        time.sleep(self.seconds * len(texts))
        return np.array([[len(text), ord(text[0])] for text in texts], dtype=np.float32)


def encode(texts, root, encoder=None, on_progress=None):
    """Vectors of `texts` in their order, and how many had to be encoded."""
    corpus = corpus_of(texts)
    vectors = TextVectors(encoder or Counting(), corpus, VectorCache(root), on_progress)
    return vectors.all()[corpus.text], vectors.n_encoded


def test_each_distinct_text_is_encoded_once_and_never_again(tmp_path):
    encoder = Counting()
    assert isinstance(encoder, FittedEncoder)
    first, n = encode(["bb", "a", "bb"], tmp_path, encoder)
    assert (n, sorted(encoder.asked)) == (2, ["a", "bb"])
    again, n = encode(["a", "bb", "a", "ccc"], tmp_path, encoder)
    assert (n, encoder.asked[2:]) == (1, ["ccc"])
    np.testing.assert_array_equal(again[[1, 0, 1]], first)


def test_without_a_folder_everything_is_encoded_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert encode(["a", "b"], None)[1] == encode(["a", "b"], None)[1] == 2
    assert not list(tmp_path.iterdir())


def test_a_segment_torn_at_any_byte_is_dropped_and_encoded_again(tmp_path):
    texts = ["a", "bb", "ccc"]
    expected, _ = encode(texts, tmp_path)
    (segment,) = tmp_path.rglob("*.safetensors")
    whole = segment.read_bytes()
    for end in range(len(whole)):
        segment.write_bytes(whole[:end])
        vectors, n = encode(texts, tmp_path)
        assert n == 3
        np.testing.assert_array_equal(vectors, expected)
        segment.write_bytes(whole)  # as the second run leaves it
    assert encode(texts, tmp_path)[1] == 0


@pytest.mark.parametrize("at", [0, 9, -1])
def test_a_flipped_bit_is_noticed(tmp_path, at):
    encode(["a", "bb"], tmp_path)
    (segment,) = tmp_path.rglob("*.safetensors")
    raw = bytearray(segment.read_bytes())
    raw[at] ^= 1
    segment.write_bytes(raw)
    assert encode(["a", "bb"], tmp_path)[1] == 2


def test_many_segments_are_read_as_one(tmp_path):
    texts = [f"{'x' * (n % 9)}{n}" for n in range(300)]
    for end in (3, 50, 51, 120):
        encode(texts[:end], tmp_path)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 4
    vectors, n = encode(texts, tmp_path)
    assert n == 180
    np.testing.assert_array_equal(vectors, Counting().encode(texts))
    again, n = encode(texts, tmp_path)
    assert n == 0
    np.testing.assert_array_equal(vectors, again)


def test_encoders_do_not_share_vectors(tmp_path):
    class Other(Counting):
        fingerprint = "1" * 64

    encode(["a"], tmp_path)
    assert encode(["a"], tmp_path, Other())[1] == 1


TEXTS = [f"text number {n}" for n in range(400)]


def _encode_slowly(root, flush):
    import symcere.text.encoders as encoders

    encoders._FLUSH_SECONDS, encoders._CHUNK = flush, 64
    encode(TEXTS, root, Counting(seconds=0.002))


@pytest.mark.parametrize("after", [0.15, 0.4, 0.65])
def test_sigkill_loses_at_most_what_was_not_yet_flushed(tmp_path, after):
    child = multiprocessing.get_context("spawn").Process(target=_encode_slowly, args=(tmp_path, 0.05))
    child.start()
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(after)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    vectors, n = encode(TEXTS, tmp_path)
    assert n < len(TEXTS)
    np.testing.assert_array_equal(vectors, Counting().encode(TEXTS))
    assert encode(TEXTS, tmp_path)[1] == 0


@pytest.mark.slow
def test_two_processes_at_once_write_one_sound_cache(tmp_path):
    context = multiprocessing.get_context("spawn")
    children = [context.Process(target=_encode_slowly, args=(tmp_path, 0.05)) for _ in range(2)]
    for child in children:
        child.start()
    for child in children:
        child.join(timeout=120)
        assert child.exitcode == 0
    vectors, n = encode(TEXTS, tmp_path)
    assert n == 0
    np.testing.assert_array_equal(vectors, Counting().encode(TEXTS))


def test_what_another_run_writes_meanwhile_is_taken_over(tmp_path, monkeypatch):
    monkeypatch.setattr("symcere.text.encoders._CHUNK", 100)
    encoder = Counting()
    chunks = iter(TextVectors(encoder, corpus := corpus_of(TEXTS), VectorCache(tmp_path)))
    found = dict.fromkeys(next(chunks)[0].tolist())
    encode(TEXTS, tmp_path)  # the other run
    for rows, vectors in chunks:
        found |= dict.fromkeys(rows.tolist())
        np.testing.assert_array_equal(vectors, Counting().encode(corpus.take(rows)))
    assert len(encoder.asked) == 100
    assert sorted(found) == list(range(len(TEXTS)))


def test_the_share_of_work_done_follows_the_time_it_takes():
    """Texts of very different lengths, cost in proportion: the share must not run ahead of the clock."""

    class Proportional(Counting):
        def encode(self, texts):
            time.sleep(sum(map(len, texts)) * 4e-6)
            return super().encode(texts)

    draws = np.random.default_rng(0)
    texts = ["x" * int(n) + str(i) for i, n in enumerate(draws.lognormal(5, 1, 2_000))]
    told = []
    began = time.monotonic()
    encode(texts, None, Proportional(), lambda now: told.append((time.monotonic() - began, now)))
    last = told[-1][1]
    assert (last.done, last.total, last.share) == (2_000, 2_000, pytest.approx(1))
    total = told[-1][0]
    assert all(abs(now.share - seconds / total) < 0.2 for seconds, now in told)
    underway = [now for _, now in told if 0.1 < now.share < 0.9]
    assert underway
    # short texts come first: a count would promise too much
    assert all(now.done / now.total > now.share for now in underway)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (lambda texts: np.ones((len(texts) + 1, 2)), "one row of numbers a text"),
        (lambda texts: np.ones(len(texts)), "one row of numbers a text"),
        (lambda texts: np.array([["x"]] * len(texts)), "one row of numbers a text"),
        (lambda texts: np.full((len(texts), 2), np.nan), "not finite"),
    ],
)
def test_an_encoder_that_returns_nonsense_is_refused_and_nothing_is_kept(tmp_path, wrong, sentence):
    encoder = Counting()
    encoder.encode = wrong
    with pytest.raises(sc.DataError, match=sentence):
        encode(["a", "b"], tmp_path, encoder)
    assert not list(tmp_path.rglob("*.safetensors"))
