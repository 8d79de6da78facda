"""The README keeps its word: its Python runs, its commands exist."""

import re
from pathlib import Path

import symcere as sc

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    sc.write_amazon(sc.anchoring_world(80, 40, 6), tmp_path / "reviews_Musical_Instruments_5.json.gz")
    names = {}
    exec(code.replace('"A1X2B3"', '"user00001"').replace("print(report)", "str(report)"), names)
    assert names["report"].systems == ["symcere", "ease"]
    assert sc.Recommender.load(tmp_path / "model").users == names["model"].users


def test_every_option_of_the_readme_exists():
    source = "".join(file.read_text(encoding="utf-8") for file in (Path(sc.__file__).parent / "cli").glob("*.py"))
    options = set(re.findall(r"symcere \w+ .*?(--[a-z-]+)", README))
    assert options
    assert all(f'"{option}"' in source for option in options)
