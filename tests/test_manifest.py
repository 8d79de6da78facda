"""Artefacts are written whole or not at all."""

import errno
import os
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


def test_of_two_processes_that_make_the_same_folder_the_first_one_wins(tmp_path):
    target = tmp_path / "stage"
    with new_folder(target, "key", {"by": "slow"}), new_folder(target, "key", {"by": "quick"}):
        pass
    assert read_manifest(target)["by"] == "quick"
    assert [path.name for path in tmp_path.iterdir()] == ["stage"]


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
