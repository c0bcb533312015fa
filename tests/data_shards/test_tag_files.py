"""cls_labels.npy and tables of tags: read, matched by name or number, and nothing executed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amn_dist.errors import ShardError
from data_shards.tag_files import read_tags, read_vectors

CLASSES = ("background", "cat", "dog")


def npy(path: Path, content: Any) -> Path:
    np.save(path, np.array(content, dtype=object), allow_pickle=True)
    return path


def test_names_and_their_digits_are_keys(tmp_path: Path) -> None:
    path = npy(tmp_path / "cls_labels.npy", {
        "a_1": np.array([1, 0], np.float32), 2007000032: np.array([0.0, 1.0]), np.int64(7): [1, 1]})  # fmt: skip
    tags = read_tags(path, ["a_1", "2007_000032", "x_7", "gone"], CLASSES)
    assert {name: row.tolist() for name, row in tags.items()} == {
        "a_1": [1, 0], "2007_000032": [0, 1], "x_7": [1, 1]}  # fmt: skip
    assert all(row.dtype == np.uint8 for row in tags.values())


def test_a_table_names_files_or_stems(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("file,labels\nJPEGImages/a.jpg,dog;cat\nb.jpg,\nc,dog\n")
    tags = read_tags(path, ["a", "b", "c", "d"], CLASSES)
    assert {name: row.tolist() for name, row in tags.items()} == {"a": [1, 1], "b": [0, 0], "c": [0, 1]}
    path.write_text("file,labels\na.jpg,dgo\n")
    with pytest.raises(ShardError, match=r"labels\.csv: line 2: unknown class 'dgo' \(did you mean 'dog'\?\)"):
        read_tags(path, ["a"], CLASSES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "holds an empty dictionary"),
        ({"a": np.zeros(3)}, "holds 3 tags an image; expected 2"),
        ({"a": np.array([0.5, 1])}, "key 'a': expected tags 0 and 1"),
        ({"a": np.array([np.nan, 1])}, "key 'a': expected tags 0 and 1"),
        ({"a": np.zeros((1, 2))}, "key 'a': expected tags 0 and 1"),
        ({"a": "10"}, "key 'a': expected tags 0 and 1"),
        ({"a": [[1], [1, 2]]}, "key 'a': expected tags 0 and 1"),
        ([1, 2], "expected a pickled dictionary"),
    ],
)
def test_what_is_no_table_of_tags(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ShardError, match=message) as caught:
        read_tags(npy(tmp_path / "cls_labels.npy", content), ["a"], CLASSES)
    assert "cls_labels.npy" in str(caught.value) and str(caught.value).isprintable()


def test_two_names_of_one_number_are_refused(tmp_path: Path) -> None:
    path = npy(tmp_path / "cls_labels.npy", {1: np.array([1, 0])})
    with pytest.raises(ShardError, match="key 1 is that of both 'a_1' and 'b_1'"):
        read_tags(path, ["a_1", "b_1"], CLASSES)


def test_a_file_that_would_run_code_is_refused(bad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ShardError, match=r"cls_labels\.npy: .*nothing of it was run"):
        read_vectors(bad / "pickle" / "cls_labels.npy")
    assert list(tmp_path.iterdir()) == []
