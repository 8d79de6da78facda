"""The options that commands share: their words, their help, and the only home of option strings."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    pass


class SplitName(StrEnum):
    """How interactions are held out."""

    RANDOM = "random"
    LEAVE_LAST_OUT = "leave-last-out"
    TEMPORAL = "temporal"
    COLD_ITEMS = "cold-items"
    COLD_USERS = "cold-users"
    K_FOLD = "k-fold"


class ExportName(StrEnum):
    """A bundle to serve, and formats of other tools."""

    BUNDLE = "bundle"
    RECBOLE = "recbole"
    CSV = "csv"
    TREC = "trec"


class ConditioningName(StrEnum):
    """What is done to text vectors before they are profiles."""

    NONE = "none"
    CENTRE = "centre"
    WHITEN = "whiten"


Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Folder to write; runs/NAME_OF_THE_FILE if left out.", show_default=False),
]
File = Annotated[
    Path,
    typer.Argument(
        help="JSON lines or array, CSV, TSV (also gzipped), Parquet, TripAdvisor or RecBole file, or a folder of "
        "such files.",
        show_default=False,
    ),
]
KCoreOption = Annotated[
    int,
    typer.Option("--k-core", min=1, help="Keep users and items with at least this many reviews, iterated."),
]
ItemK = Annotated[
    int | None,
    typer.Option("--item-k", min=1, help="The same for items alone; --k-core is for users then.", show_default=False),
]
MinRatingOption = Annotated[
    float | None, typer.Option("--min-rating", help="Keep reviews rated at least so.", show_default=False)
]
Since = Annotated[
    str | None, typer.Option("--since", help="Keep reviews from this day on, as 2014-01-31.", show_default=False)
]
Until = Annotated[str | None, typer.Option("--until", help="Keep reviews before this day.", show_default=False)]
MinChars = Annotated[
    int | None,
    typer.Option("--min-chars", min=0, help="Keep reviews with at least so many characters.", show_default=False),
]
MaxChars = Annotated[int | None, typer.Option("--max-chars", min=0, help="And at most so many.", show_default=False)]
SampleUsers = Annotated[
    float | None,
    typer.Option("--sample", help="Keep a random share of the users, with all their reviews.", show_default=False),
]
ItemsFile = Annotated[
    Path | None,
    typer.Option("--items", help="File of the items' titles and categories.", show_default=False),
]
AskFrom = Annotated[
    int,
    typer.Option(
        min=1,
        help="Hold out from users with at least so many interactions; the others are learned from and not asked. "
        "With a low --k-core and an --item-k of its own: nothing that anybody wrote is lost.",
    ),
]
SplitOption = Annotated[SplitName, typer.Option("--split", help="How interactions are held out, 8:1:1.")]
Folds = Annotated[
    int | None,
    typer.Option(
        "--folds", min=3, help="Folds of --split k-fold; each is tested once, as a seed of its own.", show_default="5"
    ),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="First seed, of split and training.")]
Seeds = Annotated[int, typer.Option("--seeds", min=1, help="Number of seeds; results are their means.")]
EncoderOption = Annotated[
    str,
    typer.Option(
        "--encoder",
        help="lift, tfidf, distilled, sentence, sentence-float32, or a .npy or .parquet file of your own vectors; "
        "several joined by a plus: lift+distilled. auto takes lift, and lift+distilled from 25,000 train reviews on.",
    ),
]
TextDim = Annotated[
    int | None,
    typer.Option(
        "--text-dim", min=1, help="Length of a text profile.", show_default="384 lift and tfidf, 256 others"
    ),
]
ConditioningOption = Annotated[
    ConditioningName | None,
    typer.Option(
        "--conditioning",
        help="What is done to text vectors.",
        show_default="none for lift and tfidf, whiten for others",
    ),
]
MaxTokens = Annotated[
    int, typer.Option("--max-tokens", min=3, max=512, help="The sentence encoder reads no further.")
]
ProfileOption = Annotated[
    str,
    typer.Option(
        "--profile",
        help="mean, or by comma: recency, helpfulness, length, inverse-frequency (weights of reviews); title-body (a "
        "profile of each); leave-one-out (training leaves the review of a pair out of its profiles).",
    ),
]
NoiseOption = Annotated[
    str,
    typer.Option(
        "--noise",
        help="Noise in the train texts, KIND=RATE by comma: typos (share of words), truncation, shuffled, missing, "
        "spam (share of reviews). Interactions and held-out parts stay.",
        show_default="none",
    ),
]
SystemsOption = Annotated[
    str,
    typer.Option(
        "--systems",
        help="Baselines beside symcere, by comma: popularity, item_knn, ease, bpr_mf, light_gcn, light_gcn_ssm, "
        "sim_gcl, x_sim_gcl, direct_au, text_only, rlmrec_con, alpha_rec, narre, rgcl; all; or none.",
    ),
]
ImportRun = Annotated[
    list[str] | None,
    typer.Option(
        "--import-run",
        help="Rankings of another system, NAME=FILE, repeated: a TREC run or CSV (user_id, item_id, score or rank), "
        "made on this split; {seed} in FILE stands for the seed.",
        show_default=False,
    ),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        "--columns",
        help="Column map OURS=THEIRS, by comma or repeated. Ours: user_id, item_id, rating, timestamp, helpful, "
        "title, text.",
        show_default=False,
    ),
]
SourceOption = Annotated[
    str | None,
    typer.Option(
        "--source",
        help="Take the file for: amazon-2014, amazon-2018, amazon-2023, yelp, google-local, hotelrec, "
        "tripadvisor-lara, steam, steam-users, goodreads, recbole. Recognised if left out.",
        show_default=False,
    ),
]  # fmt: skip
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Drop and count lines that cannot be parsed.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="A setting of SymCERE, KEY=VALUE, repeated: --set dim=128 --set mask=none.",
        show_default=False,
    ),
]
Cache = Annotated[Path, typer.Option("--cache", help="Folder of the vector cache, shared between runs.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="Processor threads.", show_default=False)]
Device = Annotated[str, typer.Option("--device", help="Where to train: cpu, cuda, cuda:1, or auto.")]
Log = Annotated[
    str,
    typer.Option(
        "--log",
        help="Tell the epochs of each fit also to tensorboard, mlflow, or both by comma, in OUT/tensorboard and "
        "OUT/mlflow (or the server of MLFLOW_TRACKING_URI); each needs its extra. The history.jsonl of a fit is "
        "always written; a fit that is up to date is not told again.",
        show_default="none",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else on standard output.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder that symcere run wrote.", show_default=False)]
RunSeed = Annotated[
    int | None, typer.Option("--seed", min=0, help="Which seed of the run.", show_default="its first")
]
Refit = Annotated[
    bool,
    typer.Option(
        "--refit",
        help="Learn once more from all interactions, those held out too, for as many epochs and with the dial that "
        "valid chose: what is served knows everything, and recommends nothing that a user already chose.",
    ),
]
RunOrBundle = Annotated[
    Path, typer.Argument(metavar="RUN|BUNDLE", help="Folder of a run, or a bundle.", show_default=False)
]
Datasets = Annotated[
    list[str],
    typer.Argument(
        metavar="[NAME=]FILE[@K]...",
        help="Review files; NAME for the tables, K for a k-core of its own.",
        show_default=False,
    ),
]
TunedFolder = Annotated[
    Path,
    typer.Option("--tuned", help="Folder of tuned settings, one JSON file a data set: tune writes, bench reads."),
]
ALL_SYSTEMS = "popularity,item_knn,ease,light_gcn"
