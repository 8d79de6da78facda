"""Our metrics against ranx on the same run and judgement files, in an interpreter that has ranx (`make peers`)."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

import symcere as sc
from symcere.evaluation.compare import measure_test

OURS_TO_THEIRS = {
    "ndcg@10": "ndcg@10",
    "ndcg@20": "ndcg@20",
    "recall@10": "recall@10",
    "recall@20": "recall@20",
    "precision@10": "precision@10",
    "hit_rate@10": "hit_rate@10",
    "mrr@10": "mrr@10",
    "map@10": "map@10",
}

ASK = """
import json, sys
from ranx import Qrels, Run, evaluate
qrels = Qrels.from_file(sys.argv[1], kind="trec")
run = Run.from_file(sys.argv[2], kind="trec")
run.make_comparable(qrels)
evaluate(qrels, run, sys.argv[3:])
print(json.dumps({name: dict(values) for name, values in run.scores.items()}))
"""

PYTHON = os.environ.get("SYMCERE_RANX_PYTHON") or str(Path(__file__).parents[1] / ".venv-peers" / "bin" / "python")


@pytest.mark.slow
@pytest.mark.skipif(not Path(PYTHON).exists(), reason="no interpreter with ranx: make peers")
@pytest.mark.parametrize("system", ["popularity", "symcere"])
def test_ranx_gives_our_values_from_our_files(split, model, tmp_path, system):
    scorer = model if system == "symcere" else sc.fit_popularity(split.train, valid=split.valid)
    sc.export_split(split, tmp_path, "trec")
    sc.write_run(scorer, split, tmp_path / "run.trec")
    words = [PYTHON, "-c", ASK, tmp_path / "test.qrels", tmp_path / "run.trec", *OURS_TO_THEIRS.values()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout.splitlines()[-1])
    ours = measure_test(scorer, split, sc.standard_measures())
    users = [split.train.users.id(int(user)) for user in np.unique(split.test.user)]
    for label, name in OURS_TO_THEIRS.items():
        np.testing.assert_allclose(ours[label], [theirs[name][user] for user in users], rtol=0, atol=1e-9)
