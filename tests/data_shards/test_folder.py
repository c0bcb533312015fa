import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from amn_dist.errors import ShardError
from amn_dist.shards.shardset import ShardSet
from data_shards.folder import pack_folder
from data_shards.verify import verify


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three images in folders, and masks for them."""
    folder = tmp_path / "images"
    rng = np.random.default_rng(0)
    for n, name in enumerate(("cats/a.jpg", "cats/b.PNG", "dogs/deep/c d.jpeg")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 24 + n, 3), dtype=np.uint8)).save(path)
        mask = (tmp_path / "masks" / name).with_suffix(".png")
        mask.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 24 + n), n % 3, np.uint8)).save(mask)
    return folder


CSV = 'file,labels\ncats/a.jpg,cat\n\ncats/b.PNG,"cat; dog"\ndogs/deep/c d.jpeg,dog|cat\n'
ROWS = [
    {"file": "cats/a.jpg", "labels": ["cat"]},
    {"file": "cats/b.PNG", "labels": ["cat", "dog"]},
    {"file": "dogs/deep/c d.jpeg", "labels": ["dog", "cat"]},
]


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "labels.txt"
    path.write_text(text)
    return path


def test_csv_and_json_lines_say_the_same(root: Path, tmp_path: Path) -> None:
    a = pack_folder(root, table(tmp_path, CSV), tmp_path / "a")
    b = pack_folder(root, table(tmp_path, "\n".join(map(json.dumps, ROWS))), tmp_path / "b")
    assert a == b
    shards = ShardSet.open(tmp_path / "a")
    assert shards.classes == ("background", "cat", "dog")
    keys = [entry.key for entry in shards.shard(0)]
    assert keys[:2] == ["cats_a", "cats_b"] and keys[2].startswith("dogs_deep_c_d-")
    assert [shards.load(n, "tags").tolist() for n in range(3)] == [[1, 0], [1, 1], [1, 1]]
    assert [sorted(shards.entry(n).fields) for n in (0, 1)] == [["jpg", "tags"], ["png", "tags"]]
    assert shards.image(1) == (root / "cats" / "b.PNG").read_bytes()
    assert verify(tmp_path / "a").samples == 3


def test_masks_and_classes_from_outside(root: Path, tmp_path: Path) -> None:
    names = tmp_path / "classes.txt"
    names.write_text("background\ndog\ncat\nhorse\n")
    labels = table(tmp_path, CSV)
    pack_folder(root, labels, tmp_path / "out", classes=names, masks=tmp_path / "masks")
    shards = ShardSet.open(tmp_path / "out")
    assert shards.classes == ("background", "dog", "cat", "horse")
    assert shards.load(0, "tags").tolist() == [0, 1, 0]
    assert [int(shards.load(n, "gt.png").max()) for n in range(3)] == [0, 1, 2]


def test_an_image_without_labels_is_packed(root: Path, tmp_path: Path) -> None:
    pack_folder(root, table(tmp_path, "file,labels\ncats/a.jpg,\ncats/b.PNG,cat\n"), tmp_path / "out")
    assert ShardSet.open(tmp_path / "out").load(0, "tags").tolist() == [0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no images|header"),
        ("name,tags\na.jpg,cat\n", "header 'file,labels'"),
        ("file,labels\n", "lists no images"),
        ("file,labels\ncats/a.jpg,cat,dog\n", "line 2: found 3 columns"),
        ("file,labels\ncats/a.jpg,cat\n./cats/a.jpg,cat\n", "line 3: cats/a.jpg is a duplicate of line 2"),
        ("file,labels\n../a.jpg,cat\n", "line 2: file '../a.jpg'"),
        ("file,labels\n/etc/passwd,cat\n", "line 2: file '/etc/passwd'"),
        ("file,labels\ncats/../../a.jpg,cat\n", "line 2: file"),
        ("file,labels\n,cat\n", "line 2: file ''"),
        ("file,labels\ncats/a.jpg,background\n", "'background' is used as a label"),
        ('file,labels\n"cats/a.jpg,cat\n', "line 2"),
        ('{"file": "cats/a.jpg"}\n', "line 1: expected"),
        ('{"file": "cats/a.jpg", "labels": "cat"}\n', "line 1: expected"),
        ('{"file": "cats/a.jpg", "labels": ["cat"]}\n{"file": \n', "line 2"),
        ('{"file": 3, "labels": []}\n', "line 1: expected"),
        ('file,labels\n"cats/a.jpg","cat\ndog"\n', r"line 3: label 'cat\\ndog', expected at most 200 printable"),
        ('file,labels\n"cats/\na.jpg",cat\n', r"line 3: file 'cats/\\na.jpg'"),
        ("file,labels\ncats/a.jpg,c\0t\n", "line 2: label"),
        ("file,labels\ncats/a\0.jpg,cat\n", "line 2: file"),
        ("file,labels\ncats/a.jpg,cat\u2028dog\n", "line 2: label"),
        ("file,labels\ncats/a.jpg," + "c" * 201 + "\n", "line 2: label"),
        ("file,labels\n" + "a" * 256 + ",cat\n", "line 2: file"),
        ("file,labels\n" + "a/" * 600 + "b.jpg,cat\n", "line 2: file"),
        ("file,labels\ncats/a.jpg," + "c" * 200_000 + "\n", "field larger than"),
        ("file,labels,labels\ncats/a.jpg,cat,dog\n", "found 'file,labels,labels'"),
        ("file,file\ncats/a.jpg,cat\n", "found 'file,file'"),
        ("file,labels\ncats/a.jpg,cat\ncats//a.jpg,dog\n", "line 3: cats/a.jpg is a duplicate of line 2"),
        ("file,labels\ncats/a.jpg,Background\n", "'Background' is listed twice"),
        ('{"file": "cats/a.jpg", "labels": ["cat"], "labels": ["dog"]}\n', "line 1: has the key 'labels' twice"),
        ('{"file": "cats/a.jpg", "labels": ["cat", NaN]}\n', "line 1: has the number NaN"),
        ('{"file": "cats/a.jpg", "labels": [true]}\n', "line 1: expected"),
        ('{"file": "cats/\\ud800.jpg", "labels": ["cat"]}\n', r"line 1: file 'cats/\\ud800\.jpg'"),
        ('{"file": "cats/a.jpg", "labels": ["a\\u0000b"]}\n', "line 1: label"),
        ('{"a":' * 100_000, "line 1: is nested more than 64 levels"),
    ],
)
def test_wrong_tables(root: Path, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ShardError, match=message) as caught:
        pack_folder(root, table(tmp_path, text), tmp_path / "out", skip_bad=True)
    message = str(caught.value)
    assert "labels.txt" in message and message.isprintable() and len(message) < 500
    assert not (tmp_path / "out").exists()


def test_a_line_of_json_may_hold_what_ends_lines_elsewhere(root: Path, tmp_path: Path) -> None:
    row = {"file": "cats/a.jpg", "labels": ["cat"], "note": "two\u2028lines"}
    pack_folder(root, table(tmp_path, json.dumps(row, ensure_ascii=False) + "\n"), tmp_path / "out")
    assert len(ShardSet.open(tmp_path / "out")) == 1


def test_a_link_that_leads_outside_is_a_bad_sample(root: Path, tmp_path: Path) -> None:
    shutil.copy(root / "cats" / "a.jpg", tmp_path / "outside.jpg")
    (root / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    labels = table(tmp_path, "file,labels\ncats/a.jpg,cat\nlink.jpg,cat\n")
    with pytest.raises(ShardError, match=r"link\.jpg: leads outside"):
        pack_folder(root, labels, tmp_path / "out")


def test_bad_rows_are_named_or_left_out(root: Path, tmp_path: Path) -> None:
    names = tmp_path / "classes.txt"
    names.write_text("background\ncat\ndog\n")
    labels = table(tmp_path, CSV + "gone.jpg,cat\n" + "cats/x.jpg,catt\n")
    shutil.copy(root / "cats" / "a.jpg", root / "cats" / "x.jpg")
    with pytest.raises(ShardError, match="2 of 5") as caught:
        pack_folder(root, labels, tmp_path / "out", classes=names)
    assert "gone.jpg: not there" in str(caught.value)
    assert "labels.txt: line 7: unknown class 'catt' (did you mean 'cat'?)" in str(caught.value)
    pack_folder(root, labels, tmp_path / "out", classes=names, skip_bad=True)
    quarantine = json.loads((tmp_path / "out" / "quarantine.json").read_text())
    assert [sample["file"] for sample in quarantine["samples"]] == ["gone.jpg", "cats/x.jpg"]


def test_two_files_of_one_key_are_refused(root: Path, tmp_path: Path) -> None:
    shutil.copy(root / "cats" / "a.jpg", root / "cats_a.jpg")
    labels = table(tmp_path, "file,labels\ncats/a.jpg,cat\ncats_a.jpg,cat\n")
    with pytest.raises(ShardError, match=r"cats/a\.jpg and cats_a\.jpg both have the key cats_a"):
        pack_folder(root, labels, tmp_path / "out")


def test_a_missing_mask_is_a_bad_sample(root: Path, tmp_path: Path) -> None:
    (tmp_path / "masks" / "cats" / "b.png").unlink()
    with pytest.raises(ShardError, match=r"masks/cats/b\.png: not there"):
        pack_folder(root, table(tmp_path, CSV), tmp_path / "out", masks=tmp_path / "masks")


def test_wrong_places_are_named(root: Path, tmp_path: Path) -> None:
    labels = table(tmp_path, CSV)
    for change in ({"root": tmp_path / "no"}, {"masks": tmp_path / "no"}, {"labels": tmp_path / "no"}):
        with pytest.raises(ShardError, match=r"no: (no such folder|not there)"):
            pack_folder(**{"root": root, "labels": labels, "out": tmp_path / "out", **change})
