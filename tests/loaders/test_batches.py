"""Batches from shards: the same whatever cuts the work, resumable, closed cleanly."""

from __future__ import annotations

import gc
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from amn_dist.config import Loader
from amn_dist.errors import ConfigError, ShardError
from amn_dist.loaders.batches import batches
from amn_dist.loaders.carried import normalised
from amn_dist.loaders.crops import draw_crop
from amn_dist.loaders.decode import crop_decoder
from amn_dist.loaders.decoder import Encoded
from amn_dist.records import Batch, CropRule
from amn_dist.shards.format import encode
from amn_dist.shards.shardset import ShardSet
from amn_dist.shards.writer import write_index, write_shard

RULE = CropRule(size=32, rescale=(0.5, 1.5))
SIZES = (5, 4, 6, 2)
CLASSES = ("background", "one", "two", "three")


@dataclass(frozen=True)
class Sets:
    images: ShardSet
    labels: ShardSet
    broken: ShardSet


def jpeg(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def sample(ordinal: int) -> tuple[str, tuple[int, int], np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(ordinal)
    size = (int(random.integers(30, 50)), int(random.integers(30, 50)))
    pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
    tags = np.array([ordinal & 1, ordinal >> 1 & 1, ordinal >> 2 & 1], np.uint8)
    return f"key{ordinal:02}", size, pixels, tags, random.integers(0, 4, size, dtype=np.uint8)


def write(folder: Path, kind: str, fields: Any) -> ShardSet:
    reports, ordinal = [], 0
    for number, size in enumerate(SIZES):
        rows = [(s[0], s[1], fields(s)) for s in map(sample, range(ordinal, ordinal + size))]
        reports.append(write_shard(folder, number, rows))
        ordinal += size
    write_index(folder, kind=kind, classes=CLASSES, reports=reports)
    return ShardSet.open(folder)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Sets:
    folder = tmp_path_factory.mktemp("sets")

    def broken(s: Any) -> dict[str, bytes]:
        content = jpeg(s[2])
        return {"jpg": content[:400] if s[0] == "key07" else content, "tags": encode("tags", s[3])}

    return Sets(
        images=write(folder / "images", "images", lambda s: {"jpg": jpeg(s[2]), "tags": encode("tags", s[3])}),
        labels=write(folder / "labels", "cam_seed", lambda s: {"seed.png": encode("seed.png", s[4])}),
        broken=write(folder / "broken", "images", broken),
    )


def draw(
    sets: Sets, count: int, *, name: str = "torchvision", threads: int = 2, ahead: int = 2, **options: Any
) -> list[Batch]:
    loader = Loader(name=name, threads=threads, ahead=ahead)  # type: ignore[arg-type]
    options = {"batch": 4, "seed": 7, **options}
    source = batches(sets.images, (sets.labels, "seed.png"), rule=RULE, loader=loader, **options)
    drawn = list(islice(source, count))
    source.close()  # type: ignore[attr-defined]
    return drawn


@pytest.mark.parametrize("name", ["torchvision", "dali"])
def test_crops_for_a_gpu_are_bytes_that_it_normalises(sets: Sets, name: str) -> None:
    loader = Loader(name=name, threads=2, device="cpu")  # type: ignore[arg-type]
    for colour in ("imagenet", "caffe"):
        rule = replace(RULE, colour=colour)
        drawn = {}
        for trains_on in ("cpu", "cuda"):
            source = batches(sets.images, None, rule=rule, batch=4, seed=7, loader=loader, trains_on=trains_on)
            drawn[trains_on] = list(islice(source, 4))
            source.close()  # type: ignore[attr-defined]
        for here, raw in zip(drawn["cpu"], drawn["cuda"], strict=True):
            assert here.boxes is None and raw.boxes is not None and raw.image.dtype == torch.uint8
            ready = normalised(raw.to("cpu"), colour)
            assert ready.boxes is None and ready.keys == here.keys
            torch.testing.assert_close(ready.image, here.image, rtol=0, atol=0 if name == "torchvision" else 1e-5)
        assert any((batch.image == 0).all(1).any() for batch in drawn["cpu"])  # some crops jut out


def test_bilinear_crops_keep_the_values_between_bytes(sets: Sets) -> None:
    rule = replace(RULE, interpolation="linear")
    loader = Loader(name="torchvision", threads=2)
    batch = next(batches(sets.images, None, rule=rule, batch=4, seed=7, loader=loader, trains_on="cuda"))
    assert batch.boxes is None and batch.image.dtype == torch.float32


def same(first: Batch, second: Batch) -> bool:
    assert first.label is not None and second.label is not None
    return (
        first.keys == second.keys
        and torch.equal(first.image, second.image)
        and torch.equal(first.tags, second.tags)
        and torch.equal(first.label, second.label)
    )


def test_a_batch_holds_what_the_shards_hold(sets: Sets) -> None:
    for step, batch in enumerate(draw(sets, 9)):
        assert batch.image.shape == (4, 3, 32, 32) and batch.image.dtype == torch.float32
        assert batch.tags.dtype == torch.float32 and batch.label is not None and batch.label.dtype == torch.uint8
        for row, (key, ordinal) in enumerate(zip(batch.keys, batch.ordinals, strict=True)):
            expected, size, pixels, tags, ids = sample(ordinal)
            assert key == expected and batch.tags[row].tolist() == tags.tolist()
            crop = draw_crop(RULE, *size, seed=7, epoch=step // 4, ordinal=ordinal)
            encoded = Encoded(key, jpeg(pixels), crop, encode("seed.png", ids))
            ((image, label),) = crop_decoder(RULE, loader=Loader(name="torchvision"))([[encoded]])
            assert torch.equal(batch.image[row], image[0]) and label is not None
            assert torch.equal(batch.label[row], label[0])


def test_an_epoch_sees_each_sample_once_and_drops_the_rest(sets: Sets) -> None:
    drawn = draw(sets, 8)
    for epoch in (drawn[:4], drawn[4:]):
        ordinals = [ordinal for batch in epoch for ordinal in batch.ordinals]
        assert len(set(ordinals)) == 16
    assert [batch.keys for batch in drawn[:4]] != [batch.keys for batch in drawn[4:]]


@pytest.mark.parametrize("name", ["torchvision", "dali"])
@pytest.mark.parametrize("consumed", [4, 12, 16, 40])
def test_resuming_gives_the_same_batches_bitwise(sets: Sets, name: str, consumed: int) -> None:
    whole = draw(sets, 12, name=name)[consumed // 4 :]
    assert all(map(same, whole, draw(sets, len(whole), name=name, consumed=consumed)))


@pytest.mark.parametrize("name", ["torchvision", "dali"])
def test_threads_change_nothing(sets: Sets, name: str) -> None:
    assert all(map(same, draw(sets, 6, name=name), draw(sets, 6, name=name, threads=4, ahead=1)))


@pytest.mark.parametrize("world", [2, 3, 4])
def test_ranks_join_to_the_batch_of_one(sets: Sets, world: int) -> None:
    shares = [draw(sets, 6, rank=rank, world=world) for rank in range(world)]
    for step, whole in enumerate(draw(sets, 6)):
        parts = [share[step] for share in shares]
        assert sum((part.keys for part in parts), ()) == whole.keys
        assert torch.equal(torch.cat([part.image for part in parts]), whole.image)


def test_twins_give_the_same_labels_and_near_pixels(sets: Sets) -> None:
    for ours, other in zip(draw(sets, 5), draw(sets, 5, name="dali"), strict=True):
        assert ours.keys == other.keys and ours.label is not None and other.label is not None
        assert torch.equal(ours.label, other.label)
        assert (ours.image - other.image).abs().mean() * 255 * 0.225 < 2


@pytest.mark.parametrize("name", ["torchvision", "dali"])
def test_a_damaged_photo_is_an_error_with_its_key(sets: Sets, name: str) -> None:
    source = batches(sets.broken, None, rule=RULE, batch=4, seed=7, loader=Loader(name=name))  # type: ignore[arg-type]
    with pytest.raises(ShardError, match=r"^key07: "):
        list(islice(source, 8))


def test_without_labels_there_are_none(sets: Sets) -> None:
    source = batches(sets.images, None, rule=RULE, batch=4, seed=7, loader=Loader(name="torchvision"))
    assert next(source).label is None


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"batch": 18}, "batch 18"),
        ({"consumed": 3}, "consumed 3"),
        ({"world": 5}, "5 processes"),
        ({"rank": 1}, "rank 1"),
    ],
)
def test_impossible_requests_are_refused_at_once(sets: Sets, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        draw(sets, 0, **options)


def test_labels_over_other_keys_are_refused(sets: Sets, tmp_path: Path) -> None:
    rows = [("other", (8, 8), {"seed.png": encode("seed.png", np.zeros((8, 8), np.uint8))})]
    write_index(tmp_path, kind="cam_seed", classes=CLASSES, reports=[write_shard(tmp_path, 0, rows)])
    loader = Loader(name="torchvision")
    with pytest.raises(ShardError, match="make it again"):
        batches(sets.images, (ShardSet.open(tmp_path), "seed.png"), rule=RULE, batch=4, seed=0, loader=loader)
    with pytest.raises(ShardError, match=r"no field mask\.png"):
        batches(sets.images, (sets.labels, "mask.png"), rule=RULE, batch=4, seed=0, loader=loader)


@pytest.mark.parametrize("name", ["torchvision", "dali"])
def test_closing_ends_all_threads(sets: Sets, name: str) -> None:
    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    before = threads()
    source: Iterator[Batch] = batches(
        sets.images,
        None,
        rule=RULE,
        batch=4,
        seed=7,
        loader=Loader(name=name, threads=3),  # type: ignore[arg-type]
    )
    next(source)
    assert threads() > before
    source.close()  # type: ignore[attr-defined]
    gc.collect()
    assert threads() <= before
