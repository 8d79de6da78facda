"""`symcere analyse` and `symcere explain`: as a user gives them, and the page in a real browser."""

import json
import re
import shutil

import polars as pl
import pytest

FAST = ["--set", "dim=16", "--set", "batch_size=256", "--set", "max_epochs=6"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run with titles, whose texts hold what a page must escape."""
    import sys

    import symcere as sc
    from symcere.cli import main

    folder = tmp_path_factory.mktemp("run")
    world = sc.anchoring_world(n_users=120, n_items=40, reviews_per_user=6)
    hostile = "<script>alert('x')</script> & <img src=http://example.org/x.png> "
    table = world.table.with_columns(
        text=pl.lit(hostile) + pl.col("text"), item_title=pl.lit("<b>Title</b> of ") + pl.col("item_id")
    )
    table.write_parquet(folder / "world.parquet")
    words = ["run", str(folder / "world.parquet"), "--systems", "none", "--out", str(folder / "out"), "--cache",
             str(folder / "cache"), "--quiet", "--json", *FAST]  # fmt: skip
    before, sys.argv = sys.argv, ["symcere", *words]
    try:
        main()
    except SystemExit:
        pass
    finally:
        sys.argv = before
    assert (folder / "out" / "manifest.json").exists()
    return folder


@pytest.fixture(scope="module")
def page(finished):
    """Its page, made in this process."""
    from symcere.cli.words import encoding_again
    from symcere.pipeline.analyse import analyse
    from symcere.pipeline.finished import FinishedRun
    from symcere.pipeline.workspace import Unwatched

    run = FinishedRun.open(finished / "out")
    how = encoding_again(run.encoding)
    return analyse(run, Unwatched(), how=how, cache=finished / "cache", command="symcere analyse <out>", umap=False,
                   n_tested=10)  # fmt: skip


def test_the_page_needs_nothing_else_and_runs_nothing(page):
    html = (page / "index.html").read_text()
    assert "<script" not in html.lower()
    assert "alert(&#39;x&#39;)" in html  # a snippet with what a hostile reviewer wrote
    assert "alert('x')" not in html
    assert not re.search(r'(?:src|href)="(?!#|data:|[\w.-]+\.csv")', html)
    assert "<b>Title</b>" not in html
    assert "&lt;b&gt;Title&lt;/b&gt; of" in html
    assert "symcere analyse &lt;out&gt;" in html


def test_every_finding_has_its_question_its_answer_and_its_data(page):
    html = (page / "index.html").read_text()
    found = json.loads((page / "findings.json").read_text())
    names = [each["name"] for each in found["findings"]]
    assert names == [
        "objective-subjective", "anchors", "weight-by-frequency", "mechanism", "faithfulness", "map", "spectrum",
        "lengths", "numbers", "popularity-dial",
    ]  # fmt: skip
    for each in found["findings"]:
        assert f'id="{each["name"]}"' in html
        assert pl.read_csv(page / f"{each['name']}.csv").height
    seen = pl.read_csv(page / "objective-subjective.csv")["seen by"].to_list()
    assert seen == ["symcere", "shuffled text", "no mask", "no sphere", "frozen encoder"]
    assert len(found["reasons"]) == 4
    for reason in found["reasons"]:
        assert sum(reason["parts"].values()) == pytest.approx(reason["score"], abs=1e-4)


@pytest.mark.slow
def test_the_command_makes_the_page_once_and_tells_the_answers(finished, symcere, tmp_path):
    words = ["analyse", finished / "out", "--cache", finished / "cache", "--no-umap", "--threads", 1]
    words += ["--out", tmp_path / "page"]
    code, out, err = symcere(*words)
    assert code == 0, err
    assert "up to date" not in err.splitlines()[-1]
    assert "Does the alignment hang on facts" in out
    before = (tmp_path / "page" / "index.html").read_bytes()
    code, out, err = symcere(*words, "--json")
    assert code == 0, err
    assert "up to date" in err
    assert json.loads(out)["folder"] == str(tmp_path / "page")
    assert (tmp_path / "page" / "index.html").read_bytes() == before


@pytest.mark.slow
def test_a_page_without_umap_is_made_again_once_it_is_installed(finished, page, tmp_path, monkeypatch):
    from symcere.cli.words import encoding_again
    from symcere.pipeline import analyse as module
    from symcere.pipeline.finished import FinishedRun
    from symcere.pipeline.workspace import Unwatched

    def make():
        return module.analyse(run, Unwatched(), how=encoding_again(run.encoding), cache=finished / "cache",
                              command="", n_tested=5, out=tmp_path / "page")  # fmt: skip

    run = FinishedRun.open(finished / "out")
    monkeypatch.setattr("symcere.analysis.map_page.has_umap", lambda: False)
    monkeypatch.setattr(module, "has_umap", lambda: False)
    assert "symcere[umap]" in (make() / "index.html").read_text()
    monkeypatch.setattr(module, "_controls", None)  # whoever goes on is noticed
    make()
    monkeypatch.setattr(module, "has_umap", lambda: True)
    with pytest.raises(TypeError, match="not callable"):
        make()


@pytest.mark.slow
def test_without_controls_the_page_says_what_it_cannot_say(finished, page, symcere, tmp_path):
    words = ["analyse", finished / "out", "--cache", finished / "cache", "--no-umap", "--no-controls"]
    code, out, err = symcere(*words, "--out", tmp_path / "page", "--json", "--threads", 1)
    assert code == 0, err
    assert "Without the controls" in json.loads(out)["notes"][0]
    assert pl.read_csv(tmp_path / "page" / "objective-subjective.csv")["seen by"].to_list() == [
        "symcere",
        "frozen encoder",
    ]


def test_explain_says_why(finished, symcere):
    run, cache = finished / "out", ["--cache", finished / "cache"]
    code, out, err = symcere("explain", run, "user00003", *cache)
    assert code == 0, err
    for words in ("score", "graph", "text", "popularity", "words of the item's reviews", "because the user chose"):
        assert words in out
    assert "<b>Title</b> of item" in out
    reasons = json.loads(symcere("explain", run, "user00003", "-k", 3, "-n", 2, "--json", *cache)[1])
    assert len(reasons) == 3
    assert all(len(each["item_words"]) <= 2 for each in reasons)
    item = reasons[2]["item_id"]
    (one,) = json.loads(symcere("explain", run, "user00003", item, "--json", *cache)[1])
    assert one["score"] == pytest.approx(reasons[2]["score"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["explain", "{run}", "nobody"], "nobody"),
        (["explain", "{run}", "user00003", "nothing"], "nothing"),
        (["explain", "{run}/model", "user00003"], "no folder of a finished run"),
        (["analyse", "{run}/nowhere"], "no folder of a finished run"),
        (["analyse", "{run}", "--seed", "7"], "has no seed 7"),
    ],
)
def test_what_cannot_be_explained_is_one_sentence(finished, symcere, words, said):
    code, out, err = symcere(*(word.replace("{run}", str(finished / "out")) for word in words))
    assert code == 2
    assert said in err
    assert "Traceback" not in err
    assert not out


def test_a_run_of_an_older_version_is_asked_to_be_made_again(finished, symcere, tmp_path):
    old = tmp_path / "old"
    shutil.copytree(finished / "out", old)
    about = json.loads((old / "manifest.json").read_text())
    del about["encoding"]
    (old / "manifest.json").write_text(json.dumps(about))
    code, _, err = symcere("analyse", old)
    assert code == 2
    assert "Give the command of the run again" in err.replace("\n", " ")


def test_a_run_by_vectors_of_a_file_cannot_say_which_words(finished, symcere, tmp_path):
    import numpy as np

    table = pl.read_parquet(finished / "world.parquet")
    ids = table["item_id"].unique().sort()
    np.save(tmp_path / "v.npy", np.random.default_rng(0).normal(size=(len(ids), 4)).astype(np.float32))
    pl.DataFrame({"item_id": ids}).write_csv(tmp_path / "v.keys.csv")
    run = [
        "run",
        finished / "world.parquet",
        "--systems",
        "none",
        "--encoder",
        tmp_path / "v.npy",
        "--out",
        tmp_path / "o",
    ]
    code, _, err = symcere(*run, *FAST, "--quiet")
    assert code == 0, err
    code, _, err = symcere("explain", tmp_path / "o", "user00003")
    assert code == 2
    assert "vectors of a file" in err


@pytest.mark.slow
def test_controls_fitted_by_other_processes_are_the_same(finished, page, symcere, tmp_path):
    shutil.copytree(
        finished / "out", tmp_path / "o", ignore=shutil.ignore_patterns("*no_*", "*shuffled*", "analysis")
    )
    code, _, err = symcere("analyse", tmp_path / "o", "--cache", finished / "cache", "--no-umap", "--threads", 2)
    assert code == 0, err
    there = tmp_path / "o" / "analysis"
    assert (there / "anchors.csv").read_bytes() == (page / "anchors.csv").read_bytes()


@pytest.mark.slow
def test_the_page_opens_in_a_browser_without_a_complaint(page):
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if not chromium:
        pytest.skip("no chromium: apt-get install chromium")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]  # fmt: skip
    said, asked = [], []
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=flags)
        for scheme, width in (("light", 1000), ("dark", 400)):
            view = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
            view.on("console", lambda message: said.append(message.text))
            view.on("pageerror", lambda error: said.append(str(error)))
            view.on("request", lambda request: asked.append(request.url))
            view.goto(f"file://{page / 'index.html'}")
            assert view.locator("figure svg[role=img]").count() >= 8
            assert view.locator("article.card").count() == 4
            # the page itself never scrolls sideways; a wide table or figure does inside its own box
            assert view.evaluate("document.documentElement.scrollWidth") <= width
            for name in ("objective-subjective", "popularity-dial"):
                view.locator(f'nav a[href="#{name}"]').click()
                assert view.locator(f"section#{name}").is_visible()
        browser.close()
    assert said == []
    assert all(url.startswith(("file://", "data:")) for url in asked)
