"""Run lengths as COCO writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools.coco import COCO
from torchvision.datasets import CocoDetection

from amn_dist.interchange.coco import export_coco, image_ids, regions
from amn_dist.interchange.selection import SelectedField, select_masks
from amn_dist.shards.format import encode
from amn_dist.shards.shardset import ShardSet
from amn_dist.shards.writer import write_index, write_shard
from data_shards.coco import pack_coco

LABELS = arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.sampled_from([0, 1, 2, 255]))


def decoded(text: str, size: tuple[int, int]) -> np.ndarray:
    """A mask from COCO's compressed run lengths, number by number and pixel by pixel."""
    counts: list[int] = []
    position = 0
    while position < len(text):
        value, shift, more = 0, 0, True
        while more:
            group = ord(text[position]) - 48
            value |= (group & 31) << shift
            shift, position = shift + 5, position + 1
            more = bool(group & 32)
            if not more and group & 16:
                value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    pixels = [turn % 2 for turn, count in enumerate(counts) for _ in range(count)]
    return np.array(pixels, bool).reshape(size[1], size[0]).T


@given(LABELS)
def test_every_region_comes_back(labels: np.ndarray) -> None:
    found = dict(regions(labels))
    assert sorted(found) == sorted(set(np.unique(labels).tolist()) - {0, 255})
    for number, region in found.items():
        inside = labels == number
        assert region["segmentation"]["size"] == list(labels.shape)
        assert np.array_equal(decoded(region["segmentation"]["counts"], labels.shape), inside)
        rows, columns = np.nonzero(inside)
        assert region["area"] == len(rows)
        x, y, width, height = region["bbox"]
        assert (x, y, x + width, y + height) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_long_and_shrinking_runs_come_back() -> None:
    inside = np.zeros((700, 900), bool)
    inside[3:650, 100:700] = True
    inside[10:12] = False
    assert np.array_equal(decoded(text_of(inside), inside.shape), inside)


@pytest.mark.parametrize(
    ("inside", "text"),
    [
        ([[True, False], [True, True]], "021O"),
        ([[False, False], [False, True]], "31"),
        ([[True]], "01"),
        (np.ones((1000, 1500)), "0Pkh]1"),
        (np.arange(1_500_000).reshape(1000, 1500) == 1_499_999, "ojh]11"),
        (np.arange(35).reshape(7, 5) % 3 == 1, "2120O01000O01020N0O01000"),
    ],
)
def test_runs_begin_outside_and_go_down_columns(inside: Any, text: str) -> None:
    """From the fourth on, a run is told as its difference to the last of its own kind."""
    assert text_of(np.asarray(inside, bool)) == text
    assert np.array_equal(decoded(text, np.shape(inside)), np.asarray(inside, bool))


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (1, 1), (3, 4)])
def test_labels_without_a_class_have_no_region(size: tuple[int, int]) -> None:
    for number in (0, 255):
        assert not list(regions(np.full(size, number, np.uint8)))


def text_of(inside: np.ndarray) -> str:
    """The run lengths of a class that is bool[H, W]."""
    ((number, region),) = regions(inside.astype(np.uint8) * 7)
    assert number == 7
    return region["segmentation"]["counts"]


def labelled(folder: Path, keys: list[str]) -> tuple[ShardSet, dict[str, np.ndarray]]:
    random = np.random.default_rng(1)
    labels = {key: random.choice([0, 0, 0, 1, 2, 255], (9, 7)).astype(np.uint8) for key in keys}
    rows = [(key, of.shape, {"mask.png": encode("mask.png", of)}) for key, of in labels.items()]
    reports = [write_shard(folder, 0, rows[:2]), write_shard(folder, 1, rows[2:])]
    write_index(folder, kind="walk", classes=("background", "cat", "dog"), reports=reports)
    return ShardSet.open(str(folder)), labels


def test_the_file_holds_every_region_once(tmp_path: Path) -> None:
    made, labels = labelled(tmp_path / "set", ["COCO_train2014_000000000009", "COCO_train2014_000000000025", "x_7"])
    count = export_coco(SelectedField(made, "mask.png"), tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text())
    assert [image["id"] for image in found["images"]] == [9, 25, 7]
    assert [c["name"] for c in found["categories"]] == ["cat", "dog"] and count == len(found["annotations"])
    keys = {image["id"]: image["key"] for image in found["images"]}
    again = {key: np.where(of == 255, 0, 0).astype(np.uint8) for key, of in labels.items()}
    for region in found["annotations"]:
        key = keys[region["image_id"]]
        again[key][decoded(region["segmentation"]["counts"], labels[key].shape)] = region["category_id"]
    assert all(np.array_equal(again[key], np.where(of == 255, 0, of)) for key, of in labels.items())
    assert {path.name for path in tmp_path.iterdir()} == {"set", "out.json"}


def test_keys_without_numbers_of_their_own_are_counted(tmp_path: Path) -> None:
    made, _ = labelled(tmp_path / "set", ["2007_000032", "2008_000032", "cat"])
    assert image_ids(SelectedField(made, "mask.png")) == [1, 2, 3]


def test_a_set_goes_out_as_it_came_in(coco_sample: Path, tmp_path: Path) -> None:
    """Names and ids of the source; torchvision, pycocotools and our own packer read the file beside the photographs."""
    split = min(path.name for path in coco_sample.iterdir() if path.is_dir() and path.name != "annotations")
    pack_coco(coco_sample, split=split, out=tmp_path / "set")
    source = COCO(str(coco_sample / "annotations" / f"instances_{split}.json"))
    names = {category["id"]: category["name"] for category in source.loadCats(source.getCatIds())}
    (tmp_path / "again" / "annotations").mkdir(parents=True)
    (tmp_path / "again" / split).symlink_to(coco_sample / split)
    out = tmp_path / "again" / "annotations" / f"instances_{split}.json"
    export_coco(select_masks(str(tmp_path / "set")), out)
    given = COCO(str(out))
    assert {category["id"]: category["name"] for category in given.loadCats(given.getCatIds())} == names
    files = {image["id"]: image["file_name"] for image in source.loadImgs(source.getImgIds())}
    assert {image["id"]: image["file_name"] for image in given.loadImgs(given.getImgIds())}.items() <= files.items()
    pictures = CocoDetection(str(coco_sample / split), str(out))
    picture, annotations = pictures[0]
    assert picture.size[::-1] == given.annToMask(annotations[0]).shape
    pack_coco(tmp_path / "again", split=split, out=tmp_path / "twice")
    once, twice = (ShardSet.open(str(tmp_path / name)) for name in ("set", "twice"))
    assert twice.classes == once.classes and twice.index.source_ids == once.index.source_ids
    for ordinal in range(len(once)):
        labels = once.load(ordinal, "gt.png")
        assert np.array_equal(twice.load(ordinal, "gt.png"), np.where(labels == 255, 0, labels))
        assert twice.entry(ordinal).source == once.entry(ordinal).source
