"""Large photographs: worked on smaller, handed out in their own size."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from amn_dist.config import Config
from amn_dist.errors import StageError
from amn_dist.farms.shortage import telling_shortage
from amn_dist.loaders import bounded as module
from amn_dist.loaders.bounded import bounded, enlarged, full_size, resized
from amn_dist.records import ACTIVATION, CoarseMaps, Sample, grid_size
from amn_dist.runs.pipeline import Pipeline
from amn_dist.runs.run import Run
from amn_dist.shards.shardset import ShardSet
from data_shards.synthetic import pack_synthetic
from tests.tiny import IRN


def sample_of(height: int, width: int) -> Sample:
    random = np.random.default_rng(0)
    return Sample(
        key="k",
        ordinal=0,
        image=random.integers(0, 256, (height, width, 3), dtype=np.uint8),
        tags=np.array([1, 0], np.uint8),
        joined={
            "seed": random.integers(0, 3, (height, width), dtype=np.uint8),
            "activation": random.random((1, *grid_size(height, width))).astype(np.float16),
            "nothing": np.zeros((0, *grid_size(height, width)), np.float16),
        },
    )


def test_a_photograph_of_usual_size_is_left_alone() -> None:
    sample = sample_of(50, 70)
    assert bounded(sample) is sample and full_size(sample) == (50, 70)
    assert enlarged("mask.png", sample.joined["seed"], sample) is sample.joined["seed"]


def test_a_large_one_is_small_with_all_that_lies_over_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WORKING_VALUES", 3 * 45 * 60)
    sample = bounded(sample_of(90, 120))
    assert sample.image.shape == (45, 60, 3) and full_size(sample) == (90, 120)
    assert {name: of.shape for name, of in sample.joined.items()} == {
        "seed": (45, 60),
        "activation": (1, 12, 15),
        "nothing": (0, 12, 15),
    }
    assert sample.joined["activation"].dtype == np.float16 and sample.joined["seed"].dtype == np.uint8
    assert enlarged("mask.png", sample.joined["seed"], sample).shape == (90, 120)
    assert enlarged(ACTIVATION, sample.joined["activation"], sample).shape == (1, *grid_size(90, 120))
    assert enlarged(ACTIVATION, sample.joined["nothing"], sample).shape == (0, *grid_size(90, 120))
    stored = CoarseMaps(sample.joined["activation"][:, :3, :4], (12, 15))
    assert enlarged(ACTIVATION, stored, sample) == CoarseMaps(stored.values, grid_size(90, 120))


def test_labels_that_are_enlarged_and_reduced_again_are_the_same() -> None:
    labels = np.random.default_rng(1).integers(0, 3, (40, 30)).astype(np.uint16)
    assert np.array_equal(resized(resized(labels, (120, 90)), (40, 30)), labels)


def test_a_run_over_photographs_beyond_the_bound_has_masks_of_their_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WORKING_VALUES", 3 * 40 * 50)
    pack_synthetic(tmp_path / "train", images=4, seed=3, classes=2, size=(90, 110), shard_size=2)
    said = io.StringIO()
    line = Pipeline(Config.model_validate(IRN), Run(tmp_path / "run"), tmp_path, console=Console(file=said))
    line.execute(until="walk")
    for name in ("cam+cam_seed", "walk"):
        assert f"{name}: 4 photograph(s) of more than 2000 pixels were worked on at a smaller size" in said.getvalue()
    images = ShardSet.open(str(tmp_path / "train"))
    made = {name: ShardSet.open(str(tmp_path / "run" / name)) for name in ("cam", "cam_seed", "walk")}
    for ordinal in range(len(images)):
        size = (images.entry(ordinal).height, images.entry(ordinal).width)
        for name, shards in made.items():
            assert (shards.entry(ordinal).height, shards.entry(ordinal).width) == size
            values = shards.load(ordinal, shards.fields[0])
            assert values.shape[-2:] == (grid_size(*size) if name == "cam" else size)
    line.execute(only="score")


def test_a_lack_of_memory_names_photograph_size_stage_and_settings() -> None:
    with (
        pytest.raises(StageError, match=r"cam\+cam_seed: memory does not suffice at k \(70x50 pixels\); .*cam\.scales"),
        telling_shortage("cam+cam_seed", [sample_of(50, 70)]),
    ):
        torch.empty(2**60)
    with pytest.raises(StageError, match="walk: memory does not suffice; set"), telling_shortage("walk", []):
        raise MemoryError
    with pytest.raises(RuntimeError, match="another"), telling_shortage("walk", []):
        raise RuntimeError("another")
