"""Gangs that cannot go on: one clear line from every rank that is left, no hang, checkpoints whole."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("tiny_run.py")
SLIP_OFF = {"momentum_slip": False, "weight_decay": 0.01}


def start(
    root: Path, case: dict[str, Any], rank: int, *, ranks: int = 2, port: int, more: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """One rank of a gang that trains a case."""
    listed = root / f"cases-{rank}.json"
    listed.write_text(json.dumps([{"folder": str(root), "timeout_s": 30.0, **case}]))
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment = {**os.environ, **{key: str(value) for key, value in told.items()}, "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, str(SCRIPT), str(listed)], env={**environment, **(more or {})}, **quiet)


def gang(root: Path, case: dict[str, Any], more: Mapping[int, Mapping[str, str]] | None = None) -> list[int]:
    """Two ranks to their end; the exit statuses."""
    root.mkdir(parents=True, exist_ok=True)
    port = free_port()
    ranks = [start(root, case, rank, port=port, more=(more or {}).get(rank)) for rank in (0, 1)]
    return [process.wait(timeout=300) for process in ranks]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def error(root: Path, rank: int) -> str:
    return (root / f"error-{rank}.txt").read_text()


def checkpoints(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "checkpoints").iterdir())


@pytest.mark.parametrize("engine", ["torch", pytest.param("deepspeed", marks=pytest.mark.slow)])
def test_a_rank_that_is_killed_is_noticed_by_the_other(tmp_path: Path, engine: str) -> None:
    assert gang(tmp_path, {"engine": engine, "kill_at": 6, "struck": 1})[1] == -9
    assert error(tmp_path, 0).startswith("PeerLost: tiny: rank 0 of 2 lost the others (")
    assert error(tmp_path, 0).endswith("the same command goes on from the last checkpoint")
    assert checkpoints(tmp_path) == ["000004"]


def test_a_shard_that_one_rank_misses_ends_both(tmp_path: Path) -> None:
    gang(tmp_path, {"missing_at": 6, "struck": 1})
    assert error(tmp_path, 1) == "ShardError: 000003.tar: no such file; is the storage mounted on this node?"
    assert error(tmp_path, 0).startswith("PeerLost: tiny: rank 0 of 2 lost the others")
    assert checkpoints(tmp_path) == ["000004"]


def test_a_peer_that_never_comes_is_waited_for_as_long_as_said(tmp_path: Path) -> None:
    port, began = free_port(), time.monotonic()
    start(tmp_path, {"timeout_s": 3.0}, 1, port=port).wait(timeout=300)
    assert time.monotonic() - began < 60
    said = error(tmp_path, 1)
    assert said.startswith(f"PeerLost: rank 1 of 2: could not meet the others at 127.0.0.1:{port} within 3 s (")
    assert said.endswith("is GLOO_SOCKET_IFNAME (NCCL_SOCKET_IFNAME) right?")


def test_other_versions_on_a_rank_are_named(tmp_path: Path) -> None:
    other = tmp_path / "other" / "webdataset-0.0.1.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: webdataset\nVersion: 0.0.1\n")
    path = os.pathsep.join([str(other.parent), os.environ.get("PYTHONPATH", "")])
    gang(tmp_path / "run", {}, {1: {"PYTHONPATH": path}})
    for rank in (0, 1):
        said = error(tmp_path / "run", rank)
        assert said.startswith("ConfigError: rank 1: webdataset 0.0.1, rank 0 has "), said
        assert said.endswith("install the same versions on every node (launch/install.sh)")
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(("engine", "zero"), [("torch", 0), pytest.param("deepspeed", 2, marks=pytest.mark.slow)])
def test_a_full_disk_stops_all_ranks_and_the_same_command_goes_on(
    tmp_path: Path, small_disk: Callable[[Path, str], Path], engine: str, zero: int
) -> None:
    disk = small_disk(tmp_path / "checkpoints", "4k")
    case = {"engine": engine, "zero": zero, "section": SLIP_OFF}
    assert gang(tmp_path, case) == [0, 0]
    for rank in (0, 1):
        said = error(tmp_path, rank)
        assert "checkpoint of step 4 cannot be written (" in said and "older ones are whole" in said, said
        (tmp_path / f"error-{rank}.txt").unlink()
    assert checkpoints(tmp_path) == []
    subprocess.run(["mount", "-o", "remount,size=1m", str(disk)], check=True)
    assert gang(tmp_path, case) == [0, 0]
    assert not list(tmp_path.glob("error-*")) and (tmp_path / "model.safetensors").is_file()
