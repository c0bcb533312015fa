"""Tags and masks that do not mean the same classes: refused where none can be meant, told where some differ."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from amn_dist.errors import ShardError
from amn_dist.shards.palette import palette
from amn_dist.shards.shardset import ShardSet
from data_shards.agreement import contradiction, doubts, other_order
from data_shards.allowances import Allowances
from data_shards.census import Census, Contents, ids_in, no_census, take_census
from data_shards.pack import PACK, pack
from data_shards.resumable import SUMMARY
from data_shards.source import Content, PackSource
from data_shards.summary import read_summary

CLASSES = ("background", "disc", "box", "wedge")
PICKS = ((1,), (1, 2), (2, 3), (3,), (1, 3), (2,), (1, 2, 3), ())
"""The classes of eight images, each of them once alone."""


def mask(ids: tuple[int, ...]) -> np.ndarray:
    """Ids uint8[24, 32] of some classes in columns of their own, on background."""
    truth = np.zeros((24, 32), np.uint8)
    for column, number in enumerate(ids):
        truth[4:20, 8 * column + 2 : 8 * column + 8] = number
    return truth


def png(truth: np.ndarray, colours: np.ndarray | None = None) -> bytes:
    picture = Image.fromarray(truth)
    if colours is not None:
        picture.putpalette(colours.tobytes())
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def photo() -> bytes:
    return png(np.full((24, 32, 3), 90, np.uint8))


def sources(truth: Callable[[tuple[int, ...]], bytes], tags: tuple[tuple[int, ...], ...] = PICKS) -> list[PackSource]:
    """A sample of every pick. truth: its mask. tags: what it is tagged with."""

    def source(number: int) -> PackSource:
        hot = np.isin(np.arange(1, len(CLASSES)), tags[number]).astype(np.uint8)
        content = Content(photo(), hot, truth(PICKS[number]))
        return PackSource(f"k{number}", f"{number}.png", 1, "", lambda: content, f"masks/{number}.png")

    return [source(number) for number in range(len(tags))]


def packed(out: Path, samples: list[PackSource], **how: object) -> ShardSet:
    pack(samples, out, classes=CLASSES, shard_size=3, skip_bad=False, **how)  # type: ignore[arg-type]
    return ShardSet.open(out)


def naive(samples: list[Contents], classes: int) -> Census:
    """A census, sample by sample and id by id."""
    census = no_census(classes)
    images = masks = lacking = untagged = 0
    for sample in samples:
        tagged = {number + 1 for number, tag in enumerate(sample.tags) if tag}
        for number in tagged or {0}:
            census.tagged[number] += 1
            census.alone[number] += len(tagged) == 1
        images += 1
        if sample.held is None:
            continue
        masks += 1
        held = {int(number) for number in sample.held}
        for number in {0} | tagged:
            for there in held:
                census.held[number, there] += 1
        lacking += bool(tagged - held)
        untagged += bool(held - tagged - {0, 255})
    return Census(images, masks, census.tagged, census.alone, census.held, lacking, untagged)


def test_a_census_is_that_of_counting_one_by_one() -> None:
    random = np.random.default_rng(5)
    samples = []
    for number in range(60):
        truth = random.choice([0, 1, 2, 3, 4, 255], (5, 7), p=[0.8, 0.04, 0.04, 0.04, 0.04, 0.04]).astype(np.uint8)
        tags = random.integers(0, 2, 4).astype(np.uint8) * (number % 7 > 0)
        held = ids_in(np.asfortranarray(truth)) if number % 5 else None
        assert held is None or held.tolist() == sorted(set(truth.ravel().tolist()))
        samples.append(Contents(f"n{number}", tags, held))
    whole = take_census(samples[40:], 5, 2) + (take_census(samples[:25], 5, 0) + take_census(samples[25:40], 5, 1))
    expected = naive(samples, 5)
    for field in ("images", "masks", "lacking", "untagged"):
        assert getattr(whole, field) == getattr(expected, field)
    for field in ("tagged", "alone", "held"):
        assert np.array_equal(getattr(whole, field), getattr(expected, field)), field
    assert [place[:2] for place in whole.examples] == sorted(place[:2] for place in whole.examples)
    assert len(whole.examples) == 8 and whole.examples[0][0] == 0


@pytest.mark.parametrize(
    ("moved", "message"),
    [
        (lambda m: np.where(m > 0, 255, 0), r"4 of 4 images are tagged disc, no mask holds id 1; nor are the ids of "
         r"box \(2\), wedge \(3\) in any mask of their images; masks hold 0 and 255 only; write the ids"),
        (lambda m: np.zeros_like(m), "masks hold 0 only"),
        (lambda m: np.where(m > 0, m - 1, 255), "tagged wedge, no mask holds id 3; .*ids are off by one"),
        (lambda m: np.array([0, 2, 3, 1])[m], "id 1 is wedge, id 2 is disc, id 3 is box; list them so"),
        (lambda m: np.where(m == 2, 0, m), "4 of 4 images are tagged box, no mask holds id 2; masks hold 0, 1 and 3"),
        (lambda m: np.where(m == 3, 2, m), "4 of 4 images are tagged wedge, no mask holds id 3"),
    ],
)  # fmt: skip
def test_ids_that_are_not_those_of_the_class_list(tmp_path: Path, moved: Callable, message: str) -> None:
    samples = sources(lambda ids: png(moved(mask(ids)).astype(np.uint8)))
    with pytest.raises(ShardError, match=message) as caught:
        packed(tmp_path / "out", samples)
    said = str(caught.value)
    assert "--trust-masks" in said and "--trust-tags" in said and said.isprintable() and len(said) < 900
    assert not (tmp_path / "out").exists()
    as_they_are = packed(tmp_path / "tags", samples, allow=Allowances(trust="tags"))
    assert [as_they_are.load(n, "tags").tolist() for n in (0, 1)] == [[1, 0, 0], [1, 1, 0]]
    assert read_summary(tmp_path / "tags").notes == []  # type: ignore[union-attr]
    of_masks = packed(tmp_path / "masks", samples, allow=Allowances(trust="masks"))
    for ordinal in range(len(PICKS)):
        held = set(np.unique(of_masks.load(ordinal, "gt.png")).tolist()) - {0, 255}
        assert set((np.flatnonzero(of_masks.load(ordinal, "tags")) + 1).tolist()) == held


def test_single_images_that_differ_are_counted_and_named(tmp_path: Path) -> None:
    tags = ((1, 2), (1, 2), (2, 3), (3,), (1,), (2,), (1, 2, 3), ())
    packed(tmp_path / "out", sources(lambda ids: png(mask(ids)), tags))
    summary = read_summary(tmp_path / "out")
    assert summary is not None and summary.notes == [
        "1 of 8 images have tags whose ids their masks do not hold (box 1 of 5)",
        "1 of 8 images have classes in their masks that are no tags (wedge 1 of 4); such as 0.png; 4.png",
    ]
    assert [(row.name, row.tagged, row.masks, row.alone) for row in summary.classes] == [
        ("disc", 4, 4, 1), ("box", 5, 4, 1), ("wedge", 3, 4, 1)]  # fmt: skip
    assert (summary.images, summary.shards, summary.untagged, summary.left_out) == (8, 3, 1, None)


def test_tags_and_masks_that_agree_are_left_as_they_are(tmp_path: Path) -> None:
    packed(tmp_path / "out", sources(lambda ids: png(mask(ids))))
    summary = read_summary(tmp_path / "out")
    assert summary is not None and summary.notes == []
    trusted = packed(tmp_path / "masks", sources(lambda ids: png(mask(ids))), allow=Allowances(trust="masks"))
    assert trusted.digest == ShardSet.open(tmp_path / "out").digest


def test_a_pack_that_goes_on_counts_what_was_there(tmp_path: Path) -> None:
    samples = sources(lambda ids: png(mask(ids)))
    packed(tmp_path / "out", samples)
    whole = (tmp_path / "out" / SUMMARY).read_bytes()
    for name in ("index.json", SUMMARY, "000001.json"):
        (tmp_path / "out" / name).unlink()
    packed(tmp_path / "out", samples)
    assert (tmp_path / "out" / SUMMARY).read_bytes() == whole


def test_a_refusal_after_a_stop_leaves_nothing(tmp_path: Path) -> None:
    samples = sources(lambda ids: png(np.where(mask(ids) > 0, 255, 0).astype(np.uint8)))
    out = tmp_path / "out"
    packed(out, samples, allow=Allowances(trust="tags"))
    for name in ("index.json", SUMMARY):
        (out / name).unlink()
    assert (out / PACK).exists()
    with pytest.raises(ShardError, match="no mask holds id 1"):
        packed(out, samples)
    assert not out.exists()


def test_a_palette_in_another_order_makes_bad_samples(tmp_path: Path) -> None:
    order = np.array([2, 0, 3, 1])  # the colour of id n stands at place order[n]
    colours = palette(256)
    colours[order] = palette(256)[:4]
    with pytest.raises(
        ShardError, match=r"masks/0\.png: holds ids out of order: 0 in the colour of id 1, 2 in the colour"
    ):
        packed(tmp_path / "out", sources(lambda ids: png(order[mask(ids)].astype(np.uint8), colours)))
    right = packed(tmp_path / "right", sources(lambda ids: png(mask(ids), palette(256))))
    own = np.arange(768, dtype=np.uint8).reshape(256, 3)[::-1]
    other = packed(tmp_path / "own", sources(lambda ids: png(mask(ids), np.ascontiguousarray(own))))
    assert right.digest == other.digest


def test_ids_beyond_the_table_that_are_a_palettes_order_are_told_so(tmp_path: Path) -> None:
    colours = palette(256)
    colours[[4, 5, 6, 7]] = palette(256)[:4]
    with pytest.raises(ShardError, match="4 in the colour of id 0, 5 in the colour of id 1"):
        packed(tmp_path / "out", sources(lambda ids: png((mask(ids) + 4).astype(np.uint8), colours)))


def test_classes_swap_only_where_all_images_say_so() -> None:
    random = np.random.default_rng(1)
    for _ in range(50):
        order = random.permutation(4) + 1
        tags = random.integers(0, 2, (30, 4)).astype(np.uint8)
        samples = [Contents("a", row, np.array([0, *sorted(order[np.flatnonzero(row)])])) for row in tags]
        census = take_census(samples, 5, 0)
        expected = dict(zip(range(1, 5), order.tolist(), strict=True))
        assert other_order(census) == (None if all(a == b for a, b in expected.items()) else expected)
    assert contradiction(no_census(3), ("background", "a", "b")) is None and doubts(no_census(3), ("b", "c", "d")) == []


def test_sets_whose_tags_come_from_their_truth_are_not_compared(coco_sample: Path, tmp_path: Path) -> None:
    from data_shards.coco import pack_coco

    pack_coco(coco_sample, "val2014", tmp_path / "out")  # crowds are tagged and not painted
    summary = read_summary(tmp_path / "out")
    assert summary is not None and summary.notes == [] and len(summary.classes) == 80


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"images": "a"}', b"\xff"])
def test_a_summary_that_cannot_be_read_is_none(tmp_path: Path, text: bytes) -> None:
    packed(tmp_path / "out", sources(lambda ids: png(mask(ids))))
    (tmp_path / "out" / SUMMARY).write_bytes(text)
    assert read_summary(tmp_path / "out") is None
    shutil.rmtree(tmp_path / "out")
    assert read_summary(tmp_path / "out") is None
