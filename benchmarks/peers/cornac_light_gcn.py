"""Cornac's LightGCN (over DGL): its seconds an epoch. Run by an interpreter that has both; prints JSON.

    PYTHON cornac_light_gcn.py PAIRS_CSV EPOCHS BATCH DIM LAYERS

Its training has no hook for an epoch: fits of two lengths are timed, and their difference is taken.
"""

import json
import sys
import time
import types

sys.modules["dgl.graphbolt"] = types.ModuleType("dgl.graphbolt")  # built for older versions of torch, not used here

import pandas as pd  # noqa: E402
from cornac.data import Dataset  # noqa: E402
from cornac.models import LightGCN  # noqa: E402

if __name__ == "__main__":
    pairs, n_epochs, batch_size, dim, n_layers = sys.argv[1], *map(int, sys.argv[2:])
    table = pd.read_csv(pairs, usecols=["user_id", "item_id"], dtype=str)
    data = Dataset.from_uir(
        [(user, item, 1.0) for user, item in zip(table.user_id, table.item_id, strict=True)], seed=0
    )

    def timed(n: int) -> float:
        model = LightGCN(
            emb_size=dim, num_epochs=n, batch_size=batch_size, num_layers=n_layers, seed=0, verbose=False
        )
        began = time.perf_counter()
        model.fit(data)
        return time.perf_counter() - began

    timed(1)
    print(json.dumps({"seconds": [(timed(1 + n_epochs) - timed(1)) / n_epochs]}))
