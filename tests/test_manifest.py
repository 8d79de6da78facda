"""Artefacts are written whole or not at all."""

import errno
import os
import stat
from pathlib import Path

import pytest

import symcere as sc
from symcere.manifest import digest, new_folder, read_manifest, write_file


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_folder_appears_whole_with_a_manifest_of_its_files(tmp_path):
    target = tmp_path / "stage"
    fields = {}
    with new_folder(target, "key", fields) as temporary:
        (temporary / "a.txt").write_text("a")
        assert not target.exists()
        fields["note"] = "made"
    assert files(target) == ["a.txt", "manifest.json"]
    manifest = read_manifest(target)
    assert manifest["key"] == "key"
    assert manifest["note"] == "made"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_interrupt_leaves_nothing_and_keeps_what_stood_there(tmp_path, error):
    target = tmp_path / "stage"
    with new_folder(target, "old", {}) as temporary:
        (temporary / "a.txt").write_text("old")
    with pytest.raises(error), new_folder(target, "new", {}) as temporary:  # noqa: PT012
        (temporary / "a.txt").write_text("half")
        raise error
    assert files(tmp_path) == ["stage/a.txt", "stage/manifest.json"]
    assert read_manifest(target)["key"] == "old"


def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(sc.OutputError, match=r"Cannot write .*: No space left on device. .*--out"):
        write_file(tmp_path / "a.txt", "text")
    with pytest.raises(sc.OutputError, match="No space left"), new_folder(tmp_path / "stage", "key", {}):
        pass
    assert files(tmp_path) == []


def test_a_file_in_the_way_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(sc.OutputError, match="Cannot write"):
        write_file(tmp_path / "file" / "inside.txt", "text")


def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reads = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_file(tmp_path / "pipe", "text")
    assert os.read(reads, 10) == b"text"
    os.close(reads)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_of_two_processes_that_make_the_same_folder_the_first_one_wins(tmp_path):
    target = tmp_path / "stage"
    with new_folder(target, "key", {"by": "slow"}), new_folder(target, "key", {"by": "quick"}):
        pass
    assert read_manifest(target)["by"] == "quick"
    assert [path.name for path in tmp_path.iterdir()] == ["stage"]


def test_a_folder_without_a_key_is_known_by_what_it_holds(tmp_path):
    keys = []
    for content, field in (("one", 1), ("one", 1), ("two", 1), ("two", 2)):
        with new_folder(tmp_path / "made", None, {"field": field}) as temporary:
            (temporary / "file").write_text(content)
        assert (tmp_path / "made" / "file").read_text() == content
        keys.append(read_manifest(tmp_path / "made")["key"])
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_an_interrupt_while_names_are_exchanged_leaves_what_stood_there(tmp_path, monkeypatch):
    with new_folder(tmp_path / "made", "old", {}):
        pass
    rename = Path.rename

    def interrupted(path, target):
        if path.suffix != ".old" and target == tmp_path / "made":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "made", "new", {}):
        pass
    assert read_manifest(tmp_path / "made")["key"] == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


@pytest.mark.parametrize("damage", ["changed", "removed", "no manifest"])
def test_a_damaged_folder_has_no_manifest(tmp_path, damage):
    target: Path = tmp_path / "stage"
    with new_folder(target, "key", {}) as temporary:
        (temporary / "a.txt").write_text("a")
    if damage == "changed":
        (target / "a.txt").write_text("b")
    else:
        (target / ("a.txt" if damage == "removed" else "manifest.json")).unlink()
    assert read_manifest(target) is None


def test_the_digest_depends_on_every_part_and_their_order():
    assert len({digest(1, 2), digest(2, 1), digest([1, 2]), digest("1", 2), digest(1)}) == 5
