"""How fast is training, beside its peers and against its own size?

    python benchmarks/train.py epoch FILE@K --recbole PYTHON [--lenskit PYTHON] [--cornac PYTHON]
    python benchmarks/train.py wall FILE@K --recbole PYTHON
    python benchmarks/train.py evaluate FILE@K --recbole PYTHON
    python benchmarks/train.py scale [--sizes 1e5,1e6,1e7,2e7]
    python benchmarks/train.py share [FILE@K]

epoch: seconds an epoch of LightGCN with BPR: the same train pairs, batch, dimension and layers for all; on FILE and
on a made world of 1,000,000 interactions; ours and the peers take turns, medians are told. wall: RecBole's LightGCN
trained to its own end by its own defaults, against SymCERE until it has the same valid NDCG@10. evaluate: NDCG@10 and
four more metrics of the same vectors on valid. scale: seconds an epoch, peak memory and what bounds them. share: what
sharing one propagation among several batches does to valid NDCG@10.

Each PYTHON is an interpreter with a peer (benchmarks/peers/), which is no dependency of ours: hopwise, which carries
RecBole; lenskit with torch-geometric; cornac with dgl. One thread, unless OMP_NUM_THREADS says more.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import polars as pl

import symcere as sc
from symcere.data.dataset import REVIEW, Dataset, HeldOut, Split, interaction_matrix
from symcere.data.typed import SCHEMA
from symcere.evaluation.compare import measure
from symcere.evaluation.measures import mean
from symcere.ids import IdMap
from symcere.ranking import rank
from symcere.recommender import Recommender
from symcere.text.features import TextFeatures
from symcere.training.config import GraphSettings
from symcere.training.loop import propagates_coarsely
from symcere.training.progress import Epoch

PEERS = Path(__file__).resolve().parent / "peers"
BATCH, DIM, LAYERS = 2_048, 64, 3


def real(words: str, seed: int = 0) -> Split:
    file, _, k = words.partition("@")
    return sc.split_random(sc.k_core(sc.read_reviews(Path(file)), int(k or 5)), seed=seed)


def made(n: int, seed: int = 0) -> Split:
    """A world of n interactions: n / 20 users, n / 200 items, twenty tastes, items of unequal popularity."""
    rng = np.random.default_rng(seed)
    n_users, n_items, tastes = max(n // 20, 20), max(n // 200, 200), 20
    keys: list[np.ndarray] = []
    for size in [2_000_000] * (n * 5 // 4 // 2_000_000) + [n * 5 // 4 % 2_000_000]:
        user = rng.integers(0, n_users, size)
        rank = np.floor(n_items // tastes * rng.random(size) ** 2)  # density 1 / sqrt(rank)
        taste = np.where(rng.random(size) < 0.7, user % tastes, rng.integers(0, tastes, size))
        keys.append(user * n_items + rank.astype(np.int64) * tastes + taste)
    pairs = np.unique(np.concatenate(keys))
    keys.clear()
    if len(pairs) > n:
        pairs = np.sort(rng.choice(pairs, n, replace=False))
    held = rng.random(len(pairs)) < min(0.1, 100_000 / len(pairs))
    users, items = (
        IdMap(tuple(f"{kind[0]}{row}" for row in range(size)), kind)
        for kind, size in (("user", n_users), ("item", n_items))
    )
    train = Dataset(users, items, *np.divmod(pairs[~held], n_items), no_reviews(int((~held).sum())))
    user, item = np.divmod(pairs[held], n_items)
    half = len(user) // 2
    valid, test = (HeldOut(users, items, user[part], item[part]) for part in (slice(half), slice(half, None)))
    return Split(train, valid, test, "random")


def no_reviews(n: int) -> pl.DataFrame:
    types = {name: SCHEMA[name] for name in REVIEW}
    value = {name: "" if dtype == pl.String else None for name, dtype in types.items()}
    return pl.DataFrame({name: pl.repeat(value[name], n, dtype=types[name], eager=True) for name in REVIEW})


def peer(python: str, script: str, *words: object) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:  # peers leave logs where they run
        command = [python, str(PEERS / f"{script}_light_gcn.py"), *map(str, words)]
        said = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    if said.returncode:
        return {"failed": said.stderr.strip().splitlines()[-1]}
    told: dict[str, Any] = json.loads(said.stdout.strip().splitlines()[-1])
    return told


def light_gcn_seconds(split: Split, n_epochs: int, together: int) -> list[float]:
    """Seconds of each epoch without validation, as the peers' are."""
    told: list[Epoch] = []
    settings = sc.LightGCNSettings(
        batch_size=BATCH, dim=DIM, n_layers=LAYERS, include_ego=True, learning_rate=1e-3, max_epochs=n_epochs,
        valid_every=n_epochs, valid_users=100, batches_per_propagation=together,
    )  # fmt: skip
    sc.fit_light_gcn(split.train, valid=split.valid, settings=[settings], on_epoch=told.append)
    return [len(split.train) / epoch.interactions_per_second for epoch in told]


def epoch(words: argparse.Namespace) -> None:
    for name, split, n_epochs in (("FILE", real(words.file), 20), (f"{words.made:,} made", made(words.made), 1)):
        with tempfile.TemporaryDirectory() as kept:
            recbole, csv = Path(kept) / "pairs", Path(kept) / "csv"
            sc.export_split(split, recbole, "recbole")
            sc.export_split(split, csv, "csv")
            seconds: dict[str, list[float]] = {}
            for _ in range(words.turns):
                seconds.setdefault("symcere", []).extend(light_gcn_seconds(split, n_epochs + 1, 1)[1:])
                seconds.setdefault("symcere, shared", []).extend(light_gcn_seconds(split, n_epochs + 1, 0)[1:])
                for other in ("recbole", "lenskit", "cornac"):
                    python = getattr(words, other)
                    if not python:
                        continue
                    given = ("epoch", recbole) if other == "recbole" else (csv / "train.csv",)
                    told = peer(python, other, *given, n_epochs + (other != "cornac"), BATCH, DIM, LAYERS)
                    if "failed" in told:
                        print(f"{other} did not run: {told['failed']}")
                    else:
                        seconds.setdefault(other, []).extend(told["seconds"][1:] or told["seconds"])
        ours = float(np.median(seconds["symcere"]))
        for system, values in seconds.items():
            median = float(np.median(values))
            print(
                f"{name}, {len(split.train):,} train: {system:<16} {median:9.4f} s an epoch, {median / ours:6.2f}x",
                flush=True,
            )


def own_ndcg(user: np.ndarray, item: np.ndarray, split: Split) -> tuple[float, float]:
    """Valid NDCG@10 of vectors by our ruler, with four more metrics, and its seconds."""
    system = Recommender(
        users=split.train.users, items=split.train.items, seen=split.train.seen, popularity=split.train.popularity,
        temperature=1.0, popularity_weight=0.0, user_emb=user, item_emb=item,
    )  # fmt: skip
    measures = [sc.recall(10), sc.mrr(10), sc.ndcg(10), sc.hit_rate(10), sc.precision(10)]
    began = time.perf_counter()
    values = measure(system, split.train, split.valid, measures, exclude=split.train.seen)
    return mean(values["ndcg@10"]), time.perf_counter() - began


def in_our_order(kept: dict[str, np.ndarray], split: Split) -> tuple[np.ndarray, np.ndarray]:
    sides = []
    for side, ids, names in (("user", split.train.users, "users"), ("item", split.train.items, "items")):
        at = {name: row for row, name in enumerate(kept[names].tolist())}
        whole = np.zeros((len(ids), kept[side].shape[1]), np.float32)
        for row, name in enumerate(ids.ids):
            if name in at:
                whole[row] = kept[side][at[name]]
        sides.append(whole)
    return sides[0], sides[1]


def wall(words: argparse.Namespace) -> None:
    split = real(words.file)
    with tempfile.TemporaryDirectory() as kept:
        sc.export_split(split, Path(kept) / "pairs", "recbole")
        theirs = peer(words.recbole, "recbole", "wall", Path(kept) / "pairs", Path(kept) / "vectors.npz")
        if "failed" in theirs:
            sys.exit(f"RecBole did not run: {theirs['failed']}")
        checked = own_ndcg(*in_our_order(dict(np.load(Path(kept) / "vectors.npz")), split), split)[0]
    full = theirs["seconds"]
    print(f"recbole: {full:.1f} s to its end, best valid NDCG@10 {theirs['best']:.4f} ({checked:.4f} by our ruler)")
    began = time.perf_counter()
    text = sc.encode_reviews(split.train, sc.tfidf_encoder())
    encoding = time.perf_counter() - began
    told: list[Epoch] = []
    sc.fit(split.train, text, valid=split.valid, settings=sc.SymcereSettings(valid_every=1), on_epoch=told.append)
    best, end = max(epoch.best_ndcg or 0.0 for epoch in told), told[-1].seconds
    print(f"symcere: best valid NDCG@10 {best:.4f}, {end:.1f} s to its end, {encoding:.1f} s of encoding before")
    if best >= theirs["best"]:
        there = next(epoch for epoch in told if (epoch.best_ndcg or 0.0) >= theirs["best"])
        print(
            f"symcere at RecBole's best after {there.epoch} epochs, {there.seconds:.2f} s: "
            f"{full / there.seconds:.1f}x; encoding included {full / (there.seconds + encoding):.1f}x"
        )


def evaluate(words: argparse.Namespace) -> None:
    for name, split in (("FILE", real(words.file)), (f"{words.made:,} made", made(words.made))):
        rng = np.random.default_rng(0)
        sizes = (len(split.train.users), len(split.train.items))
        user, item = (rng.standard_normal((size, DIM)).astype(np.float32) for size in sizes)
        item[:, 0] += np.log1p(split.train.popularity)  # so that there are hits to count
        user[:, 0] += 3
        with tempfile.TemporaryDirectory() as kept:
            sc.export_split(split, Path(kept) / "pairs", "recbole")
            ids = {"users": np.array(split.train.users.ids), "items": np.array(split.train.items.ids)}
            np.savez(Path(kept) / "vectors.npz", user=user, item=item, **ids)
            theirs = peer(words.recbole, "recbole", "evaluate", Path(kept) / "pairs", Path(kept) / "vectors.npz")
        if "failed" in theirs:
            sys.exit(f"RecBole did not run: {theirs['failed']}")
        ours = sorted(own_ndcg(user, item, split) for _ in range(3))
        seconds, median = float(np.median([one[1] for one in ours])), float(np.median(theirs["seconds"]))
        print(
            f"{name}, {len(np.unique(split.valid.user)):,} users x {sizes[1]:,} items: recbole {median:.3f} s "
            f"(NDCG@10 {theirs['ndcg@10']:.4f}), symcere {seconds:.4f} s ({ours[0][0]:.4f}), {median / seconds:.1f}x",
            flush=True,
        )
    told = in_a_process("rank", 100_000, 50_000)
    print(f"100,000 users x 50,000 items, the 20 best: {told['seconds']:.0f} s, {told['grown']:.2f} GiB more memory")


def rank_all(n_users: int, n_items: int) -> dict[str, Any]:
    """Rank 50,000 items for 100,000 users, or as many as asked; seconds, and what that took of memory."""
    rng = np.random.default_rng(0)
    user, item = (rng.standard_normal((size, DIM), np.float32) for size in (n_users, n_items))
    seen = interaction_matrix(
        np.repeat(np.arange(n_users), 20), rng.integers(0, n_items, 20 * n_users), n_users, n_items
    )
    names = (IdMap(tuple(map(str, range(size))), kind) for kind, size in (("user", n_users), ("item", n_items)))
    popularity = np.bincount(seen.indices, minlength=n_items).astype(np.float32)
    system = Recommender(
        *names, seen=seen, popularity=popularity, temperature=1.0, popularity_weight=0.5, user_emb=user, item_emb=item
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    rank(system, np.arange(n_users), 20, seen)
    return {
        "seconds": time.perf_counter() - began,
        "grown": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20,
    }


def bandwidth() -> float:
    """Bytes a second of copying what no cache holds, read and written."""
    source = np.ones(64_000_000, np.float32)
    target = np.empty_like(source)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        np.copyto(target, source)
        seconds.append(time.perf_counter() - began)
    return 2 * source.nbytes / min(seconds)


def in_a_process(*words: object) -> dict[str, Any]:
    """The same script in a process of its own, whose peak memory is its own."""
    said = subprocess.run([sys.executable, __file__, *map(str, words)], capture_output=True, text=True, check=False)
    if said.returncode:
        sys.exit(said.stderr)
    told: dict[str, Any] = json.loads(said.stdout.strip().splitlines()[-1])
    return told


def one_size(n: int, system: str) -> dict[str, Any]:
    """Fit an epoch or two by defaults in this process; what they took, and its peak."""
    split = made(n)
    ready = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told: list[Epoch] = []
    n_epochs = 2 if n < 5_000_000 else 1
    more = {"max_epochs": n_epochs, "valid_every": n_epochs}
    settings: GraphSettings
    if system == "light_gcn":
        settings = sc.LightGCNSettings(**more)
        sc.fit_light_gcn(split.train, valid=split.valid, settings=[settings], on_epoch=told.append)
    else:
        rng = np.random.default_rng(0)
        sides = (rng.standard_normal((len(ids), 64), np.float32) for ids in (split.train.users, split.train.items))
        text, settings = TextFeatures(*sides, "made", "made"), sc.SymcereSettings(**more)
        sc.fit(split.train, text, valid=split.valid, settings=settings, on_epoch=told.append)
    n_train = len(split.train)
    learning = [n_train / epoch.interactions_per_second for epoch in told]
    return {
        "n": n_train,
        "nodes": len(split.train.users) + len(split.train.items),
        "layers": settings.n_layers,
        "coarse": propagates_coarsely(settings, len(split.train.users) + len(split.train.items)),
        "steps": math.ceil(math.ceil(n_train / settings.batch_size) / settings.batches_per_step(n_train)),
        "seconds": learning[-1],
        "evaluation": told[-1].seconds - sum(learning),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "data": ready / 2**20,
    }


def scale(words: argparse.Namespace) -> None:
    speed = bandwidth()
    print(f"memory bandwidth, one thread: {speed / 1e9:.1f} GB/s")
    for system in words.systems.split(","):
        rows = []
        for size in words.sizes.split(","):
            row = in_a_process("one", int(float(size)), system)
            rows.append(row)
            # a layer gathers a row and its index (in float32 a weight too) for each end of an interaction, and
            # writes and adds a row a node
            width, index = (2, 4) if row["coarse"] else (4, 8)
            layer = 2 * row["n"] * (width * DIM + index) + 3 * row["nodes"] * width * DIM
            moved = row["steps"] * 2 * row["layers"] * layer
            print(
                f"{system} {row['n']:>11,} interactions: {row['seconds']:8.2f} s an epoch of {row['steps']} steps, "
                f"evaluation {row['evaluation']:.2f} s, peak {row['peak']:.2f} GiB ({row['data']:.2f} of data); "
                f"propagation moves {moved / 1e9:.1f} GB, {moved / speed:.1f} s at that bandwidth",
                flush=True,
            )
        x, y = (np.log10([row[key] for row in rows]) for key in ("n", "seconds"))
        if len(rows) > 1:
            slope, end = np.polyfit(x, y, 1)[0], (y[-1] - y[-2]) / (x[-1] - x[-2])
            print(f"{system}: log-log slope {slope:.2f} over all sizes, {end:.2f} at the end")


def share(words: argparse.Namespace) -> None:
    for together in (1, 2, 4, 8) if words.file else ():
        found = []
        for seed in range(3):
            split = real(words.file, seed)
            text = sc.encode_reviews(split.train, sc.tfidf_encoder())
            ours = sc.SymcereSettings(batches_per_propagation=together)
            told: list[Epoch] = []
            sc.fit(split.train, text, valid=split.valid, settings=ours, seed=seed, on_epoch=told.append)
            found.append((max(epoch.best_ndcg or 0.0 for epoch in told), len(told), told[-1].seconds))
        ndcg, n, seconds = np.mean(found, axis=0)
        print(
            f"symcere, FILE, {together} batches a propagation: valid NDCG@10 {ndcg:.4f}, {n:.0f} epochs, "
            f"{seconds:.1f} s",
            flush=True,
        )
    split = made(words.made)
    for together in (1, 4, 8, 16):
        told = []
        settings = sc.LightGCNSettings(
            batches_per_propagation=together, max_epochs=words.epochs, valid_every=2, valid_users=5_000
        )
        sc.fit_light_gcn(split.train, valid=split.valid, settings=[settings], on_epoch=told.append)
        seconds = sum(len(split.train) / epoch.interactions_per_second for epoch in told)
        best = " ".join(f"{epoch.best_ndcg:.4f}" for epoch in told if epoch.valid_ndcg is not None)
        print(
            f"light_gcn, {words.made:,} made, {together} batches a propagation: {len(told)} epochs, {seconds:.0f} s; "
            f"best valid NDCG@10 by epoch {best}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("epoch", "wall", "evaluate", "scale", "share", "one", "rank"))
    parser.add_argument("file", nargs="?")
    parser.add_argument("system", nargs="?")
    for other in ("recbole", "lenskit", "cornac"):
        parser.add_argument(f"--{other}", metavar="PYTHON")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--sizes", default="1e5,1e6,1e7,2e7")
    parser.add_argument("--systems", default="light_gcn,symcere")
    parser.add_argument("--made", type=int, default=1_000_000, help="interactions of the made world")
    parser.add_argument("--epochs", type=int, default=40)
    words = parser.parse_args()
    if words.what == "one":
        print(json.dumps(one_size(int(words.file), words.system)))
        return
    if words.what == "rank":
        print(json.dumps(rank_all(int(words.file), int(words.system))))
        return
    if words.what in ("epoch", "wall", "evaluate") and not (words.file and words.recbole):
        parser.error(f"{words.what} needs FILE@K and --recbole PYTHON")
    {"epoch": epoch, "wall": wall, "evaluate": evaluate, "scale": scale, "share": share}[words.what](words)


if __name__ == "__main__":
    main()
