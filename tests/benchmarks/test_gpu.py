"""The device benchmark on the CPU: settings, floors, and that a part that cannot run says why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from amn_dist.config import load_config
from benchmarks.device.crfs import moved_bytes
from benchmarks.device.figures import Setting, with_floors
from benchmarks.gpu import PARTS, attempted
from benchmarks.reference.published_settings import published_settings

ROOT = Path(__file__).resolve().parents[2]
TINY = Setting("cpu", tiny=True)


@pytest.mark.parametrize("stage", ["classify", "amn", "irn", "segment"])
def test_settings_are_those_of_the_configuration(stage: str) -> None:
    config = getattr(load_config(ROOT / "configs" / "coco14_amn.yaml"), stage)
    for name, value in vars(getattr(published_settings(), stage)).items():
        if isinstance(value, SimpleNamespace):
            backbone = config.backbone
            assert (value.name, value.stride, value.frozen_taps) == (
                backbone.name,
                backbone.stride,
                backbone.frozen_taps,
            )
        elif not (stage == "irn" and name == "lr"):  # nothing of IRN's backbone learns
            assert getattr(config, name) == value, name


def test_floors_are_operations_and_bytes_over_the_peak() -> None:
    peak = {"bf16_flops_per_s": 1e12, "fp32_flops_per_s": 1e11, "bytes_per_s": 1e9}
    rows = {
        "ours": {"median_s": 0.004, "flops": 2e9, "unit": "bf16"},
        "theirs": {"median_s": 1.0, "flops": 2e9, "unit": "fp32"},
        "walk": {"median_s": 0.01, "bytes": 5e6},
    }
    found = with_floors({"peak": peak, "cam": rows})["cam"]
    assert [found[name]["floor_s"] for name in rows] == pytest.approx([0.002, 0.02, 0.005])
    assert [found[name]["of_peak"] for name in rows] == pytest.approx([0.5, 0.02, 0.5])
    assert with_floors({"cam": rows}) == {"cam": rows}


def test_a_pair_of_labellings_moves_what_a_device_does_in_three_milliseconds() -> None:
    """480x640 and the most points of ten photographs (results/crf_seed.json), at 4.3 TB/s."""
    moved = moved_bytes((480, 640), (39_890, 468_944), groups=2, labels=3, iterations=10)
    assert sum(moved.values()) / 4.3e12 < 3e-3
    assert (
        moved["filtering"]
        == 10 * moved_bytes((480, 640), (39_890, 468_944), groups=2, labels=3, iterations=1)["filtering"]
    )
    twice = moved_bytes((960, 640), (79_780, 937_888), groups=2, labels=3, iterations=10)
    assert sum(twice.values()) == pytest.approx(2 * sum(moved.values()), rel=1e-3)


def test_a_part_that_lacks_a_package_or_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    for module in ("amn_dist.ops.walk.gpu", "amn_dist.ops.kernels.walk"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    assert attempted("walk", TINY) == {"skipped": "needs triton, which is not installed"}
    monkeypatch.setitem(PARTS, "broken", ("figures:counted_flops", 1))
    failed = attempted("broken", TINY)["failed"]
    assert failed.startswith("TypeError: ") and "figures.py:" in failed


@pytest.mark.parametrize("name", ["peak", "edges"])
def test_a_part_measures(name: str) -> None:
    made = attempted(name, TINY)
    assert "figures" in made, made
    if name == "edges":
        assert made["figures"]["largest_difference"] < 1e-3 and made["figures"]["ours"]["flops"] > 0


def test_networks_need_no_pydantic() -> None:
    block = (
        "import sys; sys.modules.update(dict.fromkeys(('pydantic', 'yaml', 'rich', 'ray', 'deepspeed', 'webdataset')))"
    )
    work = ", ".join(f"amn_dist.stages.{name}" for name in ("classify", "amn", "irn", "segment"))
    code = f"{block}; import benchmarks.gpu, benchmarks.harness, amn_dist.training.engines.torch, {work}; "
    code += "benchmarks.harness.environment()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_every_part_runs_in_one_call(tmp_path: Path) -> None:
    environment = {**os.environ, "OUT": str(tmp_path), "PYTHON": sys.executable}
    command = [ROOT / "benchmarks" / "gpu.sh", "--tiny", "--device", "cpu", "--seconds", "500"]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    record = json.loads((tmp_path / "gpu_tiny.json").read_text())
    assert not record["failed"] and record["parts"].keys() | record["skipped"].keys() == PARTS.keys()
    assert record["parts"]["walk"]["error"] < 1e-4 and record["parts"]["crf"]["equal_labels"] >= 0.9999
    assert record["parts"]["cam"]["ours"]["floor_s"] > 0
