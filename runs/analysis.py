"""Make docs/analysis-findings.md and the pictures of docs/analysis.md: what SymCERE learned on two data sets.

    python runs/analysis.py DATA [--out runs/analysis] [--no-page]

DATA is the folder of real reviews. Runs `symcere run --encoder tfidf` and `symcere analyse`, as a user would, and
says how long each page took; with chromium and playwright it also takes the pictures.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import polars as pl

SETS = {
    "Musical Instruments": ("amazon-2014/reviews_Musical_Instruments_5.json.gz", "5"),
    "TripAdvisor": ("tripadvisor/reviews_core3.parquet", "3"),
}
DOCS = Path(__file__).resolve().parents[1] / "docs"
PICTURES = {
    "anchoring": "section#objective-subjective", "anchors": "section#anchors", "faithfulness": "section#faithfulness",
    "map": "section#map", "reasons": "article.card",
}  # fmt: skip


def slug(name: str) -> str:
    return name.lower().replace(" ", "-")


def symcere(*words: str) -> str:
    command = [sys.executable, "-m", "symcere", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def analysed(data: Path, out: Path) -> dict[str, tuple[Path, float]]:
    made = {}
    for name, (file, k) in SETS.items():
        folder = out / slug(name)
        run = ["run", str(data / file), "--k-core", k, "--systems", "none", "--out", str(folder)]
        symcere(*run, "--encoder", "tfidf", "--cache", str(out / "cache"), "--json")
        began = time.perf_counter()
        symcere("analyse", str(folder), "--cache", str(out / "cache"), "--json")
        made[name] = (folder / "analysis", time.perf_counter() - began)
    return made


def pictures(page: Path, name: str) -> None:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    assert chromium, "apt-get install chromium"
    with sync_playwright() as play:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
        browser = play.chromium.launch(executable_path=chromium, args=flags)
        view = browser.new_page(viewport={"width": 1_000, "height": 900})
        view.goto(f"file://{page.resolve() / 'index.html'}")
        for picture, where in PICTURES.items():
            view.locator(where).first.screenshot(path=str(DOCS / "figures" / f"analysis-{slug(name)}-{picture}.png"))
        browser.close()


def findings(made: dict[str, tuple[Path, float]]) -> str:
    lines = [
        "# What was learned: findings on two data sets", "",
        "Written by `python runs/analysis.py DATA`: the answers of `symcere analyse` for plain TF-IDF, word for "
        "word. What they mean, and how they are measured: [analysis.md](analysis.md).", "",
    ]  # fmt: skip
    for name, (page, _) in made.items():
        found = json.loads((page / "findings.json").read_text(encoding="utf-8"))
        lines += [f"## {name}", ""]
        for each in found["findings"]:
            lines += [f"**{each['question']}** {each['answer']}", ""]
        table = pl.read_csv(page / "objective-subjective.csv")
        lines += ["Objective against subjective words, matched by document frequency (P: an objective word outweighs "
                  "a subjective one; 95 % intervals):", "",
                  "| seen by | objective | subjective | difference | P |", "|---|---:|---:|---|---|"]  # fmt: skip
        for row in table.iter_rows(named=True):
            gap = f"{row['gap from']:+z.5f} to {row['gap to']:+z.5f}"
            p = f"{row['P']:.3f} ({row['P from']:.3f} to {row['P to']:.3f})"
            lines.append(f"| {row['seen by']} | {row['objective']:z.5f} | {row['subjective']:z.5f} | {gap} | {p} |")
        words = pl.read_csv(page / "anchors.csv").head(30)
        lines += ["", "The 30 surest anchors (reviews; weight, 95 % interval):", ""]
        lines.append("; ".join(
            f"{row['word']} ({row['reviews']:,}; {row['weight']:.3f}, {row['low']:.3f} to {row['high']:.3f})"
            for row in words.iter_rows(named=True)
        ) + ".")  # fmt: skip
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/analysis"))
    parser.add_argument("--no-page", action="store_true", help="leave docs/ as it is")
    given = parser.parse_args()
    made = analysed(given.data, given.out)
    for name, (page, seconds) in made.items():
        print(f"{name}: {seconds:.0f} s, {page / 'index.html'}")
        if not given.no_page:
            pictures(page, name)
    if not given.no_page:
        text = findings(made)
        assert not re.search(r"/(tmp|home|work)/", text)
        (DOCS / "analysis-findings.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
