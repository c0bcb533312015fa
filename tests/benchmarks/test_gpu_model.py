"""The model of a run on GPUs: what is counted, how time follows from it, and the table that was kept."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import clip_model, gpu_model, gpu_times
from benchmarks.device.counting import Counts, Kernel, Patches, counting
from benchmarks.device.fake_cuda import fake_cuda
from benchmarks.device.figures import beside_model, predictions, with_model
from benchmarks.device.stage_counts import FITS, Pair, map_counts, published, step_counts
from benchmarks.gpu import PARTS
from benchmarks.gpu_assumptions import CASES, MASKS
from benchmarks.gpu_times import FitPlan, Hosts, Spent
from benchmarks.scale import GPUS, gpu_plans
from benchmarks.thread_times import KINDS

KEPT = json.loads((Path(__file__).parents[2] / "benchmarks" / "results" / "scale.json").read_text())["gpus"]
LOW = CASES["low"]
HOSTS: Hosts = {"parts": {"read": {"median_ms": 0.0}, "crop": {"median_ms": 10.0}}}


def kernels(flops: float = 0.0, moved: float = 0.0, launches: int = 1) -> Counts:
    return Counts([Kernel(flops / launches, moved / launches, torch.bfloat16)] * launches)


def test_a_kernel_has_the_operations_and_bytes_of_its_tensors() -> None:
    with fake_cuda(), torch.inference_mode():
        x, weight = torch.zeros(2, 3, 8, 8, device="cuda"), torch.zeros(4, 3, 3, 3, device="cuda")
        bias = torch.zeros(4, device="cuda")
        with counting() as plain:
            torch.nn.functional.conv2d(x, weight, padding=1)
        with counting() as fused:
            torch.ops.aten.cudnn_convolution_relu(x, weight, bias, [1, 1], [1, 1], [1, 1], 1)
        with counting() as others:
            half = x.view(-1)[:4].bfloat16().expand(3, 4)
            half + half
            torch.zeros(3).to("cuda")
    made, taken = 4 * 2 * 4 * 64, 4 * (2 * 3 * 64 + 4 * 27)
    assert plain.launches == fused.launches == 1
    assert plain.flops == fused.flops == 2 * (2 * 4 * 64) * 27
    assert plain.moved == fused.moved == made + taken
    # A cast; a sum over what is held once; nothing for views and for what crosses the bus.
    assert [kernel.moved for kernel in others.kernels] == [4 * 4 + 4 * 2, 2 * 4 * 2 + 12 * 2]


def test_patches_are_undone() -> None:
    before = torch.cuda.synchronize
    with Patches() as patches:
        patches.setattr(torch.cuda, "synchronize", print)
        assert torch.cuda.synchronize is print
    assert torch.cuda.synchronize is before


def test_counts_grow_with_pixels_and_photographs() -> None:
    config = published()
    small, large = (map_counts("edges", config, size=size, group=2) for size in ((96, 128), (192, 256)))
    assert small.many.flops == pytest.approx(2 * small.one.flops) and small.many.launches > small.one.launches
    assert large.one.flops == pytest.approx(4 * small.one.flops, rel=1e-3)
    assert large.one.launches == small.one.launches


def test_a_step_launches_the_same_for_any_batch_and_is_that_of_the_kept_table() -> None:
    pair = step_counts("irn", published())
    assert pair.one.launches == pair.many.launches
    assert pair.many.flops == pytest.approx(32 * pair.one.flops, rel=1e-3)
    kept = KEPT["counts"]["irn"]
    assert round(pair.many.flops / 32 / 1e9, 2) == kept["gflop"], "run python -m benchmarks.scale again"


def test_time_is_of_what_binds() -> None:
    case = replace(LOW, bf16=1e12, bytes_per_s=1e9, launch_s=1e-3)
    both = Counts([*kernels(flops=2e12, moved=1e9).kernels, *kernels(moved=3e9).kernels])
    spent = gpu_times.on_device(both, case)
    assert (spent.operations, spent.bytes, spent.launches) == (2.0, 3.0, 0.002)
    assert spent.device == 5.0 and spent.bound == "bytes"
    assert gpu_times.on_device(kernels(flops=1e9, launches=10), case).bound == "launches"
    assert replace(spent, link=4.0).total == 9.0 and replace(spent, link=4.0).bound == "link"
    assert replace(spent, host=6.0).bound == "host cores" and replace(spent, decoding=7.0).bound == "decode threads"
    pair = Pair(kernels(flops=1e12), kernels(flops=4e12), 4)
    assert gpu_times.of_number(pair, 7, case).operations == pytest.approx(7.0)


def test_a_step_takes_no_more_gpus_than_pay() -> None:
    pair = Pair(kernels(flops=1e12), kernels(flops=16e12), 16)
    plan = FitPlan(100, 16, 10**8)
    times = [gpu_times.step("classify", plan, pair, HOSTS, gpus, LOW).total for gpus in (1, 2, 8, 16, 64)]
    assert times == sorted(times, reverse=True) and times[0] > 6 * times[2] and times[3] == times[4]
    idle: Hosts = {"parts": {"read": {"median_ms": 0.0}, "crop": {"median_ms": 0.0}}}
    tiny = Pair(kernels(launches=10), kernels(launches=10), 16)
    alone, many = (gpu_times.step("classify", plan, tiny, idle, gpus, LOW) for gpus in (1, 64))
    assert alone == many and many.link == 0
    fed = gpu_times.step("classify", plan, tiny, HOSTS, 1, LOW)
    assert fed.bound == "host cores" and fed.total == pytest.approx(16 * 0.01 * LOW.host / LOW.cores)


def test_a_map_waits_for_the_slowest_of_its_threads() -> None:
    case = replace(LOW, host=1.0, cores=10, launch_s=1e-6)
    pairs = {name: Pair(kernels(launches=100), kernels(launches=100), 27) for name in ("cam", "cam_seed")}

    def streams(**spent: float) -> Hosts:
        before = {kind: {"median_ms": 1.0} for kind in ("all", *KINDS)}
        return {"streams": {"cam": before, "cam+cam_seed": before | {k: {"median_ms": v} for k, v in spent.items()}}}

    def seed(**spent: float) -> Spent:
        return gpu_times.image("cam_seed", pairs, streams(**spent), case)

    launches = seed().launches
    assert seed(own=3.0).launches == pytest.approx(launches + 2e-3), "one thread launches and does the rest"
    assert seed(all=21.0).host == pytest.approx(2e-3 + launches / 10)
    assert (seed(encoding=9.0).host, seed(joining=9.0).host, seed(reading=9.0).host) == pytest.approx(
        (2e-3, 4e-3, 8e-3)
    )
    assert seed(decoding=9.0).decoding == pytest.approx(1e-3) and seed(decoding=0.5).decoding == 0.0
    both = gpu_times.image("cam", pairs, streams(all=21.0), case)
    assert both.host == pytest.approx(1e-3), "a seed's share is not its Map's"


def test_groups_hold_a_chunk_of_every_size() -> None:
    numbers = gpu_times.group_sizes()
    assert sum(numbers) == pytest.approx(256) and max(numbers) <= 39 and len(numbers) < 30
    assert 200_000 < gpu_times.mean_pixels() < 480 * 640


def test_the_kept_table_adds_up_and_holds_its_assumptions() -> None:
    assert KEPT["minutes"].keys() == {str(number) for number in GPUS} and KEPT["never_run_on_a_gpu"]
    for row in KEPT["minutes"].values():
        for case in CASES:
            minutes = {stage: entry["minutes"] for stage, entry in row[case]["stages"].items()}
            assert row[case]["masks_min"] == pytest.approx(sum(minutes[stage] for stage in MASKS), abs=0.06)
            assert row[case]["all_min"] == pytest.approx(sum(minutes.values()), abs=0.06)
        assert row["low"]["all_min"] < row["high"]["all_min"]
    assert KEPT["cases"] == {name: vars(case) for name, case in CASES.items()}
    assert set(gpu_plans()) == set(FITS)
    assert len(gpu_model.lines(KEPT["minutes"])) == len(GPUS) * (len(MASKS) + 5)


def test_clips_kept_table_adds_up() -> None:
    clip = KEPT["clip"]
    assert clip["minutes"].keys() == KEPT["minutes"].keys() and clip["target_min"] == clip_model.TARGET_MIN
    for row in clip["minutes"].values():
        for case in CASES:
            both = sum(row[case][stage]["minutes"] for stage in clip_model.STAGES)
            assert row[case]["both_min"] == pytest.approx(both, abs=0.06)
        assert row["low"]["both_min"] < row["high"]["both_min"]
    assert len(clip_model.lines(clip)) == len(GPUS) * len(clip_model.STAGES)


def test_a_host_that_is_waited_for_adds_to_the_device() -> None:
    pair = Pair(kernels(flops=1e9), kernels(flops=4e9), 4)
    streams = {"cam": {kind: {"median_ms": 0.1} for kind in ("all", *KINDS)}}
    waiting, free = (
        gpu_times.image(
            "clip_map", {"clip_map": pair}, {"parts": {"boxes": {"median_ms": spent_ms}}, "streams": streams}, LOW
        )
        for spent_ms in (3.0, 0.0)
    )
    assert waiting.device - free.device == pytest.approx(3e-3 * LOW.host)


def test_a_measured_figure_stands_beside_its_prediction() -> None:
    predicted = predictions()
    assert predicted and predicted.keys() <= PARTS.keys()
    part = {"ours": {"median_s": 0.004}, "published": {"median_s": 0.02}, "ratio": 5.0}
    found = with_model(part, {"ours": [0.003, 0.005], "absent": [1.0, 2.0]})
    assert found == {**part, "ours": {"median_s": 0.004, "model_s": [0.003, 0.005]}}
    assert beside_model(found) == "; ours 4.00 ms an image, by the model 3.00 to 5.00"
    assert beside_model(part) == ""


def test_the_slower_of_device_and_host_is_the_time() -> None:
    assert Spent(1.0, 1.0, 0.5, 0.0, 1.5).total == 2.0
    assert Spent(1.0, 1.0, 0.5, 0.0, 2.5).total == 2.5
