"""The same verbs on Ray: what grows with reviews is partitioned, and words never meet in one place.

    from symcere import distributed
    with distributed.connected("auto"):
        distributed.ingest("s3://raw/reviews/", "s3://mine/table", filters=[sc.KCore(5)])
        split = sc.split_random(distributed.read_table("s3://mine/table", words=False), seed=0)
        text = distributed.encode_reviews(split.train, "s3://mine/table", sc.sentence_encoder())
        model = distributed.fit(split.train, text, valid=split.valid, storage="s3://mine/fits", n_workers=8)
        distributed.recommend_all(model, "s3://mine/recommendations", k=10)

Each gives what its namesake gives on one machine (docs/distributed.md has what was measured). Needs the extra:
pip install "symcere[ray]".
"""

from symcere.distributed.cluster import Cluster, connected
from symcere.distributed.encode import encode_reviews
from symcere.distributed.ingestion import ingest, read_table
from symcere.distributed.rank import measure_test, recommend_all
from symcere.distributed.train import fit

__all__ = [
    "Cluster",
    "connected",
    "encode_reviews",
    "fit",
    "ingest",
    "measure_test",
    "read_table",
    "recommend_all",
]
