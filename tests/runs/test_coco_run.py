"""The COCO configurations, small and short, in this process."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amn_dist.config import Config, load_config
from amn_dist.errors import ConfigError
from amn_dist.runs.pipeline import Pipeline
from amn_dist.runs.run import Run
from amn_dist.shards.shardset import ShardSet
from data_shards.coco import pack_coco

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
METHODS = ("coco14_amn", "coco14_irn", "coco14_icd_amn")
UNLABELLED, GRAY = 250, 86
IMAGES = {"train2014": (9, UNLABELLED, GRAY, 25), "val2014": 2}

FIT = ("backbone={name: small, stride: 8, weights: null, frozen_taps: 0}", "batch=2", "steps=2", "crop=64")
SHORT = (
    *(f"{stage}.{setting}" for stage in ("classify", "amn", "irn", "segment") for setting in FIT),
    *(f"discriminate.{setting}" for setting in (*FIT[:-1], "crop=65", "width=16")),
    *("cam.scales=[0.25]", "amn_map.scales=[0.25]", "icd_map.scales=[0.25]", "predict.crf=off"),
    *("farm.name=local", "engine.name=torch", "loader.name=torchvision", "segment.branches=[]"),
)


@pytest.fixture(scope="module")
def data(coco_sample: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few images of the sample, packed."""
    root = tmp_path_factory.mktemp("coco")
    for split, role in (("train2014", "train"), ("val2014", "val")):
        tree = json.loads((coco_sample / "annotations" / f"instances_{split}.json").read_text())
        wanted = IMAGES[split]
        tree["images"] = [
            image
            for n, image in enumerate(tree["images"])
            if (n < wanted if isinstance(wanted, int) else image["id"] in wanted)
        ]
        ids = {image["id"] for image in tree["images"]}
        tree["annotations"] = [found for found in tree["annotations"] if found["image_id"] in ids]
        (root / split).mkdir()
        for image in tree["images"]:
            shutil.copyfile(coco_sample / split / image["file_name"], root / split / image["file_name"])
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(tree))
        pack_coco(root, split, root / role, shard_size=2)
    return root


def execute(data: Path, name: str) -> Path:
    """Run a configuration to its end; returns the run's folder."""
    folder = data / "runs" / name
    Pipeline(load_config(CONFIGS / f"{name}.yaml", SHORT), Run(folder), data).execute()
    return folder


@pytest.mark.parametrize("name", METHODS)
def test_a_configuration_runs_to_its_scores(data: Path, name: str) -> None:
    folder = execute(data, name)
    scores: dict[str, Any] = json.loads((folder / "score" / "score.json").read_text())
    assert len(scores["classes"]) == 81 and scores["sets"]["train"]["images"] == 4
    walk = scores["sets"]["train"]["rows"]["walk"]
    assert np.shape(walk["confusion"]) == (81, 81) and not math.isnan(walk["miou"])
    assert scores["sets"]["val"]["rows"]["predict_raw"]["decided"] == 1
    assert [scores["sets"][over]["protocol"] for over in ("train", "val")] == ["coco", "deeplab"]
    # The truth is without void pixels, so that COCO's protocol adds no class to VOC's.
    assert walk["protocols"]["coco"] == walk["protocols"]["voc"] == walk["miou"]
    images = ShardSet.open(str(data / "train"))
    ordinal, seen = images.find(f"COCO_train2014_{UNLABELLED:012d}"), set[str]()
    for stage in folder.glob("*/index.json"):
        made = ShardSet.open(str(stage.parent))
        if made.kind in ("predict", "superpixel"):
            continue
        (field,) = made.fields
        found = made.load(ordinal, field)
        # An image without labels has no maps, and is background everywhere.
        assert len(found) == 0 if field.endswith(".f16") else not found.any(), made.kind
        assert any(made.load(n, field).any() for n in range(4)), made.kind
        seen.add(made.kind)
    assert "walk" in seen and len(seen) > 2


def test_sets_of_other_class_tables_do_not_go_together(data: Path, tmp_path: Path) -> None:
    names = list(ShardSet.open(str(data / "val")).classes)
    names[11], names[12] = names[12], names[11]
    (tmp_path / "classes.txt").write_text("\n".join(names))
    (tmp_path / "train").symlink_to(data / "train")
    pack_coco(data, "val2014", tmp_path / "val", classes=tmp_path / "classes.txt")
    line = Pipeline(load_config(CONFIGS / "coco14_amn.yaml", SHORT), Run(tmp_path / "run"), tmp_path)
    with pytest.raises(ConfigError, match="class 11 is 'stop sign' here, 'fire hydrant' there"):
        line.execute()


def test_settings_are_the_published_ones_of_coco() -> None:
    found: dict[str, Config] = {name: load_config(CONFIGS / f"{name}.yaml") for name in METHODS}
    for config in found.values():
        assert (config.walk.background, config.walk.pad) == (0.22, None)
        assert (config.segment.steps, config.segment.batch, config.segment.lr, config.segment.crop) == (
            1e5,
            10,
            2e-4,
            321,
        )
        assert (config.classify.batch, config.classify.epochs, config.irn.batch, config.irn.epochs) == (16, 5, 32, 3)
        assert (config.amn_seed.foreground, config.amn_seed.background) == (0.45, 0.15)
        assert [config.score.by(over) for over in ("train", "val")] == ["coco", "deeplab"]
    # Steps of one pass over 82,783 images, the incomplete batch dropped.
    assert [82_783 // found["coco14_amn"].classify.batch, 82_783 // found["coco14_irn"].irn.batch] == [5_173, 2_586]
    assert found["coco14_icd_amn"].discriminate.warmup == 2 * (82_783 // found["coco14_icd_amn"].discriminate.batch)
    assert (found["coco14_amn"].walk.power, found["coco14_irn"].walk.power) == (1.3, 1.0)
