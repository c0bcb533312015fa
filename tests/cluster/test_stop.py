"""`amn run` stopped in the middle of a fused stream: the exit code, what stays, and that nobody stays behind."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data_shards.synthetic import pack_synthetic

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

CONFIG = """
name: stop
method: irn
classify:
  backbone: {name: small, stride: 8, weights: null, frozen_taps: 0}
  batch: 8
  steps: 2
  crop: 64
cam: {scales: [1.0, 0.5]}
data: {val: null}
engine: {name: torch}
farm: {workers: 1, network_workers: 1, pools: two, chunk: 2}
"""


def test_a_stopped_run_keeps_its_shards_and_leaves_no_process(tmp_path: Path, wait_for: Any) -> None:
    pack_synthetic(tmp_path / "train", images=240, seed=0, classes=2, shard_size=8)
    (tmp_path / "stop.yaml").write_text(CONFIG)
    out, kept = tmp_path / "run" / "cam_seed", 0
    for sign, code, said in ((signal.SIGTERM, 1, "stopped by SIGTERM"), (signal.SIGINT, 130, "stopped by Ctrl-C")):
        mark = secrets.token_hex(8)
        process = start(tmp_path, mark)
        wait_for(lambda: len(list(out.glob("*.json"))) > kept + 1, "the next shards", process)  # noqa: B023
        # As a terminal does it for Ctrl-C: to the whole group.
        os.killpg(process.pid, sign) if sign == signal.SIGINT else process.terminate()
        told, _ = process.communicate(timeout=300)
        assert process.returncode == code and said in told, told
        wait_for(lambda: not marked(mark), f"the end of all processes with {mark}")  # noqa: B023
        assert kept < len(list(out.glob("*.json"))) and not (out / "index.json").exists()
        kept = len([path for path in out.glob("0*.json") if path.with_suffix(".tar").exists()])


def start(folder: Path, mark: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "amn_dist", "run", str(folder / "stop.yaml"), "--data", str(folder)]
    return subprocess.Popen(
        [*command, "--run", str(folder / "run"), "--until", "cam_seed"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, "AMN_TEST_MARK": mark},
    )


def marked(mark: str) -> list[str]:
    """Command lines of the living processes that inherited a mark."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return [line for line in found if line]
