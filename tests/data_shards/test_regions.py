"""Proposals in every form people have them in, to a shard set over its images; and what is said of damaged ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as rasteriser

from amn_dist.errors import ShardError
from amn_dist.ops.run_lengths import lengths_of
from amn_dist.shards.format import encode
from amn_dist.shards.shardset import ShardSet
from amn_dist.shards.writer import write_index, write_shard
from data_shards import proposals
from data_shards.json_pieces import entries
from data_shards.regions import import_regions
from data_shards.synthetic import pack_synthetic


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    folder = tmp_path_factory.mktemp("images") / "train"
    pack_synthetic(folder, images=5, seed=0, classes=2, size=(32, 48), shard_size=2)
    return ShardSet.open(str(folder))


def masks_of(images: ShardSet, ordinal: int) -> list[np.ndarray]:
    """Boxes and noise, one of no pixel and one of all."""
    entry, random = images.entry(ordinal), np.random.default_rng(ordinal)
    size = (entry.height, entry.width)
    masks = [random.random(size) < share for share in (0.1, 0.5, 0.9)[: ordinal + 1]]
    box = np.zeros(size, bool)
    box[3:20, 5 : 9 + ordinal] = True
    return [*masks, box, np.zeros(size, bool), np.ones(size, bool)]


def expected(images: ShardSet, ordinal: int) -> list[int]:
    entry = images.entry(ordinal)
    return [entry.height, entry.width, *np.concatenate([*map(lengths_of, masks_of(images, ordinal))]).tolist()]


def segmentation(mask: np.ndarray, *, compressed: bool) -> dict[str, Any]:
    runs = rasteriser.encode(np.asfortranarray(mask, np.uint8))
    counts = runs["counts"].decode() if compressed else lengths_of(mask).tolist()
    return {"size": list(mask.shape), "counts": counts}


def records(images: ShardSet, ordinal: int, **more: Any) -> list[dict[str, Any]]:
    """Records as SAM's own script writes them."""
    return [
        {
            **more,
            "segmentation": segmentation(mask, compressed=number % 2 == 0),
            "area": int(mask.sum()),
            "bbox": [0, 0, 5.5, 6],
            "predicted_iou": 0.97,
            "stability_score": 0.95,
            "point_coords": [[1.5, 2.5]],
            "crop_box": [0, 0, 48, 48],
        }
        for number, mask in enumerate(masks_of(images, ordinal))
    ]


def keys(images: ShardSet) -> list[str]:
    return [images.entry(ordinal).key for ordinal in range(len(images))]


def folder_of_lists(images: ShardSet, root: Path) -> Path:
    root.mkdir()
    for ordinal, key in enumerate(keys(images)):
        (root / f"{key}.json").write_text(json.dumps(records(images, ordinal)))
    return root


def folder_of_sa1b(images: ShardSet, root: Path) -> Path:
    (root / "deep").mkdir(parents=True)
    for ordinal, key in enumerate(keys(images)):
        tree = {"image": {"image_id": 7, "width": 1, "file_name": "x"}, "annotations": records(images, ordinal)}
        (root / f"{key}.json").write_text(json.dumps(tree))
    return root


def keyed_file(images: ShardSet, root: Path) -> Path:
    tree = {f"{key}.jpg": records(images, ordinal) for ordinal, key in enumerate(keys(images))}
    root.with_suffix(".json").write_text(json.dumps(tree, indent=1))
    return root.with_suffix(".json")


def results_file(images: ShardSet, root: Path) -> Path:
    """COCO's results, the masks of all images mixed, but each image's in their order."""
    every = [records(images, n, image_id=n, category_id=1, score=0.5) for n in range(len(images))]
    mixed = [of_image[i] for i in range(8) for of_image in every if i < len(of_image)]
    root.with_suffix(".json").write_text(json.dumps(mixed))
    return root.with_suffix(".json")


def lines_of_records(images: ShardSet, root: Path) -> Path:
    lines = [
        json.dumps(record)
        for n, key in enumerate(keys(images))
        for record in records(images, n, file_name=f"{key}.jpg")
    ]
    root.with_suffix(".jsonl").write_text("\n".join(["", *lines, ""]))
    return root.with_suffix(".jsonl")


def lines_of_images(images: ShardSet, root: Path) -> Path:
    lines = [json.dumps({"image": key, "masks": records(images, n)}) for n, key in enumerate(keys(images))]
    root.with_suffix(".ndjson").write_text("\r\n".join(lines))
    return root.with_suffix(".ndjson")


FORMS = [folder_of_lists, folder_of_sa1b, keyed_file, results_file, lines_of_records, lines_of_images]


@pytest.mark.parametrize("write", FORMS)
def test_every_form_leads_to_the_same_masks(
    images: ShardSet, write: Callable[[ShardSet, Path], Path], tmp_path: Path
) -> None:
    done = import_regions(write(images, tmp_path / "given"), images.url, tmp_path / "set")
    shards = ShardSet.open(str(tmp_path / "set"))
    images.join(shards)
    assert shards.kind == "proposals" and shards.fields == ("proposals.rle",) and not done.bad and not done.others
    for ordinal in range(len(images)):
        assert shards.load(ordinal, "proposals.rle").tolist() == expected(images, ordinal)


def test_a_stopped_import_goes_on_to_the_same_set(images: ShardSet, tmp_path: Path) -> None:
    file, out = results_file(images, tmp_path / "given"), tmp_path / "set"
    whole = import_regions(file, images.url, out).index.digest
    for name in ("index.json", "000001.json"):
        (out / name).unlink()
    mtime_ns = (out / "000000.tar").stat().st_mtime_ns
    assert import_regions(file, images.url, out).index.digest == whole
    assert (out / "000000.tar").stat().st_mtime_ns == mtime_ns
    other = keyed_file(images, tmp_path / "other")
    with pytest.raises(ShardError, match="finished proposals of other files"):
        import_regions(other, images.url, out)


def test_images_without_proposals_and_strangers(images: ShardSet, tmp_path: Path) -> None:
    root = folder_of_lists(images, tmp_path / "given")
    (root / "stranger.json").write_text("never opened")
    (root / f"{keys(images)[1]}.json").write_text(" [ ] ")
    (root / f"{keys(images)[3]}.json").unlink()
    with pytest.raises(ShardError, match=rf"1 of 5 images' proposals are bad: \[{keys(images)[3]}\] .*json: not there"):
        import_regions(root, images.url, tmp_path / "set")
    done = import_regions(root, images.url, tmp_path / "set", skip_bad=True)
    assert done.others == 1 and [key for key, _ in done.bad] == [keys(images)[3]]
    shards = ShardSet.open(str(tmp_path / "set"))
    for ordinal in (1, 3):
        entry = images.entry(ordinal)
        assert shards.load(ordinal, "proposals.rle").tolist() == [entry.height, entry.width]
    file = tmp_path / "some.json"
    file.write_text(json.dumps({keys(images)[0]: records(images, 0), "stranger.jpg": [], "x": []}))
    with pytest.raises(ShardError, match=r"4 of 5 .*some\.json: holds no proposals of it"):
        import_regions(file, images.url, tmp_path / "other")
    assert import_regions(file, images.url, tmp_path / "other", skip_bad=True).others == 2


def text(tree: Any) -> bytes:
    return json.dumps(tree).encode()


SOUND = {"size": [2, 3], "counts": [1, 5]}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", r"KEY\.json: is not JSON of masks"),
        (b"[", "is not JSON of masks"),
        (text([{"segmentation": SOUND}])[:-3], "is not JSON of masks"),
        (b"\xff\xfe[\x00", "is not JSON of masks"),
        (text([{"segmentation": {"size": [2, 3], "counts": "\u00e9"}}]), "run lengths that are not COCO's"),
        (b'[{"segmentation": {"size": [2, 3], "counts": "\xff"}}]', "is not JSON of masks"),
        (text([{"segmentation": SOUND}, {"area": 3}]), "proposal 1 has no segmentation"),
        (text([{"segmentation": None}]), "segmentation that is none"),
        (text([{"segmentation": [[1, 2, 3, 4, 5, 6]]}]), "polygons or pixels; expected run lengths"),
        (text([{"segmentation": {"size": [3, 2], "counts": [6]}}]), "run lengths for 2x3, its image is 3x2"),
        (text([{"segmentation": {"size": [2, 3], "counts": [5]}}]), "5 pixels; expected 6"),
        (text([{"segmentation": {"size": [2, 3], "counts": [5, 9]}}]), "14 pixels; expected 6"),
        (text([{"segmentation": {"size": [2, 3], "counts": [-1, 7]}}]), "none negative"),
        (text([{"segmentation": {"size": [2, 3], "counts": [2**62, 2**62, 2**62, 2**62, 6]}}]), "expected at most"),
        (text([{"segmentation": {"size": [2, 3], "counts": [2**80]}}]), "proposal 0 has"),
        (text([{"segmentation": {"size": [2, 3], "counts": "ooo"}}]), "end inside a number"),
        (text([{"segmentation": {"size": [2, 3], "counts": [1.0, 5]}}]), "segmentation that is none"),
        (text([{"segmentation": {"size": [2, 3], "counts": {"a": 1}}}]), "segmentation that is none"),
        (text([{"segmentation": {"size": [2], "counts": [6]}}]), "segmentation that is none"),
        (text([{"segmentation": {"counts": [6]}}]), "segmentation that is none"),
        (text([3]), "is not JSON of masks"),
        (text(7), "is not JSON of masks"),
        (text({"segmentation": SOUND}).replace(b"{", b'{"segmentation": 1, ', 1), "key 'segmentation' twice"),
        (b"[" * 100_000, "is not JSON of masks"),
        (b'[{"x": ' + b"[" * 100_000, "is not JSON of masks"),
    ],
)  # fmt: skip
def test_damaged_files_are_named_in_one_line(content: bytes, told: str, tmp_path: Path) -> None:
    report = write_shard(tmp_path / "images", 0, [("KEY", (2, 3), {"tags": encode("tags", np.zeros(1, np.uint8))})])
    write_index(tmp_path / "images", kind="images", classes=("background", "a"), reports=[report])
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "KEY.json").write_bytes(content)
    with pytest.raises(ShardError, match=told) as caught:
        import_regions(tmp_path / "given", tmp_path / "images", tmp_path / "set")
    assert "1 of 1" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "set").exists()
    assert import_regions(tmp_path / "given", tmp_path / "images", tmp_path / "set", skip_bad=True).bad


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is empty"),
        (b"  \n ", "is empty"),
        (b"7", "found '7', expected a list or an object"),
        (b"[7, 8]", "found '7, 8]', expected a list or an object"),
        (b'["a"]', "expected a list or an object"),
        (b'{"a": 7}', "found ': 7}', expected ':' and a list or an object"),
        (b'{"a" []}', "expected ':'"),
        (b'{"KEY": [] "b": []}', "expected ','"),
        (b'{"KEY": [], }', "found ', }', expected a list or an object, or the end"),
        (b"{[]}", "expected a name"),
        (b'{"KEY": []', "the file is cut"),
        (b'{"KEY": [{"segm', "inside of the text that begins at byte 10; the file is cut"),
        (b'{"KEY": [{"segm\\', "inside of the text that begins at byte 10; the file is cut"),
        (b'{"KEY": []} x', "found 'x', expected"),
        (b'{"KEY": []]', "expected the end of what begins at byte 0"),
        (b'{"KEY": [], "KEY": []}', "found 'KEY' twice"),
        (b'{"\\ud800": []}', "found '.ud800'|the name is damaged"),
        (b"[{}]", "says not whose it is"),
        (b'[{"image_id": 1.5}]', "the entry at byte 1 is damaged"),
        (b'[{"image_id": [3]}]', "the entry at byte 1 is damaged"),
        (b"[]", "holds no proposals"),
        (b"{}", "holds no proposals"),
        (b'[{"image_id": 5}]', "none of 1 entries belongs to an image of .*; found '5', expected such as KEY"),
        (b'{"": [], "..": [], "/": []}', "none of 3 entries"),
        (b"[" * 100_000, "nested more than 64 levels"),
        (b'[{"a":' * 100_000, "nested more than 64 levels"),
    ],
)  # fmt: skip
def test_a_damaged_file_for_all_is_told_with_its_byte(content: bytes, told: str, tmp_path: Path) -> None:
    report = write_shard(tmp_path / "images", 0, [("KEY", (2, 3), {"tags": encode("tags", np.zeros(1, np.uint8))})])
    write_index(tmp_path / "images", kind="images", classes=("background", "a"), reports=[report])
    (tmp_path / "given.json").write_bytes(content)
    with pytest.raises(ShardError, match=told) as caught:
        import_regions(tmp_path / "given.json", tmp_path / "images", tmp_path / "set")
    assert "given.json" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "set").exists()


def test_lines_that_are_damaged_are_told_with_their_byte(images: ShardSet, tmp_path: Path) -> None:
    file = lines_of_records(images, tmp_path / "given")
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(ShardError, match=r"given\.jsonl: the entry at byte \d+ is damaged"):
        import_regions(file, images.url, tmp_path / "set")


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_entries_are_those_of_a_parser(tree: Any) -> None:
    parts = [part if isinstance(part, list | dict) else [part] for part in (tree if isinstance(tree, list) else [tree])]
    for text in (json.dumps(parts), json.dumps(parts, indent=1, ensure_ascii=False)):
        content = text.encode("utf-8", "replace")
        assert [json.loads(content[e.start : e.stop]) for e in entries(content)] == json.loads(content)
    named = {f'{number}\\"[{{': part for number, part in enumerate(parts)}
    content = json.dumps(named).encode()
    assert {str(e.name): json.loads(content[e.start : e.stop]) for e in entries(content)} == named


def test_names_that_may_be_several_images_are_refused(tmp_path: Path) -> None:
    rows = [(key, (2, 3), {"tags": encode("tags", np.zeros(1, np.uint8))}) for key in ("a_x", "b_x")]
    sources: Any = {"a_x": ("a/x.jpg", 11), "b_x": ("b/x.jpg", 12)}
    report = write_shard(tmp_path / "images", 0, rows, sources=sources)
    write_index(tmp_path / "images", kind="images", classes=("background", "a"), reports=[report])
    (tmp_path / "given.json").write_bytes(b'{"x.jpg": []}')
    with pytest.raises(ShardError, match=r"byte 10: 'x\.jpg' may be 2 images \(a/x\.jpg, b/x\.jpg\)"):
        import_regions(tmp_path / "given.json", tmp_path / "images", tmp_path / "set")
    (tmp_path / "given.json").write_text(json.dumps({"12": [{"segmentation": SOUND}], "a_x": []}))
    import_regions(tmp_path / "given.json", tmp_path / "images", tmp_path / "ids")
    assert len(ShardSet.open(str(tmp_path / "ids")).load(1, "proposals.rle")) == 4
    (tmp_path / "given.json").write_text(json.dumps([{"image_id": n, "segmentation": SOUND} for n in (12, 11, 12)]))
    import_regions(tmp_path / "given.json", tmp_path / "images", tmp_path / "set")
    shards = ShardSet.open(str(tmp_path / "set"))
    assert [shards.load(n, "proposals.rle").tolist() for n in (0, 1)] == [[2, 3, 1, 5], [2, 3, 1, 5, 1, 5]]


def test_numbers_of_proposals_and_bytes_are_bounded(
    images: ShardSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, file = folder_of_lists(images, tmp_path / "given"), keyed_file(images, tmp_path / "all")
    monkeypatch.setattr(proposals, "MOST_MASKS", 4)
    with pytest.raises(ShardError, match="has more than 4 proposals"):
        import_regions(root, images.url, tmp_path / "a")
    monkeypatch.setattr("data_shards.json_pieces.MOST_BYTES", 100)
    with pytest.raises(ShardError, match=r"all\.json: what begins at byte \d+ has more than 100 bytes"):
        import_regions(file, images.url, tmp_path / "b")
    monkeypatch.setattr("data_shards.regions.MOST_BYTES", 100)
    with pytest.raises(ShardError, match="bytes; expected at most 100"):
        import_regions(root, images.url, tmp_path / "c")
