"""A JSON array is read as the same records on lines are, however it is written and wherever a block ends."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import symcere as sc
from symcere.data.formats.array import opens_array
from symcere.data.formats.raw import Meter, read_blocks

TEXT = st.text(st.sampled_from('a,"\\[]{}:\n\r é\u2028'), max_size=12)
VALUE = st.recursive(TEXT | st.integers() | st.none(), lambda each: st.lists(each, max_size=2), max_leaves=3)
RECORDS = st.lists(st.dictionaries(TEXT, VALUE | st.dictionaries(TEXT, VALUE, max_size=2), max_size=3), max_size=6)


def write(folder, raw):
    file = folder / "reviews.json"
    file.write_bytes(raw)
    return file


def records(file):
    """What the lines of all blocks hold, by Python's own parser."""
    return [json.loads(line) for block in read_blocks(file, Meter()) for line in block.splitlines() if line.strip()]


@given(RECORDS, st.sampled_from((None, 0, 2, "\t")), st.booleans(), st.integers(24, 90), st.booleans())
def test_its_lines_are_its_records(tmp_path_factory, expected, indent, ascii_only, block, zipped):
    raw = json.dumps(expected, indent=indent, ensure_ascii=ascii_only).encode()
    raw = raw.replace(b"\n", b"\r\n") if indent == 2 else raw
    file = write(tmp_path_factory.mktemp("array"), gzip.compress(raw) if zipped else raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("symcere.data.formats.raw.BLOCK", block)
        assert records(file) == expected


@pytest.mark.parametrize("indent", [None, 1])
def test_reviews_and_items_are_read_from_it_as_from_lines(tmp_path, indent):
    rows = [
        {"user_id": f"u{n % 7}", "item_id": f"i{n % 5}", "text": f'{n} "great", [or] so\n', "rating": n % 5}
        for n in range(60)
    ]
    lines = tmp_path / "lines.json"
    lines.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    array = write(tmp_path, b"\xef\xbb\xbf \n" + json.dumps(rows, indent=indent).encode() + b"\n\n")
    one, other = sc.read_reviews(lines), sc.read_reviews(array)
    assert one.source == other.source == "jsonl"
    assert one.table.equals(other.table)
    assert one.steps == other.steps


def test_a_bad_record_is_named_by_its_number_and_can_be_skipped(tmp_path):
    good = '{"user_id": "u", "item_id": "i%d", "text": "x"}'
    file = write(tmp_path, ("[" + ",\n".join([good % 1, '{"user_id": 7,\n oops}', good % 2]) + "]").encode())
    with pytest.raises(sc.DataError, match=r"reviews.json, record 2: cannot be parsed.*Mend the record"):
        sc.read_reviews(file)
    assert len(sc.read_reviews(file, skip_bad=True).table) == 2


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'[{"user_id": "u", "item_id": "i", "text": "x"}', "ends within its JSON array"),
        (b'[{"user_id": "u", "item_id": "i", "text": "x}]', "ends within its JSON array"),
        (b'[{"user_id": "u", "item_id": "i", "text": "x"}] [{"user_id": "v"}]', "goes on after its JSON array"),
        (b'[{"user_id": "u", "item_id": "i", "text": "x"}}]', "goes on after its JSON array"),
        (b"[]", "is empty"),
        (b"[1, 2, 3]", "no JSON array of objects"),
        (b'[["u", "i"]]', "no JSON array of objects"),
        (b"[{'user_id': 'u', 'item_id': 'i'}]", "no JSON array of objects"),
        (
            b'[{"user_id": "u", "item_id": "i", "text": "x"}, 5]',
            "record 2: cannot be parsed .int instead of an object",
        ),
    ],
)
def test_an_array_that_is_none_is_refused(tmp_path, raw, said):
    with pytest.raises(sc.DataError, match=said):
        sc.read_reviews(write(tmp_path, raw))


def test_what_follows_the_array_in_a_later_block_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr("symcere.data.formats.raw.BLOCK", 16)
    with pytest.raises(sc.DataError, match="goes on after"):
        records(write(tmp_path, b'[{"a": 1}]' + b" " * 40 + b"{}"))
    assert records(write(tmp_path, b'[{"a": 1}]' + b" " * 40)) == [{"a": 1}]


def test_only_an_array_of_objects_opens_one():
    assert all(map(opens_array, (b"[]", b' [ {"a"', b"[{}", b'\xef\xbb\xbf[{"', b"[\n{\n}")))
    assert not any(map(opens_array, (b"", b"[", b"[1]", b"{}", b"[tag],user", b"[{'a'", b'"[{"')))
