"""Splits are partitions, follow their rule, and refuse what they cannot do."""

import dataclasses
from collections import Counter, defaultdict

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import symcere as sc
from conftest import reviews_of
from symcere.cli.options import SplitName
from symcere.cli.screen import ScreenWatch
from symcere.cli.words import splitting_of
from symcere.data.dataset import known_matrix
from symcere.data.reviews import Reviews
from symcere.evaluation.compare import measure_test
from symcere.evaluation.measures import mean
from symcere.pipeline.stages import divide
from symcere.pipeline.workspace import Workspace
from symcere.training.tuning import valid_ndcg
from test_compare import Fixed
from test_features import LETTERS, letters

worlds = st.sets(st.tuples(st.sampled_from("abcdefg"), st.sampled_from("123456789")), min_size=4).map(
    lambda pairs: sorted(pairs | {("z", item) for item in "12345"})  # z gives valid and test something
)
SPLITTERS = [sc.split_random, sc.split_leave_last_out, sc.split_temporal]
COLD = {"item": sc.split_cold_items, "user": sc.split_cold_users}
cold_worlds = st.sets(st.tuples(st.sampled_from("abcdefghij"), st.sampled_from("0123456789")), min_size=30).map(
    sorted
)


def pairs_of(part):
    return {(part.users.id(u), part.items.id(i)) for u, i in zip(part.user.tolist(), part.item.tolist(), strict=True)}


def shares(split):
    return [Counter(u for u, _ in pairs_of(part)) for part in (split.train, split.valid, split.test)]


@settings(deadline=None)
@given(worlds, st.sampled_from(SPLITTERS))
def test_a_split_is_a_partition_and_train_keeps_its_texts(pairs, splitter):
    reviews = reviews_of(pairs, text=[f"{u} on {i}" for u, i in pairs])
    split = splitter(reviews)
    parts = [pairs_of(part) for part in (split.train, split.valid, split.test)]
    assert sorted(pair for part in parts for pair in part) == pairs
    texts = zip(split.train.user.tolist(), split.train.item.tolist(), split.train.review["text"], strict=True)
    assert all(text == f"{split.train.users.id(u)} on {split.train.items.id(i)}" for u, i, text in texts)


@pytest.mark.parametrize(
    ("n", "expected"), [(2, (1, 0, 1)), (3, (1, 1, 1)), (5, (3, 1, 1)), (10, (8, 1, 1)), (20, (16, 2, 2))]
)
def test_random_gives_a_tenth_but_at_least_one_to_test_then_valid(n, expected):
    pairs = [("u", str(i)) for i in range(n)] + [("v", str(i)) for i in range(10)]
    assert tuple(part["u"] for part in shares(sc.split_random(reviews_of(pairs)))) == expected


def test_a_user_with_one_interaction_stays_in_train():
    split = sc.split_random(reviews_of([("u", "0"), *[("v", str(i)) for i in range(10)]]))
    assert [part["u"] for part in shares(split)] == [1, 0, 0]


@settings(deadline=None)
@given(worlds, st.randoms())
def test_random_depends_on_the_seed_and_not_on_the_order_of_rows(pairs, random):
    shuffled = random.sample(pairs, len(pairs))
    one, other = sc.split_random(reviews_of(pairs), seed=3), sc.split_random(reviews_of(shuffled), seed=3)
    assert pairs_of(one.test) == pairs_of(other.test)


def test_another_seed_gives_another_split(reviews):
    assert pairs_of(sc.split_random(reviews, seed=0).test) != pairs_of(sc.split_random(reviews, seed=1).test)


@settings(deadline=None)
@given(worlds, st.randoms())
def test_leave_last_out_holds_out_the_last_of_each_user(pairs, random):
    time = random.sample(range(100), len(pairs))
    split = sc.split_leave_last_out(reviews_of(pairs, time=time))
    dated = defaultdict(list)
    for (user, item), stamp in zip(pairs, time, strict=True):
        dated[user].append((stamp, item))
    expected = {(user, sorted(events)[-1][1]) for user, events in dated.items() if len(events) > 1}
    assert pairs_of(split.test) == expected
    assert pairs_of(split.valid) == {(u, sorted(e)[-2][1]) for u, e in dated.items() if len(e) > 2}


@settings(deadline=None)
@given(worlds, st.randoms())
def test_temporal_has_one_order_for_everyone(pairs, random):
    time = [random.randrange(50) for _ in pairs]
    when = dict(zip(pairs, time, strict=True))
    try:
        split = sc.split_temporal(reviews_of(pairs, time=time))
    except sc.DataError:
        return  # too many ties for three parts
    train, valid, test = ([when[pair] for pair in pairs_of(p)] for p in (split.train, split.valid, split.test))
    assert max(train) < min(valid)
    assert max(valid) < min(test)


@settings(deadline=None)
@given(worlds, st.sampled_from([sc.split_random, sc.split_leave_last_out]), st.integers(1, 5))
def test_who_has_too_few_interactions_is_learned_from_and_not_asked(pairs, splitter, ask_from):
    split, plain = (splitter(reviews_of(pairs), **asked) for asked in ({"ask_from": ask_from}, {}))
    n = Counter(u for u, _ in pairs)
    for part, without in ((split.valid, plain.valid), (split.test, plain.test)):
        assert pairs_of(part) == {(u, i) for u, i in pairs_of(without) if n[u] >= ask_from}
    assert len(split.train) == len(pairs) - len(split.valid) - len(split.test)
    few = sum(count < ask_from for count in n.values())
    told = [warning for warning in split.warnings if "never asked" in warning]
    assert [warning.split(" have")[0] for warning in told] == [f"{few} of {len(n)} users"] * (few > 0)


def test_what_cannot_be_asked_is_refused():
    pairs = [(user, item) for user in "uv" for item in "12"]
    with pytest.raises(sc.ConfigError, match="ask_from must be at least 1; found 0"):
        sc.split_random(reviews_of(pairs), ask_from=0)
    with pytest.raises(sc.ConfigError, match="--ask-from is for --split random and leave-last-out; found --split"):
        splitting_of(SplitName.TEMPORAL, None, 0, 1, ask_from=2)
    with pytest.raises(sc.DataError, match="left no interaction for valid and test: no user has more than 2"):
        sc.split_random(reviews_of(pairs), ask_from=3)


def test_whom_to_ask_is_part_of_what_decides_a_split():
    plain, asked = (splitting_of(SplitName.RANDOM, None, 0, 1, ask_from)[0].settings for ask_from in (1, 4))
    assert (plain, asked) == ({}, {"ask_from": 4})


@pytest.mark.parametrize("splitter", [sc.split_leave_last_out, sc.split_temporal])
def test_splits_by_time_refuse_missing_timestamps(reviews, splitter):
    undated = Reviews(reviews.table.with_columns(timestamp=pl.lit(None, dtype=pl.Int64)), "test")
    with pytest.raises(sc.DataError, match="needs a timestamp"):
        splitter(undated)


def test_one_user_one_item_or_too_little_data_is_refused():
    with pytest.raises(sc.DataError, match="at least two users"):
        sc.split_random(reviews_of([("a", "1"), ("a", "2")]))
    with pytest.raises(sc.DataError, match="at least two users"):
        sc.split_random(reviews_of([("a", "1"), ("b", "1")]))
    with pytest.raises(sc.DataError, match="left no interaction for valid"):
        sc.split_random(reviews_of([("a", "1"), ("b", "2")]))


def test_ratios_must_be_shares():
    with pytest.raises(sc.ConfigError, match="sum to 1"):
        sc.split_random(reviews_of([("a", "1")]), ratios=(0.8, 0.1, 0.2))


def test_held_out_parts_carry_no_text(split):
    assert not hasattr(split.valid, "text")
    assert not hasattr(split.test, "text")


def test_datasets_refuse_duplicates_ranges_and_overlap(split):
    with pytest.raises(sc.DataError, match="disjoint"):
        dataclasses.replace(split, valid=split.test)
    with pytest.raises(sc.DataError, match="occurs twice"):
        dataclasses.replace(split.test, user=split.test.user * 0, item=split.test.item * 0)
    with pytest.raises(sc.DataError, match="must lie in"):
        dataclasses.replace(split.test, user=split.test.user + 10**6)


def cold_ids(part, side):
    return {pair[side == "item"] for pair in pairs_of(part)}


def support_pairs(split):
    known = split.train.support
    return {(split.train.users.id(u), split.train.items.id(i)) for u, i in zip(known.user, known.item, strict=True)}


@pytest.fixture(scope="module", params=COLD)
def cold(request, reviews):
    """A split by cold nodes of each side."""
    return COLD[request.param](reviews, ratios=(0.6, 0.2, 0.2), seed=0)


@settings(deadline=None)
@given(cold_worlds, st.sampled_from(sorted(COLD)), st.randoms())
def test_cold_nodes_are_whole_disjoint_and_half_of_their_reviews_are_support(pairs, side, random):
    texts = {pair: f"{pair[0]} on {pair[1]}" for pair in pairs}
    shuffled = random.sample(pairs, len(pairs))
    split = COLD[side](reviews_of(shuffled, text=[texts[pair] for pair in shuffled]), seed=2)
    train, valid, test, support = (
        pairs_of(split.train),
        pairs_of(split.valid),
        pairs_of(split.test),
        support_pairs(split),
    )
    assert sorted([*train, *valid, *test, *support]) == pairs
    at = side == "item"
    homes = [{pair[at] for pair in part} for part in (train, valid, test)]
    assert not homes[0] & homes[1]
    assert not homes[0] & homes[2]
    assert not homes[1] & homes[2]
    n, supporting = Counter(pair[at] for pair in pairs), Counter(pair[at] for pair in support)
    assert all(supporting[node] == n[node] // 2 for node in homes[1] | homes[2])
    assert sum(n[node] for node in homes[2]) >= 0.1 * len(pairs)
    known = split.train.known_reviews
    told = zip(known.user.tolist(), known.item.tolist(), known.review["text"], strict=True)
    assert all(text == texts[split.train.users.id(u), split.train.items.id(i)] for u, i, text in told)
    again = COLD[side](reviews_of(pairs), seed=2)
    assert (pairs_of(again.test), support_pairs(again)) == (test, support)


def test_cold_nodes_are_drawn_until_their_interactions_make_up_the_shares(reviews):
    split = sc.split_cold_items(reviews, ratios=(0.5, 0.2, 0.3))
    n = Counter(reviews.table["item_id"])
    for part, share in ((split.test, 0.3), (split.valid, 0.2)):
        total = sum(n[item] for item in cold_ids(part, "item"))
        assert share * len(reviews) <= total < share * len(reviews) + max(n.values())


def test_the_only_review_of_a_cold_item_is_a_target():
    pairs = [(user, f"{user}{item}") for user in "abcdefghij" for item in "01"]
    split = sc.split_cold_items(reviews_of(pairs))
    assert not len(split.train.support)
    assert "4 cold items have a single review" in split.warnings[1]


def test_support_makes_the_profile_of_its_cold_node_and_of_nobody_else(cold):
    text = sc.encode_reviews(cold.train, LETTERS, leave_one_out=True)
    known, support = cold.train.known_reviews, cold.train.support
    vectors = letters(
        [f"{title}\n{body}".strip() for title, body in known.review.select("title", "text").iter_rows()]
    )
    learned = np.arange(len(known)) < len(cold.train)
    for side, profiles, node in (("user", text.user, known.user), ("item", text.item, known.item)):
        counted = learned | (support.side == side)
        for n in range(len(profiles)):
            rows = vectors[(node == n) & counted]
            np.testing.assert_allclose(profiles[n], rows.mean(0) if len(rows) else 0, rtol=1e-5)
    assert len(text.own[0].vectors) == len(cold.train)


def test_support_is_neither_learned_from_nor_popular(cold):
    at = np.unique(cold.train.support.node)
    degree = cold.train.matrix.sum(0 if cold.train.support.side == "item" else 1)
    assert not degree[at].any()
    assert cold.train.popularity.sum() == len(cold.train) == cold.train.matrix.nnz


def test_support_pairs_are_never_ranked_and_never_count_as_misses(cold):
    support = cold.train.seen - cold.train.matrix
    assert support.sum() == len(cold.train.support) > 0
    on_test = Fixed(100 * support + 100 * cold.valid.matrix + cold.test.matrix)
    assert mean(measure_test(on_test, cold, [sc.ndcg(10)])["ndcg@10"]) == 1
    assert valid_ndcg(Fixed(100 * support + cold.valid.matrix), cold.train, cold.valid) == 1
    assert sc.fit_popularity(cold.train, valid=cold.valid).seen.nnz == known_matrix(cold.train, cold.valid).nnz
    assert (known_matrix(cold.train, cold.valid) - support - cold.valid.matrix - cold.train.matrix).nnz == 0


def retold(reviews, pairs, text):
    """The same reviews, but those of some pairs say something else."""
    chosen = pl.struct("user_id", "item_id").map_elements(lambda r: (r["user_id"], r["item_id"]) in pairs, pl.Boolean)
    return Reviews(
        reviews.table.with_columns(text=pl.when(chosen).then(pl.lit(text)).otherwise("text")), reviews.source
    )


def test_the_text_of_a_cold_target_reaches_nothing(cold, reviews):
    made = COLD[cold.train.support.side]
    targets = pairs_of(cold.test) | pairs_of(cold.valid)
    other = made(retold(reviews, targets, "spoiler gasket"), ratios=(0.6, 0.2, 0.2), seed=0)
    assert other.train.known_reviews.review.equals(cold.train.known_reviews.review)
    one, same = (sc.encode_reviews(split.train, sc.tfidf_encoder(8)) for split in (cold, other))
    assert (one.fingerprint, one.user.tobytes(), one.item.tobytes()) == (
        same.fingerprint, same.user.tobytes(), same.item.tobytes(),
    )  # fmt: skip


def test_the_cache_keeps_profiles_under_support_and_its_side(cold, reviews, tmp_path):
    other = COLD[cold.train.support.side](
        retold(reviews, support_pairs(cold), "sturdy strap"), ratios=(0.6, 0.2, 0.2), seed=0
    )
    encoded = [sc.encode_reviews(train, sc.tfidf_encoder(8), cache=tmp_path) for train in (cold.train, other.train)]
    assert (
        encoded[0].item.tobytes() != encoded[1].item.tobytes()
        or encoded[0].user.tobytes() != encoded[1].user.tobytes()
    )


def test_the_side_of_a_review_between_two_cold_nodes_decides_whose_profile_it_makes(tmp_path):
    split = sc.split_random(reviews_of([(u, i) for u in "ab" for i in "1234567890"] + [("z", "x")]))
    train = split.train
    z, x = train.users.index("z"), train.items.index("x")
    keep = train.user != z
    made = {}
    for side in ("item", "user"):
        support = sc.Support(side, np.array([z]), np.array([x]), train.review[:1])
        cold = sc.Dataset(
            train.users, train.items, train.user[keep], train.item[keep], train.review.filter(keep), support
        )
        made[side] = sc.encode_reviews(cold, LETTERS, cache=tmp_path)
        assert made[side].item[x].any() == (side == "item")
        assert made[side].user[z].any() == (side == "user")
    assert made["item"].fingerprint != made["user"].fingerprint


@pytest.mark.parametrize("side", COLD)
def test_every_system_runs_on_cold_nodes_and_text_ranks_them_best(reviews, quick, side):
    split = COLD[side](reviews, ratios=(0.6, 0.2, 0.2), seed=0)
    text = sc.encode_reviews(split.train, sc.tfidf_encoder(64))
    light = [
        sc.LightGCNSettings(dim=16, batch_size=256, max_epochs=6, include_ego=ego, n_layers=2)
        for ego in (True, False)
    ]
    systems = {
        "popularity": sc.fit_popularity(split.train, valid=split.valid),
        "item_knn": sc.fit_item_knn(split.train, valid=split.valid),
        "ease": sc.fit_ease(split.train, valid=split.valid),
        "light_gcn": sc.fit_light_gcn(split.train, valid=split.valid, settings=light),
        "symcere": sc.fit(split.train, text, valid=split.valid, settings=quick),
    }
    for system in systems.values():
        assert np.isfinite(system.score(np.arange(len(split.train.users)))).all()
    assert sc.compare(systems, split, [sc.ndcg(10)]).best("ndcg@10", among=list(systems)) == "symcere"


@settings(deadline=None)
@given(worlds, st.integers(3, 6), st.randoms())
def test_over_all_folds_every_interaction_is_tested_exactly_once(pairs, n_folds, random):
    pairs = sorted({*pairs, ("x", "1"), ("y", "1"), ("y", "2")})
    shuffled = random.sample(pairs, len(pairs))
    tested = Counter()
    for fold in range(n_folds):
        try:
            split = sc.split_k_fold(reviews_of(shuffled), n_folds, fold=fold, seed=1)
        except sc.DataError:
            return  # too few for a fold
        train, valid, test = (pairs_of(part) for part in (split.train, split.valid, split.test))
        assert sorted([*train, *valid, *test]) == pairs
        assert {user for user, _ in train} == {user for user, _ in pairs}
        tested.update(test)
    n = Counter(user for user, _ in pairs)
    assert tested == Counter(pair for pair in pairs if n[pair[0]] > 1)


def test_valid_is_the_fold_that_is_tested_next(reviews):
    folds = [sc.split_k_fold(reviews, 5, fold=fold) for fold in range(5)]
    for fold in range(5):
        assert pairs_of(folds[fold].valid) == pairs_of(folds[(fold + 1) % 5].test)
    assert pairs_of(folds[0].test) != pairs_of(sc.split_k_fold(reviews, 5, fold=0, seed=1).test)


def test_folds_that_cannot_be_are_refused(reviews):
    with pytest.raises(sc.ConfigError, match="at least 3 folds"):
        sc.split_k_fold(reviews, 2, fold=0)
    with pytest.raises(sc.ConfigError, match=r"one of 0\.\.4; found 5"):
        sc.split_k_fold(reviews, 5, fold=5)
    with pytest.raises(sc.ConfigError, match="--folds is for"):
        splitting_of(SplitName.RANDOM, 5, 0, 1)
    with pytest.raises(sc.ConfigError, match="every fold is a seed"):
        splitting_of(SplitName.K_FOLD, None, 0, 2)


def test_leave_last_out_says_how_much_of_train_is_later_than_its_test():
    """Of a's train interactions, at 0 to 7, none is later than the median test time of 51; all of b's are."""
    pairs = [(user, str(i)) for user in "ab" for i in range(10)]
    split = sc.split_leave_last_out(reviews_of(pairs, time=[*range(10), *range(84, 94)]))
    assert "50% of train interactions are later than the median test interaction" in split.warnings[0]
    assert "0% of train" in sc.split_leave_last_out(reviews_of(pairs, time=[*range(10), *range(10)])).warnings[0]


def test_temporal_counts_whom_no_collaborative_method_knows():
    pairs = [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2"), ("c", "1"), ("c", "2"), ("a", "3"), ("b", "3"),
             ("a", "4"), ("d", "5")]  # fmt: skip
    split = sc.split_temporal(reviews_of(pairs), ratios=(0.6, 0.2, 0.2))
    assert "1 of 2 test users and 2 of 2 test items are unseen in train" in split.warnings[0]


def test_every_split_warns_and_one_without_times_gives_no_share(reviews):
    undated = Reviews(reviews.table.with_columns(timestamp=pl.lit(None, dtype=pl.Int64)), "test")
    assert "later than" not in sc.split_random(undated).warnings[0]
    for split in (sc.split_random(reviews), sc.split_k_fold(reviews, fold=0)):
        assert "draws the past from the future" in split.warnings[0]
        assert "later than the median" in split.warnings[0]


@pytest.mark.parametrize("name", SplitName)
def test_a_split_read_from_its_stage_is_the_split_that_was_made(reviews, tmp_path, name):
    how, seeds = splitting_of(name, None, 3, 1)
    workspace = Workspace(tmp_path, ScreenWatch(quiet=True))
    found, key = divide(workspace, reviews, "k", how, seeds[0])
    made = how.split(reviews, seeds[0])
    assert (found.name, found.warnings) == (made.name, made.warnings)
    assert (pairs_of(found.test), pairs_of(found.valid)) == (pairs_of(made.test), pairs_of(made.valid))
    assert found.train.review.equals(made.train.review)
    assert (found.train.seen != made.train.seen).nnz == 0
    assert found.train.known_reviews.review.equals(made.train.known_reviews.review)
    np.testing.assert_array_equal(found.train.about("user"), made.train.about("user"))
    assert divide(workspace, reviews, "k", how, seeds[0])[1] == key
    assert workspace.up_to_date == [f"split-seed{seeds[0]}"]


def test_folds_and_the_seed_of_their_dealing_are_in_the_key(reviews, tmp_path):
    workspace = Workspace(tmp_path, ScreenWatch(quiet=True))
    hows = [splitting_of(SplitName.K_FOLD, folds, seed, 1)[0] for folds, seed in ((5, 0), (4, 0), (5, 1))]
    assert len({divide(workspace, reviews, "k", how, 0)[1] for how in hows}) == 3


def test_support_of_a_known_node_and_overlap_with_test_are_refused(split, cold):
    support = cold.train.support
    rows = slice(0, 1)
    known = sc.Support("item", split.train.user[rows], split.train.item[rows], split.train.review[rows])
    with pytest.raises(sc.DataError, match="about items without train interactions"):
        dataclasses.replace(split.train, support=known)
    with pytest.raises(sc.DataError, match="equal length"):
        dataclasses.replace(support, review=support.review[1:])
    test = cold.test
    taken = dataclasses.replace(
        test, user=np.append(test.user, support.user[:1]), item=np.append(test.item, support.item[:1])
    )
    with pytest.raises(sc.DataError, match="disjoint"):
        dataclasses.replace(cold, test=taken)
