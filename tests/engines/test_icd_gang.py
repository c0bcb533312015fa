"""The discriminator's running statistics under real engines: one process, two, and one that was interrupted."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

SCRIPT = Path(__file__).with_name("icd_run.py")
STATISTICS = ("norm.running_mean", "norm.running_var", "sign.running")

TOGETHER: list[dict[str, Any]] = [{"folder": "two", "engine": "torch"}, {"folder": "two-deep", "engine": "deepspeed"}]
ALONE: list[dict[str, Any]] = [
    {"folder": "one", "engine": "torch"},
    {"folder": "pieces", "engine": "torch", "section": {"micro_batch": 2}},
    {"folder": "stopped", "engine": "torch", "stop_at": 3},
    {"folder": "stopped", "engine": "torch"},
    {"folder": "deep", "engine": "deepspeed"},
    {"folder": "deep-stopped", "engine": "deepspeed", "stop_at": 3},
    {"folder": "deep-stopped", "engine": "deepspeed"},
]


def run(root: Path, cases: list[dict[str, Any]], *, ranks: int) -> list[int]:
    """Train the cases as a gang, as torchrun would start it; returns the exit statuses."""
    listed = root / f"cases-{ranks}.json"
    listed.write_text(json.dumps([{**case, "folder": str(root / case["folder"])} for case in cases]))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    gang = []
    for rank in range(ranks):
        told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        told = told if ranks > 1 else {}
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **{key: str(value) for key, value in told.items()}}
        gang.append(subprocess.Popen([sys.executable, str(SCRIPT), str(listed)], env=environment))
    return [process.wait(timeout=300) for process in gang]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("icd")
    assert run(root, TOGETHER, ranks=2) == [0, 0]
    assert run(root, ALONE, ranks=1) == [0]
    return root


def weights(root: Path, name: str) -> dict[str, Tensor]:
    return load_file(root / name / "model.safetensors")


def curve(root: Path, name: str) -> list[float]:
    lines = (root / name / "curve-0.jsonl").read_text().splitlines()
    return [record["total"] for record in map(json.loads, lines) if "total" in record]


@pytest.mark.parametrize("name", ["two", "two-deep", "deep"])
def test_gangs_and_engines_learn_what_one_process_learns(trained: Path, name: str) -> None:
    assert curve(trained, name) == pytest.approx(curve(trained, "one"), rel=1e-4)
    one, other = weights(trained, "one"), weights(trained, name)
    assert one.keys() == other.keys() and one["steps"] == other["steps"] == 6
    for tensor in STATISTICS:
        assert one[tensor].any() and (one[tensor] - other[tensor]).abs().max() < 1e-4 * one[tensor].abs().max(), tensor


@pytest.mark.parametrize(("name", "whole"), [("stopped", "one"), ("deep-stopped", "deep")])
def test_after_an_interruption_statistics_and_weights_end_bit_exact(trained: Path, name: str, whole: str) -> None:
    assert len(curve(trained, name)) == 6 and curve(trained, name) == curve(trained, whole)
    expected, found = weights(trained, whole), weights(trained, name)
    assert all((found[tensor] == expected[tensor]).all() for tensor in expected)


def test_micro_batches_move_the_averages_once_a_step(trained: Path) -> None:
    one, pieces = weights(trained, "one"), weights(trained, "pieces")
    assert pieces["steps"] == 6
    # Features are normalised piece by piece, so that weights differ a little from step 2 on.
    assert (one["norm.running_var"] - pieces["norm.running_var"]).abs().max() < 0.1 * one["norm.running_var"].max()
