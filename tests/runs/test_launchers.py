"""A Fit under every launcher: the same weights, also after a process was killed or the driver was told to stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from data_shards.synthetic import pack_synthetic

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

GANG = Path(__file__).parents[1] / "gang.yaml"
CONFIG = GANG.read_text() + "engine: {precision: fp32, rejoin_s: 3, timeout_s: 60}\n"
STEPS = 48


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    pack_synthetic(root / "train", images=24, seed=0, classes=2, shard_size=6)
    pack_synthetic(root / "val", images=4, seed=9, classes=2, shard_size=4)
    (root / "c.yaml").write_text(CONFIG)
    return root


def start(*command: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Without the last, torchrun offers the store of the attempt before, with the addresses of the dead in it.
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "DS_ACCELERATOR": "cpu",
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        },
    )


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    said, _ = process.communicate(timeout=600)
    assert process.returncode == code, said
    return said


def amn(data: Path, folder: Path, *more: str) -> list[str | Path]:
    return ["amn_dist", "run", data / "c.yaml", "--data", data, "--run", folder, "--until", "classify", *more]


def member(data: Path, folder: Path) -> list[str | Path]:
    return ["amn_dist", "fit", data / "c.yaml", "classify", "--data", data, "--run", folder, "--member"]


def curve(folder: Path) -> dict[int, float]:
    """Loss by step; of a step done twice, the later."""
    lines = map(json.loads, (folder / "classify" / "metrics.jsonl").read_text().splitlines())
    return {record["step"]: record["total"] for record in lines if "total" in record}


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, float]:
    folder = tmp_path_factory.mktemp("alone") / "run"
    ended(start(*amn(data, folder)))
    return curve(folder)


def descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            yield int(child)
            yield from descendants(int(child))


def of_rank(pid: int, rank: int) -> int:
    """The process below `pid` that trains as `rank`."""
    for child in descendants(pid):
        words = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        if b"RANK=%d" % rank in words and b"--member" in Path(f"/proc/{child}/cmdline").read_bytes():
            return child
    raise AssertionError(f"no process of rank {rank}")


def training_in_ray(pid: int) -> int:
    """One of the processes below `pid` that Ray Train has started."""
    for child in descendants(pid):
        if b"RayTrainWorker" in Path(f"/proc/{child}/cmdline").read_bytes():
            return child
    raise AssertionError("no process of Ray Train")


@pytest.fixture
def until(wait_for: Any) -> Callable[[Path, subprocess.Popen[str]], None]:
    """Waits for a checkpoint while the process lives."""
    found = "classify/checkpoints/00000[4-9]/state.json"
    return lambda folder, process: wait_for(lambda: bool(list(folder.glob(found))), "a checkpoint", process, 500.0)


def the_same(folder: Path, alone: dict[int, float]) -> None:
    assert sorted(curve(folder)) == list(range(1, STEPS + 1))
    assert curve(folder) == pytest.approx(alone, rel=1e-3)
    assert load_file(folder / "classify" / "model.safetensors")


@pytest.mark.parametrize("launcher", ["ray", "torchrun"])
def test_a_killed_process_is_made_good(
    data: Path, alone: dict[int, float], tmp_path: Path, until: Any, launcher: str
) -> None:
    folder = tmp_path / "run"
    process = start(*amn(data, folder, "--set", "engine.processes=2", "--set", f"engine.launcher={launcher}"))
    until(folder, process)
    struck = training_in_ray(process.pid) if launcher == "ray" else of_rank(process.pid, 1)
    os.kill(struck, signal.SIGKILL)
    assert "started again from 0000" in " ".join(ended(process).split())
    the_same(folder, alone)


@pytest.mark.parametrize("launcher", ["ray", "torchrun"])
def test_sigterm_to_the_driver_saves_and_the_same_command_goes_on(
    data: Path, alone: dict[int, float], tmp_path: Path, until: Any, launcher: str
) -> None:
    folder = tmp_path / "run"
    command = amn(data, folder, "--set", "engine.processes=2", "--set", f"engine.launcher={launcher}")
    process = start(*command)
    until(folder, process)
    process.terminate()
    said = " ".join(ended(process, code=1).split())
    assert "classify: stopped at step" in said and "the same command goes on" in said
    stopped = max(curve(folder))
    assert stopped < STEPS and (folder / f"classify/checkpoints/{stopped:06d}/state.json").is_file()
    ended(start(*command))
    steps = [json.loads(line).get("step") for line in (folder / "classify/metrics.jsonl").read_text().splitlines()]
    assert [step for step in steps if step] == list(range(1, STEPS + 1))
    the_same(folder, alone)


def test_torchrun_by_hand_restarts_what_dies(data: Path, alone: dict[int, float], tmp_path: Path, until: Any) -> None:
    folder = tmp_path / "run"
    torchrun = ["torch.distributed.run", "--nnodes=1", "--nproc-per-node=2", "--max-restarts=2"]
    torchrun += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "-m", "--"]
    process = start(*torchrun, *member(data, folder))
    until(folder, process)
    os.kill(of_rank(process.pid, 1), signal.SIGKILL)
    ended(process)
    the_same(folder, alone)


def test_deepspeed_by_hand(
    data: Path, alone: dict[int, float], tmp_path: Path, reserve_port: Callable[[], int]
) -> None:
    folder = tmp_path / "run"
    launcher = [
        "deepspeed.launcher.runner",
        "--no_local_rank",
        "--num_accelerators=2",
        f"--master_port={reserve_port()}",
        "--module",
    ]
    ended(start(*launcher, *member(data, folder)))
    state = json.loads((folder / f"classify/checkpoints/{STEPS:06d}/state.json").read_text())
    assert (state["engine"], state["processes"]) == ("deepspeed", 2)
    the_same(folder, alone)
