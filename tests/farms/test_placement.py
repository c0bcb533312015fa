"""Who does what in a cluster that claims GPUs; torch sees none, so that networks compute on cores all the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from rich.console import Console

from amn_dist.config import Config, FarmSection, Loader
from amn_dist.farms.local import LocalFarm
from amn_dist.farms.ray.farm import RayFarm, start_here
from amn_dist.farms.stream import MapTask, Source
from amn_dist.interchange.maps import export_maps
from amn_dist.interchange.selection import select_maps
from amn_dist.interfaces import parts_of
from amn_dist.models.deeplab import segment_network
from amn_dist.models.weights import save_network
from amn_dist.runs.pipeline import Pipeline
from amn_dist.runs.run import Run
from amn_dist.shards.shardset import ShardSet
from amn_dist.stages.predict import PredictMap
from data_shards.maps import import_maps
from data_shards.synthetic import pack_synthetic
from tests.tiny import SMALL

FIT = {"backbone": SMALL, "batch": 4, "steps": 2, "crop": 65}
TREE: dict[str, Any] = {
    "name": "x",
    "classify": FIT,
    "cam": {"scales": [1.0]},
    "discriminate": {**FIT, "width": 16},
    "icd_map": {"pad": None},
    "amn": FIT,
    "amn_map": {"scales": [1.0]},
    "irn": FIT,
    "walk": {"pad": None, "steps": 16},
    "segment": FIT,
    "farm": {"workers": 2, "chunk": 2},
    "engine": {"name": "torch"},
    "loader": {"name": "torchvision"},
}


@pytest.fixture
def cluster() -> Iterator[Callable[[int], None]]:
    """Starts a cluster of four cores that claims so many GPUs."""
    yield lambda gpus: start_here(num_cpus=4, num_gpus=gpus, log_to_driver=False)
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("gpus", [1, 2])
def test_the_crf_of_predictions_is_done_by_cores(gpus: int, cluster: Callable[[int], None], tmp_path: Path) -> None:
    pack_synthetic(tmp_path / "val", images=8, seed=1, classes=2, shard_size=4)
    images, config = ShardSet.open(tmp_path / "val"), Config.model_validate(TREE)
    save_network(segment_network(config, 3), tmp_path / "model.safetensors")
    cluster(gpus)
    farms = {"local": LocalFarm(), "ray": RayFarm(FarmSection(workers=1))}
    for name, farm in farms.items():
        maps = parts_of(PredictMap(config, 3, str(tmp_path / "model.safetensors"), farm.accelerated))
        folders = (*[None] * (len(maps) - 1), str(tmp_path / name))
        source = Source(images.url, (), Loader(name="torchvision"))
        reports = list(farm.run(MapTask("predict", source, maps, folders, images.shard_sizes, 2), range(2)))
    assert list(reports[-1].images.items()) == [("predict_logits", 8), ("predict", 8)]
    assert set(reports[-1].busy) == {"network", "cpu"} and reports[-1].busy["cpu"] > 0
    for number in range(2):
        tars = [(tmp_path / name / f"{number:06d}.tar").read_bytes() for name in farms]
        assert tars[0] == tars[1]
    farms["ray"].close()


LEGS = {
    "cam": ["cam", "cam_seed"],
    "icd_map": ["icd_map", "icd_seed"],
    "amn_map": ["amn_map", "amn_seed"],
    "predict": ["predict_logits", "predict"],
}
"""Legs of a stage's stream in two pools, in order."""


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("gpus", [1, 2])
@pytest.mark.parametrize("method", ["irn", "amn", "icd", "icd_amn", "refine"])
def test_every_method_in_two_pools(method: str, gpus: int, cluster: Callable[[int], None], tmp_path: Path) -> None:
    for role, count in (("train", 8), ("val", 4)):
        pack_synthetic(tmp_path / role, images=count, seed=count, classes=2, shard_size=4)
    if method == "refine":
        line(tmp_path, "irn", {"farm": {"name": "local"}}).execute(until="cam")
        export_maps(select_maps(str(tmp_path / "runs" / "irn")), tmp_path / "npy")
        import_maps(tmp_path / "npy", str(tmp_path / "train"), tmp_path / "maps")
    cluster(gpus)
    run = line(tmp_path, method, {"refine": {"maps": "maps"}} if method == "refine" else {})
    run.execute()
    for stage in run.stages:
        if stage.name in LEGS:
            lines = (run.run.stage(stage.name) / "metrics.jsonl").read_text().splitlines()
            (*_, last) = [record for record in map(json.loads, lines) if "busy" in record]
            assert list(last["legs_per_s"]) == LEGS[stage.name]
            assert last["busy"]["cpu"] > 0 and last["busy"]["network"] > 0


def line(root: Path, method: str, sections: dict[str, Any]) -> Pipeline:
    config = Config.model_validate({**TREE, "method": method, **sections})
    return Pipeline(config, Run(root / "runs" / method), root, console=Console(quiet=True))
