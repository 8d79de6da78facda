"""What does each encoder cost, how near is it to its teacher, and how well does it rank?

    python benchmarks/encode.py speed DATA [--peer PYTHON]     reviews per CPU-second, cosine and neighbours
    python benchmarks/encode.py ranking DATA [--encoders E ...] valid and test NDCG@10, shuffled text as the control
    python benchmarks/encode.py memory [--reviews 1000000]     peak memory, and further runs over a full cache

DATA is the folder of real reviews. PYTHON is an interpreter that has sentence-transformers, the peer; it is no
dependency of ours. The peer reads the same weights, by its own `encode` with default settings. Rates are at the
margin: the fixed cost of teaching the distilled encoder stands apart. Agreement is measured on held-out reviews.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import polars as pl

import symcere as sc
from symcere.data.dataset import REVIEW, Dataset
from symcere.data.reviews import Reviews
from symcere.data.typed import SCHEMA
from symcere.ids import IdMap
from symcere.text.cache import VectorCache
from symcere.text.corpus import Corpus, corpus_of
from symcere.text.encoders import TextVectors
from symcere.text.sentence import SentenceEncoder
from symcere.training.tuning import valid_ndcg

DATASETS = {
    "Musical Instruments": ("amazon-2014/reviews_Musical_Instruments_5.json.gz", 5),
    "TripAdvisor": ("tripadvisor/reviews_core3.parquet", 3),
    "Gift Cards": ("amazon-2018/Gift_Cards_5.json.gz", 5),
    "All Beauty": ("amazon-2018/All_Beauty_5.json.gz", 3),
    "Zomato": ("zomato/reviews.parquet", 3),
    "Yelp": ("yelp/yelp_academic_dataset_review.json.gz", 3),
}
PEER = """
import json, sys, time
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu")
texts = json.load(open(sys.argv[2]))
model.encode(texts[:8])
began = time.process_time()
model.encode(texts)
print(len(texts) / (time.process_time() - began))
"""


def reviews_of(data: Path, name: str) -> Reviews:
    file, k = DATASETS[name]
    return sc.k_core(sc.read_reviews(data / file), k)


def speed(data: Path, peer: str | None) -> None:
    """Reviews per CPU-second of every encoder, and its agreement with the float32 sentence encoder."""
    print(
        "| dataset | encoder | reviews / CPU-s | against the peer | cosine | centred | neighbours@10 | fixed CPU-s |"
    )
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for name in ("Musical Instruments", "TripAdvisor"):
        reviews = reviews_of(data, name)
        train = sc.split_random(reviews, seed=0).train
        corpus = corpus_of(train.review)
        ids = pl.DataFrame({"user_id": train.users.ids, "user": np.arange(len(train.users))})
        seen = pl.DataFrame({"user": train.user, "item_id": np.array(train.items.ids)[train.item]}).join(
            ids, on="user"
        )
        held_out = corpus_of(reviews.table.join(seen, on=["user_id", "item_id"], how="anti"))
        few, some = _part(corpus, 400), _part(held_out, 2_000)
        base = _peer(peer, few) if peer else float("nan")
        teacher = sc.sentence_encoder(runtime="float32").fit(None)
        truth = TextVectors(teacher, some).all()
        for label, make, timed in (
            ("sentence-float32", lambda _: sc.sentence_encoder(runtime="float32").fit(None), few),
            ("sentence (int8)", lambda _: sc.sentence_encoder(runtime="int8").fit(None), few),
            ("distilled", lambda c: sc.distilled_encoder().fit(c), corpus),
            ("tfidf", lambda c: sc.tfidf_encoder().fit(c), corpus),
        ):
            began = time.process_time()
            encoder = make(corpus)
            encoder.encode(["warm", "up"])  # loads, exports, teaches: what is done once
            fixed = time.process_time() - began
            began = time.process_time()
            TextVectors(encoder, timed).all()
            rate = len(timed) / (time.process_time() - began)
            found = TextVectors(encoder, some).all()
            same = found.shape == truth.shape and label != "tfidf"
            cosines = [_cosine(found, truth), _cosine(found - found.mean(0), truth - truth.mean(0))] if same else []
            shown = [f"{value:.4f}" for value in cosines] or ["", ""]
            neighbours = np.mean(_neighbours(found, truth))
            ratio = f"{rate / base:.1f}x" if peer else ""
            print(
                f"| {name} | {label} | {rate:,.0f} | {ratio} | {' | '.join(shown)} | {neighbours:.3f} | {fixed:.1f} |"
            )
        if peer:
            print(f"| {name} | sentence-transformers | {base:,.1f} | 1x | | | | |", flush=True)


def ranking(data: Path, seeds: int, names: Sequence[str], cache: Path, only: Sequence[str]) -> None:
    """Valid and test NDCG@10 of SymCERE with every encoder, means over seeds; shuffled text as the control."""
    rows: dict[str, Callable[[], list]] = {
        "lift": lambda: [sc.lift_encoder()],
        "lift, shuffled": lambda: [sc.lift_encoder()],
        "lift+distilled": lambda: [sc.lift_encoder(), sc.distilled_encoder()],
        "lift+sentence": lambda: [sc.lift_encoder(), sc.sentence_encoder(runtime="int8")],
        "tfidf": lambda: [sc.tfidf_encoder()],
        "sentence-float32": lambda: [sc.sentence_encoder(runtime="float32")],
        "sentence (int8)": lambda: [sc.sentence_encoder(runtime="int8")],
        "distilled": lambda: [sc.distilled_encoder()],
        "tfidf+sentence": lambda: [sc.tfidf_encoder(), sc.sentence_encoder(runtime="int8")],
        "tfidf+distilled": lambda: [sc.tfidf_encoder(), sc.distilled_encoder()],
        "tfidf+distilled, shuffled": lambda: [sc.tfidf_encoder(), sc.distilled_encoder()],
    }
    rows = {label: make for label, make in rows.items() if not only or label in only}
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for name in names:
        reviews = reviews_of(data, name)
        for seed in range(seeds):
            split = sc.split_random(reviews, seed=seed)
            for label, make in rows.items():
                text = sc.encode_reviews(split.train, *make(), cache=cache)
                if label.endswith("shuffled"):
                    text = text.shuffled(seed)
                model = sc.fit(split.train, text, valid=split.valid, seed=seed)
                valid = valid_ndcg(model, split.train, split.valid)
                test = sc.compare({"symcere": model}, split, [sc.ndcg(10)]).mean("symcere", "ndcg@10")
                found.setdefault((label, name), []).append((valid, test))
                told = {"dataset": name, "seed": seed, "encoder": label, "valid": valid, "test": test}
                print(json.dumps(told), flush=True)
    print(f"| encoder | {' | '.join(names)} | mean |")
    print("|---|" + "---:|" * (len(names) + 1))
    for label in rows:
        means = [np.mean(found[label, name], axis=0) for name in names]
        cells = [f"{test:.4f} ({valid:.4f})" for valid, test in [*means, np.mean(means, axis=0)]]
        print(f"| {label} | {' | '.join(cells)} |")


def memory(n_reviews: int) -> None:
    """Encode synthetic reviews three times, each time in a process of its own; print seconds and peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        _write_synthetic(Path(folder) / "reviews.parquet", n_reviews)
        for encoders in ("distilled", "tfidf", "auto"):
            cache = Path(folder) / f"cache-{encoders}"
            told = []
            for again in range(3):
                if again == 2:  # as if one review had changed: every vector is there, the profiles are not
                    for profiles in cache.glob("profiles-*"):
                        shutil.rmtree(profiles)
                words = [sys.executable, __file__, "encode-once", folder, encoders]
                told.append(json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout))
            first, second, third = told
            print(
                f"{encoders}, {n_reviews:,} reviews: first run {first['seconds']:.1f} s ({first['cpu']:.1f} CPU-s), "
                f"again {second['seconds']:.2f} s ({first['seconds'] / second['seconds']:.0f}x faster), again with "
                f"vectors but no profiles {third['seconds']:.2f} s ({first['seconds'] / third['seconds']:.0f}x); "
                f"peak {first['peak']:.2f}, {second['peak']:.2f} and {third['peak']:.2f} GiB (before encoding: "
                f"{first['before']:.2f} GiB)",
                flush=True,
            )


def encode_once(folder: Path, encoders: str) -> None:
    """What `memory` measures: one call of encode_reviews."""
    table = pl.read_parquet(folder / "reviews.parquet")
    users, items = (IdMap(tuple(str(i) for i in range(table[name].max() + 1)), name) for name in ("user", "item"))
    review = table.select(REVIEW)
    train = Dataset(users, items, table["user"].to_numpy(), table["item"].to_numpy(), review)
    del table
    named = {"distilled": [sc.distilled_encoder()], "tfidf": [sc.tfidf_encoder()]}
    chosen = named.get(encoders) or sc.default_encoders(len(train))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    began, cpu = time.perf_counter(), time.process_time()
    sc.encode_reviews(train, *chosen, cache=folder / f"cache-{encoders}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    seconds = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}
    print(json.dumps(seconds | {"before": before, "peak": peak}))


def _write_synthetic(path: Path, n_reviews: int) -> None:
    """Reviews of Zipf-distributed made-up words, about 60 each, ten a user: every text its own."""
    draws = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlcumwfgypbvk"))
    vocabulary = np.array(
        ["".join(draws.choice(letters, 2 + draws.integers(8))) for _ in range(30_000)], dtype=object
    )
    share = 1 / (np.arange(len(vocabulary)) + 5.0)
    user = np.repeat(np.arange(-(-n_reviews // 10)), 10)[:n_reviews]
    n_items = max(1_000, n_reviews // 50)
    item = (user * 7_919 + np.arange(n_reviews) % 10 * (n_items // 10)) % n_items
    blocks = []
    for start in range(0, n_reviews, 50_000):
        n = np.clip(draws.lognormal(3.8, 0.7, min(50_000, n_reviews - start)), 5, 400).astype(int)
        word = vocabulary[draws.choice(len(vocabulary), n.sum(), p=share / share.sum())]
        blocks.append(pl.Series([" ".join(part) for part in np.split(word, np.cumsum(n)[:-1])]))
    text = pl.concat(blocks)
    table = pl.DataFrame({"user": user, "item": item, "title": "", "text": text}).with_columns(
        pl.lit(None, dtype=SCHEMA[name]).alias(name) for name in ("rating", "timestamp", "helpful")
    )
    table.sort("user", "item").write_parquet(path)


def _peer(python: str, corpus: Corpus) -> float:
    """Reviews per CPU-second of sentence-transformers' own encode, in its own interpreter."""
    model = SentenceEncoder().fit(None, VectorCache(None)).model
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "texts.json"
        file.write_text(json.dumps(corpus.take(slice(None))))
        done = subprocess.run([python, "-c", PEER, str(model), str(file)], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def _part(corpus: Corpus, n: int) -> Corpus:
    """Corpus of the first `n` texts: a random sample."""
    return corpus_of(corpus.take(slice(0, n)))


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).mean())


def _neighbours(a: np.ndarray, b: np.ndarray, k: int = 10) -> list[float]:
    """Share of the k nearest texts that both agree on."""
    nearest = []
    for x in (a, b):
        unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        cosine = unit @ unit.T
        np.fill_diagonal(cosine, -2)
        nearest.append(np.argsort(-cosine, axis=1)[:, :k])
    return [len(set(x) & set(y)) / k for x, y in zip(*nearest, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("speed", "ranking"):
        command = commands.add_parser(name)
        command.add_argument("data", type=Path)
    commands.choices["speed"].add_argument("--peer")
    commands.choices["ranking"].add_argument("--seeds", type=int, default=3)
    commands.choices["ranking"].add_argument("--datasets", nargs="+", default=list(DATASETS))
    commands.choices["ranking"].add_argument("--encoders", nargs="+", default=[], help="some of the rows")
    commands.choices["ranking"].add_argument("--cache", type=Path, default=Path("runs/cache"))
    commands.add_parser("memory").add_argument("--reviews", type=int, default=1_000_000)
    once = commands.add_parser("encode-once")
    once.add_argument("folder", type=Path)
    once.add_argument("encoders")
    asked = parser.parse_args()
    if asked.command == "speed":
        speed(asked.data, asked.peer)
    elif asked.command == "ranking":
        ranking(asked.data, asked.seeds, asked.datasets, asked.cache, asked.encoders)
    elif asked.command == "memory":
        memory(asked.reviews)
    else:
        encode_once(asked.folder, asked.encoders)


if __name__ == "__main__":
    main()
