"""RecBole's LightGCN, as hopwise carries it: its seconds an epoch, its own full training, its evaluation.

Run by an interpreter that has hopwise; prints one JSON object. FOLDER is an export to RecBole's files.

    PYTHON recbole_light_gcn.py epoch FOLDER EPOCHS BATCH DIM LAYERS
    PYTHON recbole_light_gcn.py wall FOLDER OUT_NPZ          by its defaults, to its end; writes its vectors
    PYTHON recbole_light_gcn.py evaluate FOLDER IN_NPZ       NDCG@10 and four more on valid, of these vectors
"""

import json
import logging
import sys
import time
from pathlib import Path

import numpy as np
import torch
from hopwise.config import Config
from hopwise.data import create_dataset, data_preparation
from hopwise.utils import get_model, get_trainer, init_seed


def prepared(folder: Path, **settings):
    """Configuration, data loaders, model and trainer, as its own quick start makes them."""
    fixed = {
        "data_path": str(folder.parent), "use_gpu": False, "show_progress": False, "seed": 0, "reproducibility": True,
        "checkpoint_dir": str(folder / "saved"), "state": "ERROR",
    }  # fmt: skip
    sys.argv = sys.argv[:1]
    config = Config("LightGCN", folder.name, [str(folder / f"{folder.name}.yaml")], fixed | settings)
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    train, valid, _ = data_preparation(config, dataset)
    model = get_model("LightGCN")(config, train.dataset)
    return config, dataset, train, valid, model, get_trainer(config["MODEL_TYPE"], config["model"])(config, model)


def vectors(model, dataset):
    """Ids and final vectors; RecBole's row 0 is padding."""
    with torch.no_grad():
        user, item = (side.numpy()[1:] for side in model.forward())
    names = (dataset.field2id_token[field][1:].astype(str) for field in (dataset.uid_field, dataset.iid_field))
    return dict(zip(("users", "items"), names, strict=True)) | {"user": user, "item": item}


def epoch(folder, n_epochs, batch_size, dim, n_layers):
    settings = {"train_batch_size": batch_size, "embedding_size": dim, "n_layers": n_layers}
    *_, train, _, _, trainer = prepared(folder, **settings)
    seconds = []
    for number in range(n_epochs):
        began = time.perf_counter()
        trainer._train_epoch(train, number, show_progress=False)
        seconds.append(time.perf_counter() - began)
    return {"seconds": seconds}


def wall(folder, out):
    _, dataset, train, valid, model, trainer = prepared(folder)
    began = time.perf_counter()
    best, _ = trainer.fit(train, valid, saved=True, show_progress=False, verbose=False)
    seconds = time.perf_counter() - began
    state = torch.load(trainer.saved_model_file, weights_only=False)
    model.load_state_dict(state["state_dict"])
    np.savez(out, **vectors(model, dataset))
    return {
        "seconds": seconds,
        "best": float(best),
        "stopped_after_epoch": int(trainer.start_epoch or state["epoch"]),
    }


def evaluate(folder, given):
    _, dataset, train, valid, model, trainer = prepared(folder)
    trainer.eval_collector.train_data_collect(train)
    kept = np.load(given)
    at = {name: {id_: row for row, id_ in enumerate(kept[name].tolist())} for name in ("users", "items")}
    for side, field, name in (("user", dataset.uid_field, "users"), ("item", dataset.iid_field, "items")):
        rows = [at[name][token] for token in dataset.field2id_token[field][1:].astype(str)]
        whole = np.zeros((len(rows) + 1, kept[side].shape[1]), np.float32)
        whole[1:] = kept[side][rows]
        setattr(model, f"restore_{side}_e", torch.from_numpy(whole))
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        found = trainer.evaluate(valid, load_best_model=False, show_progress=False)
        seconds.append(time.perf_counter() - began)
    return {"seconds": seconds, "ndcg@10": float(found["ndcg@10"])}


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    what, folder, *words = sys.argv[1:]
    numbers = [int(word) if word.isdigit() else word for word in words]
    print(json.dumps({"epoch": epoch, "wall": wall, "evaluate": evaluate}[what](Path(folder).absolute(), *numbers)))
