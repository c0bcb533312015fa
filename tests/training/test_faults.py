"""Gangs that cannot go on: one clear line from every rank that is left, no hang, checkpoints whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("tiny_run.py")
SLIP_OFF = {"momentum_slip": False, "weight_decay": 0.01}


def start(launch: Any, root: Path, case: dict[str, Any], *, ranks: Sequence[int] = (0, 1), more: Any = None) -> Any:
    """Some ranks of a gang of two that trains a case."""
    root.mkdir(parents=True, exist_ok=True)
    listed = root / "cases.json"
    listed.write_text(json.dumps([{"folder": str(root), "timeout_s": 30.0, **case}]))
    return launch(SCRIPT, [listed] * len(ranks), into=root, size=2, first=ranks[0], more=more)


def threads(root: Path, rank: int) -> str:
    """What a rank had left of process groups when it was to end."""
    return (root / f"threads-{rank}.txt").read_text()


def error(root: Path, rank: int) -> str:
    return (root / f"error-{rank}.txt").read_text()


def checkpoints(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "checkpoints").iterdir())


@pytest.mark.parametrize("engine", ["torch", pytest.param("deepspeed", marks=pytest.mark.slow)])
def test_a_rank_that_is_killed_is_noticed_by_the_other(launch: Any, tmp_path: Path, engine: str) -> None:
    start(launch, tmp_path, {"engine": engine, "kill_at": 6, "struck": 1}).end(0, -9)
    assert error(tmp_path, 0).startswith("PeerLost: tiny: rank 0 of 2 lost the others (")
    assert error(tmp_path, 0).endswith("the same command goes on from the last checkpoint")
    assert checkpoints(tmp_path) == ["000004"] and threads(tmp_path, 0) == ""


def test_a_shard_that_one_rank_misses_ends_both(launch: Any, tmp_path: Path) -> None:
    start(launch, tmp_path, {"missing_at": 6, "struck": 1}).end(0, 0)
    assert error(tmp_path, 1) == "ShardError: 000003.tar: no such file; is the storage mounted on this node?"
    assert error(tmp_path, 0).startswith("PeerLost: tiny: rank 0 of 2 lost the others")
    assert checkpoints(tmp_path) == ["000004"]
    assert threads(tmp_path, 0) == threads(tmp_path, 1) == ""


def test_a_peer_that_never_comes_is_waited_for_as_long_as_said(launch: Any, tmp_path: Path) -> None:
    lonely = start(launch, tmp_path, {"timeout_s": 3.0}, ranks=[1])
    lonely.end(0)
    said = error(tmp_path, 1)
    assert said.startswith(f"PeerLost: rank 1 of 2: could not meet the others at 127.0.0.1:{lonely.port} within 3 s (")
    assert said.endswith("is GLOO_SOCKET_IFNAME (NCCL_SOCKET_IFNAME) right?")


def test_other_versions_on_a_rank_are_named(launch: Any, tmp_path: Path) -> None:
    other = tmp_path / "other" / "webdataset-0.0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: webdataset\nVersion: 0.0.1\n")
    path = os.pathsep.join([str(other.parent), os.environ.get("PYTHONPATH", "")])
    start(launch, tmp_path / "run", {}, more={1: {"PYTHONPATH": path}}).end(0, 0)
    for rank in (0, 1):
        said = error(tmp_path / "run", rank)
        assert said.startswith("ConfigError: rank 1: webdataset 0.0.1, rank 0 has "), said
        assert said.endswith("install the same versions on every node (launch/install.sh)")
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(("engine", "zero"), [("torch", 0), pytest.param("deepspeed", 2, marks=pytest.mark.slow)])
def test_a_full_disk_stops_all_ranks_and_the_same_command_goes_on(
    launch: Any, tmp_path: Path, small_disk: Callable[[Path, str], Path], engine: str, zero: int
) -> None:
    disk = small_disk(tmp_path / "checkpoints", "4k")
    case = {"engine": engine, "zero": zero, "section": SLIP_OFF}
    start(launch, tmp_path, case).end(0, 0)
    for rank in (0, 1):
        said = error(tmp_path, rank)
        assert "checkpoint of step 4 cannot be written (" in said and "older ones are whole" in said, said
        (tmp_path / f"error-{rank}.txt").unlink()
        assert threads(tmp_path, rank) == ""
    assert checkpoints(tmp_path) == []
    subprocess.run(["mount", "-o", "remount,size=1m", str(disk)], check=True)
    start(launch, tmp_path, case).end(0, 0)
    assert not list(tmp_path.glob("error-*")) and (tmp_path / "model.safetensors").is_file()
    assert threads(tmp_path, 0) == threads(tmp_path, 1) == ""


@pytest.mark.parametrize("engine", ["torch", pytest.param("deepspeed", marks=pytest.mark.slow)])
@pytest.mark.parametrize(("late", "fault"), [(1, {}), (0, {"nan_key": "key2"})])  # the first rank holds the addresses
def test_ranks_may_leave_in_any_order(
    launch: Any, tmp_path: Path, engine: str, late: int, fault: dict[str, str]
) -> None:
    gang = start(launch, tmp_path, {"engine": engine, "late": True, "struck": late, **fault})
    assert gang.ranks[1 - late].end() == 0, gang.ranks[1 - late]
    assert not (tmp_path / f"threads-{late}.txt").exists()
    (tmp_path / "go").touch()
    gang.end(0, 0)
    assert threads(tmp_path, 0) == threads(tmp_path, 1) == ""
    assert {path.name for path in tmp_path.glob("error-*")} == ({"error-0.txt", "error-1.txt"} if fault else set())


LEAVING = """
import glob, sys, time
import torch
from torch import distributed
from amn_dist.training.world import form_group, membership
from amn_dist.errors import StageError

class Last:
    def __del__(self):
        time.sleep(0.5)  # lets other threads run while the interpreter ends

last, kept = Last(), None

def train(world):
    form_group(world)
    group = distributed.group.WORLD
    sys.setswitchinterval(1000)
    for _ in range(16):
        group.allreduce([torch.ones(1)])
    for _ in range(20_000_000):  # the group's threads end their work, and wait for this one to let go of the tensors
        pass
    if sys.argv[1] == "error":
        raise StageError("the disk is full")

try:
    with membership() as world:
        train(world)
except StageError as error:
    kept = error
left = [name for path in glob.glob("/proc/self/task/*/comm") if "gloo" in (name := open(path).read())]
sys.exit("".join(left) or 3)
"""


@pytest.mark.parametrize("way", ["done", "error"])
def test_a_thread_that_is_late_with_a_tensor_does_not_abort_the_process(way: str) -> None:
    ended = subprocess.run([sys.executable, "-c", LEAVING, way], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 3, ended.stderr
