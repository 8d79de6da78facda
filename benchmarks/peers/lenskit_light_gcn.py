"""LensKit's LightGCN (torch-geometric's): its seconds an epoch. Run by an interpreter that has both; prints JSON.

PYTHON lenskit_light_gcn.py PAIRS_CSV EPOCHS BATCH DIM LAYERS
"""

import json
import sys
import time
import warnings

warnings.filterwarnings("ignore")

import pandas as pd  # noqa: E402
from lenskit.data import from_interactions_df  # noqa: E402
from lenskit.graphs.lightgcn import LightGCNScorer  # noqa: E402
from lenskit.training import TrainingOptions  # noqa: E402

if __name__ == "__main__":
    pairs, n_epochs, batch_size, dim, n_layers = sys.argv[1], *map(int, sys.argv[2:])
    data = from_interactions_df(pd.read_csv(pairs, usecols=["user_id", "item_id"], dtype=str))
    scorer = LightGCNScorer(embedding_size=dim, layer_count=n_layers, batch_size=batch_size, learning_rate=1e-3)
    trainer = scorer.create_trainer(data, TrainingOptions(rng=0, device="cpu"))
    seconds = []
    for _ in range(n_epochs):
        began = time.perf_counter()
        trainer.train_epoch()
        seconds.append(time.perf_counter() - began)
    print(json.dumps({"seconds": seconds}))
