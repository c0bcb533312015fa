"""The real thing, small: both methods over drawn scenes, and every way to interrupt them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from amn_dist.shards.shardset import ShardSet
from data_shards.synthetic import pack_synthetic

CONFIG = """
name: {method}
method: {method}
classify:
  <<: &fit
    backbone: {{name: small, stride: 8, weights: null, frozen_taps: 0}}
    optimiser: adam
    lr: 1.0e-3
    lr_head: 1.0e-3
    batch: 8
    epochs: 2
    crop: 64
    checkpoint_every: 2
    log_every: 1
  long_side: [72, 112]
cam: {{scales: [1.0, 0.5]}}
amn: *fit
amn_map: {{scales: [1.0, 0.5]}}
irn: *fit
walk: {{pad: null}}
segment:
  backbone: {{name: small, stride: 8, weights: null, frozen_taps: 0}}
  optimiser: adam
  lr: 1.0e-3
  lr_head: 1.0e-3
  batch: 8
  steps: 6
  crop: 64
  checkpoint_every: 2
farm: {{workers: 2}}
engine: {{precision: fp32}}  # where one and two processes must learn the same, to rounding
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    pack_synthetic(root / "train", images=24, seed=0, classes=2, shard_size=6)
    pack_synthetic(root / "val", images=8, seed=9, classes=2, shard_size=4)
    for method in ("irn", "amn"):
        (root / f"{method}.yaml").write_text(CONFIG.format(method=method))
    return root


def start(data: Path, method: str, folder: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "amn_dist", "run", str(data / f"{method}.yaml"), "--data", str(data)]
    command += ["--run", str(folder), *more]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )


def run(data: Path, method: str, folder: Path, *more: str) -> str:
    process = start(data, method, folder, *more)
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    return said


def digests(folder: Path) -> dict[str, str]:
    """What every stage of a run yielded."""
    found = {}
    for last in sorted([*folder.glob("*/index.json"), *folder.glob("*/done.json")]):
        found[last.parent.name] = json.loads(last.read_text())["digest"]
    return found


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    run(data, "amn", runs / "amn")
    return runs / "amn"


def test_every_stage_ends_and_is_scored(finished: Path) -> None:
    stages = {"classify", "cam", "cam_seed", "amn", "amn_map", "amn_seed", "irn", "walk", "segment", "predict"}
    assert set(digests(finished)) == stages
    scores = json.loads((finished / "score" / "score.json").read_text())
    assert scores["sets"]["train"]["images"] == 24 and scores["sets"]["val"]["images"] == 8
    rows = scores["sets"]["train"]["rows"]
    assert set(rows) == {"cam", "cam_seed", "amn_map", "amn_seed", "walk"}
    assert len(rows["cam"]["miou"]) == 99 and all(0 <= value <= 1 for value in rows["cam"]["miou"])
    assert (finished / "config.yaml").is_file() and (finished / "environment.json").is_file()
    assert (finished / "amn" / "metrics.jsonl").read_text().count("\n") >= 6


def test_maps_and_labels_hold_more_than_background(finished: Path) -> None:
    for name, field in (("cam", "activation.f16"), ("cam_seed", "seed.png"), ("amn_map", "activation.f16")):
        made = ShardSet.open(str(finished / name))
        assert sum(made.load(ordinal, field).any() for ordinal in range(len(made))) > len(made) // 2, name


def test_maps_lie_over_their_images(finished: Path, data: Path) -> None:
    images = ShardSet.open(str(data / "train"))
    for name in ("cam", "cam_seed", "amn_map", "amn_seed", "walk"):
        images.join(ShardSet.open(str(finished / name)))


def test_the_same_command_again_does_nothing(finished: Path, data: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.glob("*/*.tar")}
    run(data, "amn", finished)
    assert {path: path.stat().st_mtime_ns for path in finished.glob("*/*.tar")} == before


def test_the_other_method_takes_over_what_is_the_same(finished: Path, data: Path) -> None:
    said = run(data, "irn", finished.parent / "irn")
    assert [f"{name}: taken from run amn" in said for name in ("classify", "cam", "cam_seed", "irn")] == [
        True,
        True,
        True,
        False,
    ]
    assert digests(finished.parent / "irn")["cam_seed"] == digests(finished)["cam_seed"]


def amn(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "amn_dist", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, "COLUMNS": "200"})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_scores_pictures_and_predictions_of_a_finished_run(finished: Path, data: Path, tmp_path: Path) -> None:
    table = amn("score", finished)
    assert all(word in table for word in ("AMN seed", "pseudo-mask", "prediction + CRF", "IoU by class, val"))
    images = ShardSet.open(str(data / "val"))
    amn("show", finished, images.entry(0).key, "--out", tmp_path / "row.png")
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(images.image(0))
    assert amn("predict", finished, photo, "--out", tmp_path / "out").strip() == str(tmp_path / "out" / "photo.png")
    with Image.open(tmp_path / "out" / "photo.png") as mask:
        predicted = np.array(mask)
    predictions = ShardSet.open(str(finished / "predict"))
    assert predicted.shape == (images.entry(0).height, images.entry(0).width)
    assert (predicted == predictions.load(0, "mask.png")).mean() > 0.99
    assert (tmp_path / "out" / "photo.overlay.jpg").is_file() and (tmp_path / "row.png").is_file()


@pytest.mark.parametrize("launcher", ["ray", "torchrun"])
def test_two_processes_learn_what_one_learns(finished: Path, data: Path, tmp_path: Path, launcher: str) -> None:
    gang = ("--set", "engine.processes=2", "--set", f"engine.launcher={launcher}")
    run(data, "amn", tmp_path / "two", "--until", "classify", "--no-reuse", *gang)
    one, two = (load_file(folder / "classify" / "model.safetensors") for folder in (finished, tmp_path / "two"))
    assert one.keys() == two.keys()
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 2e-3


def test_other_settings_are_refused_and_redone_on_request(finished: Path, data: Path, tmp_path: Path) -> None:
    folder, other = tmp_path / "r", ("--until", "cam_seed", "--set", "cam.scales=[1.5]")
    shutil.copytree(finished, folder)
    written = (folder / "config.yaml").read_text()
    process = start(data, "amn", folder, *other)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 2 and "cam.scales" in said and "--redo cam" in said
    assert (folder / "config.yaml").read_text() == written
    run(data, "amn", folder, *other, "--redo", "cam")
    assert digests(folder)["classify"] == digests(finished)["classify"]
    assert digests(folder)["cam"] != digests(finished)["cam"]


INTERRUPTIONS = (
    ("classify/checkpoints/*", signal.SIGKILL),
    ("cam_seed/000000.tar", signal.SIGKILL),
    ("amn/checkpoints/*", signal.SIGTERM),
    ("amn_seed/000000.tar", signal.SIGTERM),
    ("irn/model*", signal.SIGKILL),
)


def test_a_run_made_anew_in_two_pools_and_interrupted_ends_with_the_same_result(
    finished: Path, data: Path, wait_for: Any
) -> None:
    folder, anew = finished.parent / "again", ("--no-reuse", "--set", "farm.pools=two")
    for pattern, sign in INTERRUPTIONS:
        process = start(data, "amn", folder, *anew)
        wait_for(lambda: bool(list(folder.glob(pattern))), pattern, process)  # noqa: B023
        os.killpg(process.pid, sign) if sign == signal.SIGKILL else process.terminate()
        said, _ = process.communicate(timeout=300)
        assert process.returncode == (-signal.SIGKILL if sign == signal.SIGKILL else 1), said
        assert "taken from" not in said
    assert "taken from" not in run(data, "amn", folder, *anew)
    assert digests(folder) == digests(finished)


def test_a_full_disk_stops_a_run_in_one_line_and_the_same_command_goes_on(
    finished: Path, data: Path, tmp_path: Path, small_disk: Callable[[Path, str], Path]
) -> None:
    disk = small_disk(tmp_path / "disk", "4m")
    folder, until = disk / "r", ("--no-reuse", "--until", "cam_seed")
    said = fails(data, folder, *until)
    assert "/classify/checkpoints" in said and "cannot be written" in said
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
    shutil.copytree(finished / "classify", folder / "classify", dirs_exist_ok=True)
    for left in (65_536, 0):
        fill(disk / "filler", leave=left)
        said = fails(data, folder, *until)
        assert str(folder) in said and "cannot be written" in said, said
        assert not list(folder.glob("*/index.json"))
        (disk / "filler").unlink()
    run(data, "amn", folder, *until)
    assert digests(folder) == {name: digests(finished)[name] for name in ("classify", "cam", "cam_seed")}


def fails(data: Path, folder: Path, *more: str) -> str:
    """The single line an unhappy run ends with."""
    process = start(data, "amn", folder, *more)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 1 and "Traceback" not in said, said
    return said.strip().splitlines()[-1]


def fill(path: Path, *, leave: int) -> None:
    """Take all the room of a disk but a few bytes."""
    state = os.statvfs(path.parent)
    room = state.f_bavail * state.f_frsize - leave
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(room // state.f_frsize * state.f_frsize, 1))
