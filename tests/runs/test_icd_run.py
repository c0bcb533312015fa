"""ICD's seeds through AMN and IRN to masks, small, in this process; and plain ICD beside it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from amn_dist.config import load_config
from amn_dist.report.tables import score_table
from amn_dist.runs.pipeline import Pipeline
from amn_dist.runs.run import Run
from amn_dist.shards.shardset import ShardSet
from data_shards.synthetic import pack_synthetic

CONFIG = """
name: {method}
method: {method}
superpixel: {{min_size: 30}}
discriminate:
  <<: &fit
    backbone: {{name: small, stride: 8, weights: null, frozen_taps: 0}}
    optimiser: adam
    lr: 1.0e-3
    lr_head: 1.0e-3
    batch: 8
    steps: 4
    crop: 65
    checkpoint_every: 2
    log_every: 1
  width: 16
  warmup: 2
  mask_padding: true
icd_map: {{pad: null, scales: [1.0, 0.5], flip: true}}
icd_seed: {{rule: threshold, crf: off}}
amn: *fit
amn_map: {{scales: [1.0]}}
irn: *fit
walk: {{pad: null}}
segment: *fit
predict: {{crf: "off"}}
farm: {{name: local}}
engine: {{name: torch}}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("icd")
    pack_synthetic(root / "data" / "train", images=12, seed=0, classes=2, shard_size=6)
    pack_synthetic(root / "data" / "val", images=4, seed=9, classes=2, shard_size=4)
    execute(root, "icd_amn")
    return root


def execute(root: Path, method: str, *settings: str) -> Path:
    """Run a method to its end; returns the run's folder."""
    (root / f"{method}.yaml").write_text(CONFIG.format(method=method))
    folder = root / "runs" / method
    Pipeline(load_config(root / f"{method}.yaml", settings), Run(folder), root / "data").execute()
    return folder


def digest(folder: Path) -> str:
    (last,) = [path for name in ("index.json", "done.json") if (path := folder / name).is_file()]
    return str(json.loads(last.read_text())["digest"])


def test_every_stage_is_scored(finished: Path) -> None:
    folder = finished / "runs" / "icd_amn"
    scores = json.loads((folder / "score" / "score.json").read_text())
    rows = scores["sets"]["train"]["rows"]
    assert set(rows) == {"icd_map", "icd_seed", "amn_map", "amn_seed", "walk"}
    assert 0 <= rows["icd_seed"]["miou_decided"] <= 1 and len(rows["icd_map"]["miou"]) == 99
    assert "predict_raw" in scores["sets"]["val"]["rows"]
    assert score_table(scores).row_count == 6


def test_superpixels_and_maps_lie_over_their_images(finished: Path) -> None:
    images = ShardSet.open(str(finished / "data" / "train"))
    made = {name: ShardSet.open(str(finished / "runs" / "icd_amn" / name)) for name in ("superpixel", "icd_map")}
    for ordinal in range(len(images)):
        entry = images.entry(ordinal)
        regions = made["superpixel"].load(ordinal, "superpixel.u16.png")
        activation = made["icd_map"].load(ordinal, "activation.f16")
        assert regions.dtype == np.uint16 and regions.shape == (entry.height, entry.width)
        assert activation.shape[0] == images.load(ordinal, "tags").sum() and activation.min() >= 0
        assert activation.shape[1:] == ((entry.height - 1) // 4 + 1, (entry.width - 1) // 4 + 1)


def test_the_discriminator_has_counted_its_steps(finished: Path) -> None:
    weights = load_file(finished / "runs" / "icd_amn" / "discriminate" / "model.safetensors")
    assert weights["steps"] == 4 and weights["norm.running_mean"].any()
    lines = (finished / "runs" / "icd_amn" / "discriminate" / "metrics.jsonl").read_text().splitlines()
    assert {"classification", "bottom_up", "top_down", "total"} <= set(json.loads(lines[0]))


def test_plain_icd_takes_over_its_part_and_may_skip_irn(finished: Path) -> None:
    folder = execute(finished, "icd", "pseudo_mask=seed")
    other = finished / "runs" / "icd_amn"
    for name in ("superpixel", "discriminate", "icd_map", "icd_seed"):
        assert digest(folder / name) == digest(other / name)
        assert (folder / name / "origin.json").stat().st_ino == (other / name / "origin.json").stat().st_ino
    assert not (folder / "irn").exists() and not (folder / "walk").exists()
    assert digest(folder / "segment") != digest(other / "segment")
