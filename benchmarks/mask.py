"""What share of a training step does the false-negative mask cost?

Times the mask of one batch (coordinates of known pairs) against the whole step (mask, forward, backward, Adam),
on a review file or, without one, on a synthetic world. Prints medians and their ratio.

    python benchmarks/mask.py [FILE]
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import symcere as sc
from symcere.graph import norm_adj
from symcere.models.lightgcn import GraphTower
from symcere.models.projection import TextTower
from symcere.models.symcere import SymcereModel
from symcere.training.batches import batches
from symcere.training.known import known_pairs
from symcere.training.loop import torch_generator


def main() -> None:
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp()) / "world.json.gz"
    if not file.exists():
        sc.write_amazon(sc.anchoring_world(), file)
    train = sc.split_random(sc.k_core(sc.read_reviews(file), 5)).train
    settings = sc.SymcereSettings()
    text = sc.encode_reviews(train, sc.tfidf_encoder())
    n_users, n_items = len(train.users), len(train.items)
    graph = GraphTower(
        norm_adj(train.user, train.item, n_users, n_items),
        settings.dim,
        settings.n_layers,
        include_ego=settings.include_ego,
        generator=torch_generator(0),
    )
    tower = TextTower(torch.from_numpy(np.concatenate([text.user, text.item])), settings.dim, 0, torch_generator(1))
    model = SymcereModel(graph, tower, n_users, temperature=settings.temperature, text_weight=settings.text_weight)
    optimiser = torch.optim.Adam(model.parameters())
    mask_seconds, step_seconds = [], []
    draws = np.random.default_rng(0)
    for _ in range(10):
        epoch = batches(train, settings.batch_size, "history", draws)
        began = time.perf_counter()
        for batch in epoch:
            optimiser.zero_grad()
            terms = model.terms(batch.user, batch.item, batch.negative, batch.known, model.tables())
            sum(settings.weights[name] * term for name, term in terms.items()).backward()
            optimiser.step()
            step_seconds.append(time.perf_counter() - began)
            user, item = batch.user.numpy(), batch.item.numpy()
            began = time.perf_counter()
            known_pairs(user, item, train.matrix)
            mask_seconds.append(time.perf_counter() - began)
            began = time.perf_counter()
    mask, step = np.median(mask_seconds), np.median(step_seconds)
    print(f"batch {settings.batch_size}: mask {mask * 1e3:.2f} ms, step {step * 1e3:.2f} ms, share {mask / step:.1%}")


if __name__ == "__main__":
    main()
