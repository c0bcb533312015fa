"""Running statistics and dropout of whole Fits under real engines: one process, two, and one that was interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor

SCRIPT = Path(__file__).with_name("noise_run.py")
STATISTICS = ("norm.running_mean", "norm.running_var", "sign.running")

DROPOUT = {"amn": {"fit": "amn"}, "discriminate": {"section": {"cam_head": "deep", "mask_padding": False}}}
"""Every Fit with dropout."""
TOGETHER: list[dict[str, Any]] = [
    {"folder": "two", "engine": "torch"},
    *[{"folder": f"two-{name}", "engine": "torch", **case} for name, case in DROPOUT.items()],
]
ALONE: list[dict[str, Any]] = [
    {"folder": "one", "engine": "torch"},
    {"folder": "pieces", "engine": "torch", "section": {"micro_batch": 2}},
    {"folder": "bf16", "engine": "torch", "precision": "bf16"},
    {"folder": "stopped", "engine": "torch", "stop_at": 3},
    {"folder": "stopped", "engine": "torch"},
    *[{"folder": f"one-{name}", "engine": "torch", **case} for name, case in DROPOUT.items()],
    {"folder": "pieces-amn", "engine": "torch", "fit": "amn", "section": {"micro_batch": 2}},
]
DEEP_TOGETHER: list[dict[str, Any]] = [{"folder": "two-deep", "engine": "deepspeed"}]
DEEP_ALONE: list[dict[str, Any]] = [
    {"folder": "deep", "engine": "deepspeed"},
    {"folder": "deep-stopped", "engine": "deepspeed", "stop_at": 3},
    {"folder": "deep-stopped", "engine": "deepspeed"},
]


def run(launch: Any, root: Path, name: str, cases: list[dict[str, Any]], *, ranks: int) -> None:
    """Train the cases as a gang to its good end."""
    listed = root / f"{name}.json"
    listed.write_text(json.dumps([{**case, "folder": str(root / case["folder"])} for case in cases]))
    launch(SCRIPT, [listed] * ranks, into=root).end(*[0] * ranks)


@pytest.fixture(scope="module")
def trained(launch: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("icd")
    run(launch, root, "together", TOGETHER, ranks=2)
    run(launch, root, "alone", ALONE, ranks=1)
    return root


@pytest.fixture(scope="module")
def deep(launch: Any, trained: Path) -> Path:
    """The same folder with DeepSpeed's runs in it."""
    run(launch, trained, "deep-together", DEEP_TOGETHER, ranks=2)
    run(launch, trained, "deep-alone", DEEP_ALONE, ranks=1)
    return trained


def weights(root: Path, name: str) -> dict[str, Tensor]:
    return load_file(root / name / "model.safetensors")


def curve(root: Path, name: str) -> list[float]:
    lines = (root / name / "curve-0.jsonl").read_text().splitlines()
    return [record["total"] for record in map(json.loads, lines) if "total" in record]


def check_equal(root: Path, name: str) -> None:
    """A run learned what one process of the plain engine learned."""
    assert curve(root, name) == pytest.approx(curve(root, "one"), rel=1e-4)
    one, other = weights(root, "one"), weights(root, name)
    assert one.keys() == other.keys() and one["steps"] == other["steps"] == 6
    for tensor in STATISTICS:
        assert one[tensor].any() and (one[tensor] - other[tensor]).abs().max() < 1e-4 * one[tensor].abs().max(), tensor


def check_resumed(root: Path, name: str, whole: str) -> None:
    """An interrupted run ended with every bit of a whole one."""
    assert len(curve(root, name)) == 6 and curve(root, name) == curve(root, whole)
    expected, resumed = weights(root, whole), weights(root, name)
    assert all((resumed[tensor] == expected[tensor]).all() for tensor in expected)


def test_two_processes_learn_what_one_learns(trained: Path) -> None:
    check_equal(trained, "two")


@pytest.mark.parametrize(
    ("name", "one"), [*((f"two-{fit}", f"one-{fit}") for fit in DROPOUT), ("pieces-amn", "one-amn")]
)
def test_dropout_does_not_depend_on_processes_and_micro_batches(trained: Path, name: str, one: str) -> None:
    assert curve(trained, name) == pytest.approx(curve(trained, one), rel=1e-4)
    expected, found = weights(trained, one), weights(trained, name)
    for tensor, value in expected.items():
        assert (found[tensor] - value).abs().max() <= 1e-4 * value.abs().max(), tensor


def test_after_an_interruption_statistics_and_weights_end_bit_exact(trained: Path) -> None:
    check_resumed(trained, "stopped", "one")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deep", "two-deep"])
def test_deepspeed_learns_what_plain_torch_learns(deep: Path, name: str) -> None:
    check_equal(deep, name)


@pytest.mark.slow
def test_deepspeed_resumes_bit_exact(deep: Path) -> None:
    check_resumed(deep, "deep-stopped", "deep")


def test_micro_batches_move_the_averages_once_a_step(trained: Path) -> None:
    one, pieces = weights(trained, "one"), weights(trained, "pieces")
    assert pieces["steps"] == 6
    # Features are normalised piece by piece, so that weights differ a little from step 2 on.
    assert (one["norm.running_var"] - pieces["norm.running_var"]).abs().max() < 0.1 * one["norm.running_var"].max()


def test_bf16_stays_near_and_keeps_statistics_in_fp32(trained: Path) -> None:
    assert curve(trained, "bf16") == pytest.approx(curve(trained, "one"), rel=0.1)
    one, other = weights(trained, "one"), weights(trained, "bf16")
    assert all(other[name].dtype == one[name].dtype for name in one)
    assert (one["norm.running_mean"] - other["norm.running_mean"]).abs().max() < 0.02
