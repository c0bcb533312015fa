"""Labels for labelling tools: what is written, drawn again by the rules of its reader, is the labels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from defusedxml import ElementTree
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as run_lengths

from amn_dist.documents import read_json
from amn_dist.interchange.cvat import export_cvat, mask
from amn_dist.interchange.label_studio import PREFIX, encode_brush, export_label_studio
from amn_dist.interchange.outlines import joined, parts
from amn_dist.interchange.selection import SelectedField, select_masks
from amn_dist.interchange.yolo import export_yolo, polygons
from amn_dist.shards.format import encode
from amn_dist.shards.names import SourceFile
from amn_dist.shards.shardset import ShardSet
from amn_dist.shards.writer import write_index, write_shard

SIDES = st.tuples(st.integers(1, 9), st.integers(1, 9))
REGIONS = arrays(np.bool_, SIDES, elements=st.booleans())
RING = np.pad(np.zeros((2, 3), bool), 2, constant_values=True)
CLASSES = ("background", 'a "b" <c> & d', "кот")
SOURCES = ("deep/IMG 1.jpg", 'x & "y".jpg', "猫.jpg")


def drawn(loop: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixels bool[H, W] inside a loop of corners, by the even-odd rule: borders to the left of a pixel's centre."""
    crossings = np.zeros((size[0], size[1] + 1), int)
    for (x, y), (next_x, next_y) in zip(loop, np.roll(loop, -1, 0), strict=True):
        if x == next_x:
            crossings[min(y, next_y) : max(y, next_y), x] += 1
    return np.cumsum(crossings, 1)[:, :-1] % 2 == 1


@given(REGIONS)
@example(RING)
@example(np.eye(3, dtype=bool))
@example(~np.eye(3, dtype=bool))
def test_outlines_enclose_their_pixels(region: np.ndarray) -> None:
    again = np.zeros(region.shape, int)
    for loops in parts(region):
        for loop in loops:
            turned = np.roll(loop, -1, 0) != loop
            assert (turned.sum(1) == 1).all() and (turned[:, 0] != np.roll(turned[:, 0], -1)).all(), "corners alone"
        filled = sum(drawn(loop, region.shape).astype(int) for loop in loops) % 2
        first = drawn(loops[0], region.shape)
        assert (filled <= first).all(), "the first loop encloses the others"
        again += filled
    assert np.array_equal(again, region)


@given(REGIONS)
@example(RING)
def test_holes_stay_holes_where_loops_are_joined(region: np.ndarray) -> None:
    size = region.shape
    again = np.zeros(size, bool)
    for loops in parts(region):
        corners = joined(loops).astype(float).ravel().tolist()
        again |= run_lengths.decode(run_lengths.frPyObjects([[*corners, *corners[:2]]], *size)[0]).astype(bool)
    assert np.array_equal(again, region)


@given(REGIONS)
def test_a_brush_comes_back(region: np.ndarray) -> None:
    assert np.array_equal(unpacked(encode_brush(region)).reshape(*region.shape, 4) > 0, region[..., None].repeat(4, 2))


def test_long_runs_of_a_brush_come_back() -> None:
    region = np.zeros((300, 400), bool)
    region[100:290] = True
    assert np.array_equal(unpacked(encode_brush(region)).reshape(300, 400, 4)[..., 3] > 0, region)


def test_the_tools_own_reader_reads_a_brush() -> None:
    brush = pytest.importorskip("label_studio_converter.brush", reason="label-studio-converter is not installed")
    region = np.random.default_rng(0).random((37, 61)) > 0.7
    assert np.array_equal(brush.decode_rle(encode_brush(region)).reshape(37, 61, 4)[..., 3] > 0, region)


def unpacked(content: list[int]) -> np.ndarray:
    """Values of run lengths as Label Studio's front end reads them, bit by bit."""
    bits = "".join(f"{byte:08b}" for byte in content)
    place = 0

    def take(count: int) -> int:
        nonlocal place
        place += count
        return int(bits[place - count : place], 2)

    total, width = take(32), take(5) + 1
    sizes = [take(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < total:
        equal, length = take(1), take(sizes[take(2)]) + 1
        values += [take(width)] * length if equal else [take(width) for _ in range(length)]
    return np.array(values[:total], np.uint8)


@given(REGIONS.filter(lambda region: region.any()))
def test_a_mask_of_cvat_comes_back(region: np.ndarray) -> None:
    assert np.array_equal(of_cvat(ElementTree.fromstring(mask("cat", region)), region.shape), region)


def of_cvat(element: Any, size: tuple[int, ...]) -> np.ndarray:
    """Pixels bool[H, W] of a mask: lengths of runs that alternate, the first outside, over the rows of its box."""
    left, top, width, height = (int(element.get(name)) for name in ("left", "top", "width", "height"))
    runs = [int(length) for length in element.get("rle").split(",")]
    pixels = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    inside = np.zeros(size, bool)
    inside[top : top + height, left : left + width] = pixels.reshape(height, width)
    return inside


@pytest.fixture
def packed(tmp_path: Path) -> tuple[SelectedField, list[np.ndarray]]:
    """Photographs with odd names and truth; one without classes."""
    random = np.random.default_rng(2)
    labels = [random.choice([0, 1, 1, 2, 255], (7 + n, 9)).astype(np.uint8) * (n != 1) for n in range(3)]
    rows = [
        (f"k{n}", of.shape, {"jpg": b"\xff\xd8\xff", "tags": b"\1\1", "gt.png": encode("gt.png", of)})
        for n, of in enumerate(labels)
    ]
    report = write_shard(
        tmp_path / "set", 0, rows, sources={f"k{n}": SourceFile(name) for n, name in enumerate(SOURCES)}
    )
    write_index(tmp_path / "set", kind="images", classes=CLASSES, reports=[report])
    return select_masks(str(tmp_path / "set")), labels


def test_yolo(packed: tuple[SelectedField, list[np.ndarray]], tmp_path: Path) -> None:
    selected, labels = packed
    assert export_yolo(selected, tmp_path / "out") == export_yolo(selected, tmp_path / "out") == 3
    table = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert table == {"path": ".", "train": "images", "val": "images", "names": dict(enumerate(CLASSES[1:]))}
    for name, of_image in zip(SOURCES, labels, strict=True):
        text = (tmp_path / "out" / "labels" / name).with_suffix(".txt").read_text()
        assert np.array_equal(of_yolo(text, of_image.shape), np.where(of_image == 255, 0, of_image))
    assert polygons(np.zeros((2, 2), np.uint8)) == ""


def of_yolo(text: str, size: tuple[int, ...]) -> np.ndarray:
    """Labels uint8[H, W] of lines of a class and corners in shares of the sides."""
    labels = np.zeros(size, np.uint8)
    for line in io.StringIO(text):
        number, *shares = line.split()
        corners = np.array(shares, float).reshape(-1, 2)
        assert len(corners) >= 3 and corners.min() >= 0 and corners.max() <= 1
        pixels = (corners * size[::-1]).ravel().tolist()
        labels[run_lengths.decode(run_lengths.frPyObjects([pixels], *size)[0]) > 0] = int(number) + 1
    return labels


def test_label_studio(packed: tuple[SelectedField, list[np.ndarray]], tmp_path: Path) -> None:
    selected, labels = packed
    assert export_label_studio(selected, tmp_path / "tasks.json") == 3
    tasks = read_json((tmp_path / "tasks.json").read_bytes())
    assert [task["data"]["image"] for task in tasks] == [PREFIX + name for name in SOURCES]
    view = ElementTree.parse(tmp_path / "tasks.xml").getroot()
    assert [label.get("value") for label in view.iter("Label")] == list(CLASSES[1:])
    for task, of_image in zip(tasks, labels, strict=True):
        again = np.zeros(of_image.shape, np.uint8)
        for result in task["predictions"][0]["result"]:
            assert (result["original_height"], result["original_width"]) == of_image.shape
            assert result["from_name"] == view.find("BrushLabels").get("name")
            inside = unpacked(result["value"]["rle"]).reshape(*of_image.shape, 4)[..., 3] > 0
            again[inside] = CLASSES.index(result["value"]["brushlabels"][0])
        assert np.array_equal(again, np.where(of_image == 255, 0, of_image))


def test_cvat(packed: tuple[SelectedField, list[np.ndarray]], tmp_path: Path) -> None:
    selected, labels = packed
    assert export_cvat(selected, tmp_path / "a.xml") == 4
    root = ElementTree.parse(tmp_path / "a.xml").getroot()
    assert root.findtext("version") == "1.1"
    assert [label.findtext("name") for label in root.iter("label")] == list(CLASSES[1:])
    images = root.findall("image")
    assert [image.get("name") for image in images] == list(SOURCES)
    for image, of_image in zip(images, labels, strict=True):
        assert (int(image.get("height")), int(image.get("width"))) == of_image.shape
        again = np.zeros(of_image.shape, np.uint8)
        for element in image.findall("mask"):
            again[of_cvat(element, of_image.shape)] = CLASSES.index(element.get("label"))
        assert np.array_equal(again, np.where(of_image == 255, 0, of_image))


def test_names_that_differ_in_their_ending_alone_are_keys(tmp_path: Path) -> None:
    rows = [(key, (4, 4), {"mask.png": encode("mask.png", np.eye(4, dtype=np.uint8))}) for key in ("a", "b")]
    sources = {"a": SourceFile("x.jpg"), "b": SourceFile("x.png")}
    report = write_shard(tmp_path / "set", 0, rows, sources=sources)
    write_index(tmp_path / "set", kind="images", classes=("background", "cat"), reports=[report])
    shards = ShardSet.open(str(tmp_path / "set"))
    export_yolo(SelectedField(shards, "mask.png", shards), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out" / "labels").iterdir()) == ["a.txt", "b.txt"]
