import io
import json
import shutil
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from amn_dist.errors import ShardError
from amn_dist.shards.photographs import read_photo
from amn_dist.shards.shardset import ShardSet
from data_shards.allowances import Allowances
from data_shards.folder import pack_folder
from data_shards.summary import read_summary
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


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (("Disc", "disc"), "classes 'Disc' and 'disc' differ in case alone"),
        (("Stra\u00dfe", "STRASSE"), "differ in case alone"),
        (("nan",), "class 'nan' reads like no label at all"),
        (("None", "cat"), "class 'None' reads like no label at all"),
        (("255",), "class '255' reads like no label at all"),
        (('"disc,box"',), "class 'disc,box' reads like several labels"),
        (("\"['disc', 'box']\"",), "reads like several labels, or a list"),
        (("'disc'",), "reads like several labels, or a list"),
        (("{disc}",), "reads like several labels, or a list"),
        (('"""disc"""',), "reads like several labels, or a list"),
    ],
)
def test_class_names_that_look_like_mistakes(root: Path, tmp_path: Path, labels: tuple[str, ...], message: str) -> None:
    files = ("cats/a.jpg", "cats/b.PNG")
    rows = "".join(f"{file},{label}\n" for file, label in zip(files, labels, strict=False))
    path = table(tmp_path, f"file,labels\n{rows}")
    with pytest.raises(ShardError, match=message) as caught:
        pack_folder(root, path, tmp_path / "out")
    assert "--classes FILE" in str(caught.value) and "--accept-names" in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert len(pack_folder(root, path, tmp_path / "out", allow=Allowances(names=True)).classes) == len(labels) + 1


def test_names_are_compared_as_people_read_them(root: Path, tmp_path: Path) -> None:
    composed, taken_apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    shutil.copy(root / "cats" / "a.jpg", root / f"{taken_apart}.jpg")
    text = f"file,labels\n{composed}.jpg,{taken_apart}\ncats/a.jpg,{composed}\n"
    pack_folder(root, table(tmp_path, text), tmp_path / "out")
    shards = ShardSet.open(tmp_path / "out")
    assert shards.classes == ("background", composed) and len(shards) == 2
    assert shards.entry(0).source == f"{taken_apart}.jpg" and shards.find(f"{composed}.jpg") == 0
    (tmp_path / "classes.txt").write_text(f"background\n{composed}\n")
    pack_folder(root, table(tmp_path, text), tmp_path / "listed", classes=tmp_path / "classes.txt")
    alone = pack_folder(root, table(tmp_path, f"file,labels\ncats/a.jpg,{taken_apart}\n"), tmp_path / "alone")
    assert alone.classes == ("background", taken_apart)  # as it is written, where it is written in one way


def test_the_files_own_names_are_kept(root: Path, tmp_path: Path) -> None:
    pack_folder(root, table(tmp_path, CSV), tmp_path / "out")
    shards = ShardSet.open(tmp_path / "out")
    assert [entry.name for entry in shards.shard(0)] == ["cats/a.jpg", "cats/b.PNG", "dogs/deep/c d.jpeg"]
    assert shards.find("c d") == shards.find("dogs/deep/c d.jpeg") == 2


def test_a_link_is_followed_on_request(root: Path, tmp_path: Path) -> None:
    for folder, name in ((root, "cats/a.jpg"), (tmp_path / "masks", "cats/a.png")):
        shutil.move(folder / name, tmp_path / Path(name).name)
        (folder / name).symlink_to(tmp_path / Path(name).name)
        with pytest.raises(ShardError, match=r"a\.(jpg|png): leads outside of .*--follow-links"):
            pack_folder(root, table(tmp_path, CSV), tmp_path / "out", masks=tmp_path / "masks")
    allow = Allowances(links=True)
    assert pack_folder(root, table(tmp_path, CSV), tmp_path / "out", masks=tmp_path / "masks", allow=allow).shards


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.webp", "a.tif", "a.gif", "p.png", "la.png", "cmyk.jpg", "g.png"])
def test_photographs_of_all_kinds_come_in_as_predict_sees_them(root: Path, tmp_path: Path, name: str) -> None:
    random = np.random.default_rng(3)
    picture = Image.fromarray(random.integers(0, 255, (20, 24, 3), dtype=np.uint8))
    modes = {"p.png": "P", "la.png": "LA", "cmyk.jpg": "CMYK", "a.png": "RGBA"}
    if name == "g.png":
        picture = Image.fromarray(random.integers(0, 65535, (20, 24), dtype=np.uint16))
    picture.convert(modes.get(name, picture.mode)).save(root / name)
    path = table(tmp_path, f"file,labels\n{name},cat\n")
    with pytest.raises(ShardError, match=rf"\] {name}: is .*--convert"):
        pack_folder(root, path, tmp_path / "out")
    pack_folder(root, path, tmp_path / "out", allow=Allowances(convert=True))
    with Image.open(io.BytesIO(ShardSet.open(tmp_path / "out").image(0))) as packed:
        assert packed.mode == "RGB" and np.array_equal(np.array(packed), read_photo(root / name))
    assert verify(tmp_path / "out").samples == 1


def test_broken_photographs_stay_bad_when_converted(root: Path, tmp_path: Path) -> None:
    (root / "x.bmp").write_bytes(b"BM" + bytes(60))
    (root / "y.jpg").write_bytes((root / "cats" / "a.jpg").read_bytes()[:300])
    for name in ("x.bmp", "y.jpg"):
        with pytest.raises(ShardError, match=rf"{name}: (not a readable photograph|cannot be decoded)"):
            path = table(tmp_path, f"file,labels\n{name},cat\n")
            pack_folder(root, path, tmp_path / "out", allow=Allowances(convert=True))


def test_tags_of_wsss_code_are_a_table(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "cls_labels.npy"
    np.save(path, np.array({"a": np.array([1, 0.0]), "c d": np.array([1, 1]), "gone": np.array([0, 1])}, dtype=object))
    pack_folder(root, path, tmp_path / "out")
    shards, summary = ShardSet.open(tmp_path / "out"), read_summary(tmp_path / "out")
    assert shards.classes == ("background", "class_1", "class_2")
    assert [entry.source for entry in shards.shard(0)] == ["cats/a.jpg", "dogs/deep/c d.jpeg"]
    assert [shards.load(n, "tags").tolist() for n in (0, 1)] == [[1, 0], [1, 1]]
    assert summary is not None and summary.notes[0].startswith("cls_labels.npy numbers its classes")
    assert summary.notes[1].startswith("1 of 3 keys of cls_labels.npy belong to no photograph")
    (tmp_path / "classes.txt").write_text("background\ncat\ndog\n")
    assert pack_folder(root, path, tmp_path / "named", classes=tmp_path / "classes.txt").classes[1] == "cat"
    (tmp_path / "classes.txt").write_text("background\ncat\n")
    with pytest.raises(ShardError, match=r"cls_labels\.npy: holds 2 tags an image; expected 1"):
        pack_folder(root, path, tmp_path / "no", classes=tmp_path / "classes.txt")
    np.save(path, np.array({"nobody": np.array([1, 0])}, dtype=object))
    with pytest.raises(ShardError, match="none of 1 keys, such as 'nobody', is a photograph"):
        pack_folder(root, path, tmp_path / "no")


def test_ids_by_the_alphabet_are_said(root: Path, tmp_path: Path) -> None:
    pack_folder(root, table(tmp_path, CSV), tmp_path / "out", masks=tmp_path / "masks", allow=Allowances(trust="tags"))
    summary = read_summary(tmp_path / "out")
    assert summary is not None and "without --classes the ids in masks are" in summary.notes[0]
    assert summary.notes[0].endswith("cat 1, dog 2")
