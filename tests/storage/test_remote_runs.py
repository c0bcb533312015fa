"""Maps and runs over sets on S3: the results of local ones, through faults and a kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from amn_dist.config import Config, FarmSection, Loader, load_config
from amn_dist.errors import ConfigError, StageError
from amn_dist.farms.farm import Farm
from amn_dist.farms.local import LocalFarm
from amn_dist.farms.ray.farm import RayFarm
from amn_dist.farms.stream import Join, MapTask, Source
from amn_dist.models.weights import save_network
from amn_dist.runs.pipeline import Pipeline
from amn_dist.runs.run import Run
from amn_dist.shards.shardset import ShardSet
from amn_dist.shards.writer import read_report, write_index
from amn_dist.stages.classify import CamMap, cam_network
from amn_dist.storage.paths import AnyPath, RemotePath
from data_shards.synthetic import pack_synthetic

ROOT = Path(__file__).resolve().parents[2]
SCENES: dict[str, Any] = {"images": 16, "classes": 2, "shard_size": 4, "size": (64, 80)}
CONFIG = """
name: tiny
method: irn
classify:
  backbone: {name: small, stride: 8, weights: null, frozen_taps: 0}
  optimiser: adam
  lr: 1.0e-3
  lr_head: 1.0e-3
  batch: 8
  epochs: 3
  crop: 64
  checkpoint_every: 1
  long_side: [72, 96]
cam: {scales: [1.0]}
data: {val: null}
engine: {name: torch}
farm: {name: local}
loader: {name: torchvision}
"""


def contents(folder: AnyPath) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("0*"), key=str)}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes")
    pack_synthetic(folder / "train", **SCENES)
    (folder / "tiny.yaml").write_text(CONFIG)
    save_network(cam_network(load_config(folder / "tiny.yaml"), 3), folder / "weights.safetensors")
    return folder


def cam(scenes: Path, images: str, out: AnyPath) -> MapTask:
    """CAM over a set, one sample a chunk."""
    config: Config = load_config(scenes / "tiny.yaml")
    images_set = ShardSet.open(images)
    source = Source(images, (), Loader(name="torchvision"), digest=images_set.digest)
    maps = (CamMap(config, 3, str(scenes / "weights.safetensors")),)
    return MapTask("cam", source, maps, (str(out),), images_set.shard_sizes, 2)


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.slow)])
def farm(request: pytest.FixtureRequest, s3: Any) -> Iterator[Farm]:
    made: Farm = LocalFarm() if request.param == "local" else RayFarm(FarmSection(workers=2))
    yield made
    made.close()


def test_a_map_from_s3_to_s3_is_the_local_one(scenes: Path, bucket: str, s3: Any, farm: Farm, tmp_path: Path) -> None:
    list(LocalFarm().run(cam(scenes, str(scenes / "train"), tmp_path), range(4)))
    pack_synthetic(f"{bucket}/train", **SCENES)
    out = RemotePath(f"{bucket}/cam")
    for part in ("000001.tar", "000002.json"):
        s3.fail("busy", 2, part=part)
        s3.fail("truncated", 1, part=part, method="GET")
    list(farm.run(cam(scenes, f"{bucket}/train", out), range(4)))
    assert contents(out) == contents(tmp_path) and len(contents(out)) == 8
    reports = [report for number in range(4) if (report := read_report(out, number)) is not None]
    index = write_index(out, kind="cam", classes=ShardSet.open(scenes / "train").classes, reports=reports)
    ShardSet.open(scenes / "train").join(ShardSet.open(out))
    assert index.digest == ShardSet.open(out).digest


def test_a_refused_upload_names_its_shards_and_the_others_stay(scenes: Path, bucket: str, s3: Any) -> None:
    out = RemotePath(f"{bucket}/cam")
    s3.fail("denied", 1000, part="cam/000002.tar", method="PUT")
    with pytest.raises(
        StageError, match=r"1 shard\(s\) failed \(2\).*000002\.tar: cannot be written \(403 AccessDenied"
    ):
        list(LocalFarm().run(cam(scenes, str(scenes / "train"), out), range(4)))
    assert [number for number in range(4) if read_report(out, number) is not None] == [0, 1, 3]


def test_a_worker_refuses_a_set_that_was_packed_anew(scenes: Path, bucket: str, tmp_path: Path) -> None:
    pack_synthetic(f"{bucket}/train", **SCENES)
    task = cam(scenes, f"{bucket}/train", tmp_path)
    joined = Source(str(scenes / "train"), (Join("x", f"{bucket}/train", "gt.png", "0" * 64),), Loader())
    for path in list(RemotePath(f"{bucket}/train").iterdir()):
        path.unlink()
    pack_synthetic(f"{bucket}/train", **SCENES, seed=1)
    for source in (task.source, joined):
        with pytest.raises(Exception, match=r"train: holds another set than this stage began with"):
            source.open()


def digests(folder: Path) -> dict[str, str]:
    last = [*folder.glob("*/index.json"), *folder.glob("*/done.json")]
    return {path.parent.name: json.loads(path.read_text())["digest"] for path in last}


def line(scenes: Path, run: Path, data: AnyPath) -> Pipeline:
    return Pipeline(load_config(scenes / "tiny.yaml"), Run(run), data, console=Console(quiet=True), reuse=False)


def test_a_run_over_s3_survives_faults_and_a_kill(
    scenes: Path, bucket: str, s3: Any, environment: dict[str, str], tmp_path: Path, wait_for: Any
) -> None:
    line(scenes, tmp_path / "here", scenes).execute(until="cam_seed")
    pack_synthetic(f"{bucket}/train", **SCENES)
    # One request meets one kind of fault: all together would outlast what these tests wait.
    for kind, part in (("busy", "list-type"), ("reset", "index.json"), ("truncated", "000001.tar")):
        s3.fail(kind, 3, method="GET", part=part)
    run = tmp_path / "there"
    command = [sys.executable, "-m", "amn_dist", "run", str(scenes / "tiny.yaml"), "--data", bucket, "--no-reuse"]
    killed = subprocess.Popen(
        [*command, "--run", str(run), "--until", "cam_seed"], cwd=ROOT, env={**os.environ, **environment}
    )
    wait_for(lambda: bool(list(run.glob("classify/checkpoints/0*"))), "a checkpoint", killed)
    killed.kill()
    killed.wait()
    assert "cam" not in digests(run) and not any(fault.left for fault in s3.faults)
    line(scenes, run, RemotePath(bucket)).execute(until="cam_seed")
    assert digests(run) == digests(tmp_path / "here") and set(digests(run)) == {"classify", "cam", "cam_seed"}
    for path in list(RemotePath(f"{bucket}/train").iterdir()):
        path.unlink()
    pack_synthetic(f"{bucket}/train", **SCENES, seed=1)
    with pytest.raises(ConfigError, match=r"classify: made with .*train set [0-9a-f]+\.\.\., now [0-9a-f]+\.\.\."):
        line(scenes, run, RemotePath(bucket)).execute(until="cam_seed")
