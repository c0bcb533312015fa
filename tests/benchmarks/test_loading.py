"""The reading and decoding benchmarks over drawn photographs: they agree, count, and notice what does not agree."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from amn_dist.records import CropRule
from amn_dist.shards.shardset import ShardSet
from benchmarks import decode, read
from data_shards.scenes import draw_scene
from data_shards.synthetic import pack_synthetic


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photographs")
    files = [folder / f"{number}.jpg" for number in range(6)]
    for number, file in enumerate(files):
        file.write_bytes(draw_scene(number, seed=0, classes=6, size=(96, 160)).jpeg())
    return files


def test_readers_hand_out_the_same_samples(tmp_path: Path) -> None:
    pack_synthetic(tmp_path / "once", images=10, shard_size=4, size=(32, 48))
    folder = read.repeated(tmp_path / "once", tmp_path / "set", 2)
    once, twice = ShardSet.open(tmp_path / "once"), ShardSet.open(folder)
    assert len(twice) == 20 and twice.image(13) == once.image(3)
    record = read.measured(folder, rounds=1)
    assert (record["samples"], record["shards"], record["same_samples"]) == (20, 6, 20)
    for question in ("in_order", "at_random"):
        for temperature in ("warm", "cold"):
            assert all(row["mb_per_s"] > 0 for row in record[question][temperature].values())
    tars = [str(folder / shard.name) for shard in twice.index.shards]
    sizes = {name: call() for name, call in read.rivals(folder, tars, list(range(20)))["at_random"].items()}
    assert len(set(sizes.values())) == 1


def test_loaders_cut_the_same_crops(photographs: list[Path]) -> None:
    record = decode.measured(photographs, CropRule(size=96, long_side=(60, 140)), batch=4, workers=1, rounds=1)
    assert {"DataLoader", "torchvision", "dali"} <= record["crops"].keys()
    # Pillow's resampling twice: only the decoders' rounding may differ.
    assert record["crops_differ"]["torchvision"]["mean_levels"] < 0.1
    assert record["photos_differ"]["dali"] < decode.PHOTO_LEVELS


def test_a_crop_that_differs_stops_the_benchmark() -> None:
    rule, crop = CropRule(size=8, rescale=(1, 1)), torch.zeros(1, 3, 8, 8)
    assert decode.crop_difference(crop, crop, rule) == (0, 0)
    with pytest.raises(AssertionError, match="crops differ"):
        decode.crop_difference(crop + 0.1, crop, rule)
