"""Two hosts work on one run, and one of them dies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data_shards.synthetic import pack_synthetic

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

GANG = Path(__file__).parents[1] / "gang.yaml"
CONFIG = GANG.read_text() + "engine: {precision: fp32, processes: 2, rejoin_s: 3, timeout_s: 60}\n"
ALONE = ("--set", "engine.processes=1", "--set", "farm.name=local")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    pack_synthetic(root / "train", images=24, seed=0, classes=2, shard_size=2)
    pack_synthetic(root / "val", images=8, seed=9, classes=2, shard_size=4)
    (root / "hosts.yaml").write_text(CONFIG)
    return root


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run on one host, in one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    words = ["run", data / "hosts.yaml", "--data", data, "--run", folder, *ALONE]
    done = subprocess.run(
        [sys.executable, "-m", "amn_dist", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return folder


def records(folder: Path, stage: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / stage / "metrics.jsonl").read_text().splitlines()]


def curve(folder: Path) -> dict[int, float]:
    """Loss by step; of a step done twice, the later."""
    return {record["step"]: record["total"] for record in records(folder, "classify") if "total" in record}


def digest(folder: Path, stage: str, last: str) -> str:
    return str(json.loads((folder / stage / last).read_text())["digest"])


def ended(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said
    return said


def words(data: Path, folder: Path, hosts: Any, *more: str) -> list[str | Path]:
    run = ["run", data / "hosts.yaml", "--data", data, "--run", folder, "--no-reuse", *more]
    return [*run, "--address", hosts.address]


def scores(folder: Path) -> dict[str, Any]:
    """mIoU by artefact; a curve over thresholds for activation maps."""
    found = json.loads((folder / "score" / "score.json").read_text())["sets"]
    return {f"{kind} {name}": row["miou"] for kind, part in found.items() for name, row in part["rows"].items()}


def the_same(folder: Path, alone: Path) -> None:
    """The loss at every step, and the scores: a pixel may fall to the other side of a threshold."""
    assert sorted(curve(folder)) == list(range(1, 49))
    assert curve(folder) == pytest.approx(curve(alone), rel=1e-3)
    found, expected = scores(folder), scores(alone)
    assert found.keys() == expected.keys() and len(found) >= 5
    for name in expected:
        assert found[name] == pytest.approx(expected[name], abs=0.01), name


def test_two_hosts_learn_and_map_what_one_does(hosts: Any, data: Path, alone: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    ended(hosts.amn(*words(data, folder, hosts)))
    assert json.loads((folder / "classify/checkpoints/000048/state.json").read_text())["processes"] == 2
    the_same(folder, alone)
    state = hosts.launch("status")
    assert all(f"{name}: up" in state for name in hosts.names)
    seen = ended(hosts.amn("doctor", "--cluster", "--address", hosts.address, "--run", tmp_path))
    assert seen.count("versions equal") == seen.count("read and written") == 2 and "2 nodes sum up" in seen
    hosts.launch("down")
    assert not any(hosts.folder.glob("*.pid"))


def test_a_host_that_dies_in_a_fit_is_done_without(
    hosts: Any, data: Path, alone: Path, tmp_path: Path, wait_for: Any
) -> None:
    folder = tmp_path / "run"
    process = hosts.amn(*words(data, folder, hosts))
    found = "classify/checkpoints/00000[4-9]/state.json"
    wait_for(lambda: bool(list(folder.glob(found))), "a checkpoint", process, 500.0)
    hosts.kill(hosts.names[1])
    said = ended(process)
    assert "started again from" in said
    assert json.loads((folder / "classify/checkpoints/000048/state.json").read_text())["processes"] == 1
    the_same(folder, alone)


def test_a_host_that_dies_in_a_map_is_done_without(
    hosts: Any, data: Path, alone: Path, tmp_path: Path, wait_for: Any
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copytree(alone / "classify", folder / "classify")
    process = hosts.amn(*words(data, folder, hosts, "--until", "cam_seed"))
    wait_for(lambda: bool(list(folder.glob("cam_seed/*.json"))), "a shard of seeds", process, 500.0)
    hosts.kill(hosts.names[1])
    ended(process)
    for stage in ("cam", "cam_seed"):
        assert digest(folder, stage, "index.json") == digest(alone, stage, "index.json")
