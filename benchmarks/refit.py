"""What does learning from the held-out part give, once it has chosen?

    python benchmarks/refit.py NAME=FILE@K... [--seeds 3]

SymCERE by its defaults on the random split of each data set: fitted on train, its epoch, dial and weight of the text
chosen on valid; then fitted once more on train and valid together as that chose (`Chosen`), which is what
`symcere export --refit` does with everything. Both rank test, the items of train and valid left out: NDCG@10, the
mean over seeds, a paired t over users (each the mean of their seeds), and the seconds of both fits.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import polars as pl

import symcere as sc
from symcere.data.dataset import Dataset
from symcere.evaluation.compare import measure_test
from symcere.evaluation.significance import paired_test
from symcere.training.progress import Epoch


def without(everything: Dataset, held_out: sc.HeldOut) -> Dataset:
    """All interactions but those."""
    pair, n = everything.user * len(everything.items) + everything.item, len(everything.items)
    kept = ~np.isin(pair, held_out.user * n + held_out.item)
    review = everything.review.filter(pl.Series(kept))
    return Dataset(everything.users, everything.items, everything.user[kept], everything.item[kept], review)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", nargs="+")
    parser.add_argument("--seeds", type=int, default=3)
    words = parser.parse_args()
    for word in words.data:
        data, _, at = word.partition("=")
        file, _, k = at.rpartition("@")
        reviews = sc.k_core(sc.read_reviews(Path(file)), int(k))
        everything = sc.undivided(reviews)
        ndcg = {name: np.full((words.seeds, len(everything.users)), np.nan) for name in ("train", "train and valid")}
        seconds: dict[str, list[float]] = {name: [] for name in ndcg}
        for seed in range(words.seeds):
            split = sc.split_random(reviews, seed=seed)
            encoders = sc.default_encoders(len(split.train))
            known, valid = split.train, split.valid
            for name in ndcg:
                text = sc.encode_reviews(known, *encoders, cache="runs/cache")
                told: list[Epoch] = []
                began = time.perf_counter()
                model = sc.fit(known, text, valid=valid, seed=seed, on_epoch=told.append)
                seconds[name].append(time.perf_counter() - began)
                ndcg[name][seed, np.unique(split.test.user)] = measure_test(model, split, [sc.ndcg(10)])["ndcg@10"]
                if name == "train":
                    known, valid = without(everything, split.test), sc.Chosen.of(model, told)
        tested = ~np.isnan(ndcg["train"]).all(axis=0)
        test = paired_test(*(np.nanmean(ndcg[name][:, tested], axis=0) for name in ("train and valid", "train")))
        before, after = (float(np.nanmean(values, axis=1).mean()) for values in ndcg.values())
        print(
            f"{data}: {before:.4f} from train, {after:.4f} from train and valid "
            f"({after / before - 1:+.1%}, p {test.p_t:.2g}); "
            + ", ".join(f"{np.median(values):.1f} s" for values in seconds.values()),
            flush=True,
        )


if __name__ == "__main__":
    main()
