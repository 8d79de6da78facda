"""The figures of docs/log.md: SymCERE against the tuned baselines over three seeds, with time and peak memory.

    python runs/three_seeds.py FILE K_CORE [more options of `symcere run`]

Runs `symcere run FILE --k-core K_CORE --seeds 3` from scratch in a new folder, and prints its table, the seconds of
each fit, the seconds of evaluation and the peak memory of the process.
"""

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> None:
    file, k, *more = sys.argv[1:]
    folder = Path(tempfile.mkdtemp()) / "run"
    words = [
        "run",
        file,
        "--k-core",
        k,
        "--seeds",
        "3",
        "--out",
        str(folder),
        "--cache",
        str(folder / "cache"),
        *more,
    ]
    subprocess.run([sys.executable, "-m", "symcere", *words], check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    for manifest in sorted(folder.glob("stages/symcere-*/manifest.json")):
        stage = json.loads(manifest.read_text(encoding="utf-8"))
        print(f"{stage['stage']}: fit {stage['fit_seconds']:.1f} s, evaluation {stage['test_seconds']:.3f} s")
    result = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    for name, test in result["tests"].items():
        interval = f"[{test['low']:+z.4f}, {test['high']:+z.4f}]"
        print(f"symcere - {name}: {test['difference']:+z.4f} {interval} p {test['p_t']:.2g}")
    print(f"peak memory {peak:.2f} GiB")


if __name__ == "__main__":
    main()
