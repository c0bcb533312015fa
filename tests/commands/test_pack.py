"""`amn pack`: what it says of every layout, and of every mistake."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from amn_dist.shards.shardset import ShardSet

Say = Callable[..., Any]
XML = """<annotation><filename>{name}.jpg</filename><size><width>40</width><height>32</height><depth>3</depth></size>
<object><name>{label}</name><difficult>{difficult}</difficult></object></annotation>"""


def photo(path: Path, colour: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((32, 40, 3), colour, np.uint8)).save(path)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """Two photographs of VOC's layout, the second object difficult beside an easy one."""
    root = tmp_path / "voc"
    for name, label in (("a_1", "cat"), ("a_2", "dog")):
        photo(root / "JPEGImages" / f"{name}.jpg")
        (root / "Annotations").mkdir(exist_ok=True)
        text = XML.format(name=name, label=label, difficult=0)
        extra = (
            "<object><name>person</name><difficult>1</difficult></object></annotation>"
            if name == "a_2"
            else "</annotation>"
        )
        (root / "Annotations" / f"{name}.xml").write_text(text.replace("</annotation>", extra))
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("a_1\na_2\n")
    return root


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """One photograph with an outline and one without annotations, in COCO's layout."""
    root = tmp_path / "coco"
    for number in (7, 8):
        photo(root / "train2014" / f"{number:012d}.jpg")
    images = [{"id": n, "file_name": f"{n:012d}.jpg", "width": 40, "height": 32} for n in (7, 8)]
    box = [[4.0, 4.0, 20.0, 4.0, 20.0, 20.0, 4.0, 20.0]]
    annotation = {"id": 1, "image_id": 7, "category_id": 3, "segmentation": box, "area": 256.0, "bbox": [4, 4, 16, 16]}
    categories = [{"id": 3, "name": "car"}, {"id": 5, "name": "boat"}]
    (root / "annotations").mkdir()
    tree = {"images": images, "annotations": [{**annotation, "iscrowd": 0}], "categories": categories}
    (root / "annotations" / "instances_train2014.json").write_text(json.dumps(tree))
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    photo(root / "one.png")
    photo(root / "deep" / "two.jpg")
    (root / "labels.csv").write_text("file,labels\none.png,cat;dog\ndeep/two.jpg,dog\n")
    return root


def test_voc(voc: Path, amn: Say, tmp_path: Path) -> None:
    done = amn("pack", "voc", voc, "--out", tmp_path / "out", "--shard-size", 1)
    assert done.code == 0 and done.out.startswith(f"{tmp_path / 'out'}: 2 samples in 2 shards, 21 classes, digest ")
    assert amn("pack", "voc", voc, "--no-difficult", "--out", tmp_path / "easy").code == 0
    both, easy = (ShardSet.open(str(tmp_path / name)).load(1, "tags").sum() for name in ("out", "easy"))
    assert (both, easy) == (2, 1)


def test_coco(coco: Path, amn: Say, tmp_path: Path) -> None:
    done = amn("pack", "coco", coco, "--out", tmp_path / "out")
    assert done.code == 0 and "2 samples in 1 shards, 3 classes" in done.out
    fewer = amn("pack", "coco", coco, "--no-unlabelled", "--out", tmp_path / "labelled")
    assert fewer.code == 0 and "1 samples in 1 shards" in fewer.out
    assert "1 images without annotations are left out" in fewer.out
    packed = ShardSet.open(str(tmp_path / "out"))
    assert packed.classes == ("background", "car", "boat") and packed.load(0, "gt.png")[10, 10] == 1


def test_folder(folder: Path, amn: Say, tmp_path: Path) -> None:
    done = amn("pack", "folder", folder, "--labels", folder / "labels.csv", "--out", tmp_path / "out")
    assert done.code == 0 and "2 samples in 1 shards, 3 classes" in done.out


def test_synthetic_again_is_the_same_and_another_is_refused(
    amn: Say, mistake: Callable[..., str], tmp_path: Path
) -> None:
    words = ("pack", "synthetic", "--out", tmp_path / "out", "--images", 3)
    first, again = amn(*words), amn(*words)
    assert (first.code, again.code) == (0, 0) and first.out == again.out
    assert "holds a finished set of other inputs or settings" in mistake(*words, "--seed", 1)


def test_bad_inputs_stop_or_are_set_aside(voc: Path, amn: Say, mistake: Callable[..., str], tmp_path: Path) -> None:
    (voc / "JPEGImages" / "a_2.jpg").write_bytes(b"no picture")
    told = mistake("pack", "voc", voc, "--out", tmp_path / "out")
    assert "1 of 2 samples are bad: [a_2]" in told and "--skip-bad" in told
    done = amn("pack", "voc", voc, "--out", tmp_path / "out", "--skip-bad")
    assert done.code == 0 and "1 samples in 1 shards" in done.out
    assert "a_2" in (tmp_path / "out" / "quarantine.json").read_text()


def test_a_table_of_classes_decides(voc: Path, mistake: Callable[..., str], tmp_path: Path) -> None:
    (voc / "classes.txt").write_text("background\ncat\n")
    told = mistake("pack", "voc", voc, "--out", tmp_path / "out")
    assert "dog" in told and "a_2" in told


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("voc", "nowhere", "--out", "out"), "nowhere/JPEGImages: no such folder"),
        (("coco", ".", "--out", "out"), "train2014: no such folder"),
        (("coco", ".", "--split", "../x", "--out", "out"), "split: found '../x', expected the name of a folder"),
        (("folder", ".", "--labels", "none.csv", "--out", "out"), "none.csv: not there"),
        (("synthetic", "--out", "taken", "--images", "2"), "taken: cannot be written to"),
        (
            ("synthetic", "--out", "out", "--images", "2", "--shard-size", "0"),
            "'--shard-size': Input should be greater than or equal to 1",
        ),
        (("synthetic", "--out", "nix://x/y", "--images", "2"), "nix://x/y"),
    ],
)
def test_a_mistake_is_one_line(
    words: tuple[str, ...], told: str, mistake: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").write_text("")
    assert told in mistake("pack", *words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("synthetic",), "--out"),
        (("synthetic", "--out", "o", "--images", "0"), "--images"),
        (("synthetic", "--out", "o", "--workers", "-1"), "--workers"),
        (("voc", "--out", "o"), "ROOT"),
        (("vok", "x"), "vok"),
    ],
)
def test_arguments_that_are_missing_or_wrong_are_named(words: tuple[str, ...], told: str, amn: Say) -> None:
    done = amn("pack", *words)
    assert done.code == 2 and told in done.err and "Traceback" not in done.err


def test_a_pack_ends_with_its_classes_and_what_it_left_out(voc: Path, amn: Say, tmp_path: Path) -> None:
    for number in range(3, 15):
        (voc / "Annotations" / f"a_{number}.xml").write_text(XML.format(name=f"a_{number}", label="cat", difficult=0))
    (voc / "ImageSets" / "Segmentation" / "train.txt").write_text("\n".join(f"a_{number}" for number in range(1, 15)))
    (voc / "classes.txt").write_text("background\ncat\ndog\nperson\nunicorn\n")
    done = amn("pack", "voc", voc, "--out", tmp_path / "out", "--skip-bad")
    lines = done.out.splitlines()
    assert [line.split() for line in lines[1:6]] == [
        ["id", "class", "images"], ["1", "cat", "1"], ["2", "dog", "1"], ["3", "person", "1"], ["4", "unicorn", "0"]
    ]  # fmt: skip
    assert lines[6].startswith("note: no truth found: none of SegmentationClass")
    names = ", ".join(f"JPEGImages/a_{number}.jpg" for number in range(3, 11))
    assert lines[7].startswith("note: no image has dog; person as its only tag")
    assert lines[8] == (
        f"12 of 14 samples are left out: 12 not there ({names} and 4 more); all in {tmp_path / 'out'}/quarantine.json"
    )
    assert len(lines) == 9 and amn("pack", "voc", voc, "--out", tmp_path / "out", "--skip-bad").out == done.out


def test_many_classes_are_two_a_row_of_a_terminal(
    folder: Path, amn: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    names = [f"a class of a name that is long, number {number}"[:38] + str(number) for number in range(81)]
    (folder / "classes.txt").write_text("background\ncat\ndog\n" + "\n".join(names).replace(",", ""))
    done = amn(
        *("pack", "folder", folder, "--labels", folder / "labels.csv", "--out", tmp_path / "out"),
        *("--classes", folder / "classes.txt"),
    )
    lines = done.out.splitlines()
    assert done.code == 0 and lines[1].split() == ["id", "class", "images"] * 2
    assert all(len(line) <= 80 for line in lines[1:])


def test_classes_that_are_never_alone_are_named(folder: Path, amn: Say, tmp_path: Path) -> None:
    words = ("pack", "folder", folder, "--labels", folder / "labels.csv", "--out")
    told = amn(*words, tmp_path / "beside").out
    assert "note: no image has cat as its only tag: ICD learns no direction for such a class" in told
    (folder / "labels.csv").write_text("file,labels\none.png,cat\ndeep/two.jpg,dog\n")
    assert "only tag" not in amn(*words, tmp_path / "alone").out


def test_masks_and_tags_that_differ_are_refused_and_settled(
    folder: Path, amn: Say, mistake: Callable[..., str], tmp_path: Path
) -> None:
    for name in ("one", "deep/two"):
        path = tmp_path / "masks" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((32, 40), 255, np.uint8)).save(path)
    words = ("pack", "folder", folder, "--labels", folder / "labels.csv", "--masks", tmp_path / "masks")
    told = mistake(*words, "--out", tmp_path / "out")
    assert "1 of 1 images are tagged cat, no mask holds id 1; nor are the ids of dog (2)" in told
    assert "masks hold 255 only" in told and not (tmp_path / "out").exists()
    done = amn(*words, "--out", tmp_path / "tags", "--trust-tags")
    assert done.code == 0 and [line.split() for line in done.out.splitlines()[1:4]] == [
        ["id", "class", "images", "masks"], ["1", "cat", "1", "0"], ["2", "dog", "2", "0"]
    ]  # fmt: skip
    assert "2 of 2 images have no tag" in amn(*words, "--out", tmp_path / "of_masks", "--trust-masks").out
    assert "found both, expected one" in mistake(*words, "--out", tmp_path / "no", "--trust-masks", "--trust-tags")


def test_voc_as_wsss_code_has_it(voc: Path, amn: Say, tmp_path: Path) -> None:
    tags = {f"a_{n}": np.eye(20, dtype=np.float32)[n] for n in (1, 2)}
    np.save(voc / "cls_labels.npy", np.array(tags, dtype=object), allow_pickle=True)
    (voc / "Masks").mkdir()
    for number in (1, 2):
        Image.fromarray(np.full((32, 40), number + 1, np.uint8)).save(voc / "Masks" / f"a_{number}.png")
    words = ("pack", "voc", voc, "--tags", voc / "cls_labels.npy")
    done = amn(*words, "--masks", "Masks", "--out", tmp_path / "out")
    packed = ShardSet.open(str(tmp_path / "out"))
    assert done.code == 0 and packed.load(0, "gt.png").max() == 2 and packed.load(0, "tags").nonzero()[0] == [1]
    assert amn(*words, "--masks", "Masks", "--no-truth", "--out", tmp_path / "bare").code == 0
    assert ShardSet.open(str(tmp_path / "bare")).fields == ("jpg", "tags")
