"""Search the settings of SymCERE or LightGCN on valid NDCG@10: where the defaults come from (docs/log.md).

    python runs/search_settings.py symcere|light_gcn FILE K_CORE N_TRIALS

One split (seed 0), one fit a trial, TPE with a fixed seed; test is never looked at. The first trials are known
settings. Trials go to a SQLite file beside this script, so that a stopped search goes on.
"""

import sys
from pathlib import Path

import optuna

import symcere as sc
from symcere.training.tuning import valid_ndcg

STORAGE = Path(__file__).parent / "search" / "trials.db"
GRAPH = {"include_ego": False, "n_layers": 2, "w_l2": 1e-4}
FIRST = {
    "symcere": [
        GRAPH
        | {"learning_rate": 1e-3, "batch_size": 2048, "temperature": 0.5, "text_weight": 1.0}
        | {"w_cross": 0.5, "w_intra_graph": 1.0, "w_intra_text": 1.0, "w_bpr": 0.1},
        GRAPH
        | {"learning_rate": 5e-3, "batch_size": 1024, "temperature": 0.3, "text_weight": 0.5}
        | {"w_cross": 1.0, "w_intra_graph": 1.0, "w_intra_text": 1.0, "w_bpr": 1.0},
    ],
    "light_gcn": [
        {"include_ego": True, "n_layers": 3, "w_l2": 1e-4, "learning_rate": 1e-3, "batch_size": 2048},
        {"include_ego": False, "n_layers": 3, "w_l2": 1e-3, "learning_rate": 5e-3, "batch_size": 2048},
    ],
}


def main() -> None:
    system, file, k, n_trials = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    split = sc.split_random(sc.k_core(sc.read_reviews(file), k), seed=0)
    text = sc.encode_reviews(split.train, sc.tfidf_encoder())

    def objective(trial: optuna.Trial) -> float:
        graph = {
            "learning_rate": trial.suggest_float("learning_rate", 5e-4, 2e-2, log=True),
            "batch_size": trial.suggest_categorical("batch_size", [512, 1024, 2048]),
            "n_layers": trial.suggest_int("n_layers", 1, 4),
            "include_ego": trial.suggest_categorical("include_ego", [False, True]),
            "w_l2": trial.suggest_float("w_l2", 1e-6, 1e-1, log=True),
        }
        if system == "light_gcn":
            settings = [sc.LightGCNSettings(**graph)]
            model = sc.fit_light_gcn(split.train, valid=split.valid, settings=settings)
        else:
            ours = {
                "temperature": trial.suggest_float("temperature", 0.1, 0.8, log=True),
                "text_weight": trial.suggest_float("text_weight", 0.3, 3, log=True),
                **{
                    name: trial.suggest_float(name, 0.05, 3, log=True)
                    for name in ("w_cross", "w_intra_graph", "w_intra_text", "w_bpr")
                },
            }
            model = sc.fit(split.train, text, valid=split.valid, settings=sc.SymcereSettings(**graph, **ours))
        return valid_ndcg(model, split.train, split.valid)

    STORAGE.parent.mkdir(exist_ok=True)
    study = optuna.create_study(
        study_name=f"{system} {file.name} {k}",
        storage=f"sqlite:///{STORAGE}",
        load_if_exists=True,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=0, multivariate=True),
    )
    if not study.trials:
        for settings in FIRST[system]:
            study.enqueue_trial(settings)
    done = sum(trial.state.is_finished() for trial in study.trials)
    study.optimize(objective, n_trials=max(0, n_trials - done))
    best = sorted((trial for trial in study.trials if trial.value is not None), key=lambda trial: -trial.value)[:5]
    for trial in best:
        print(f"valid ndcg@10 {trial.value:.4f}", {key: trial.params[key] for key in sorted(trial.params)})


if __name__ == "__main__":
    main()
