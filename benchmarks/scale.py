"""How long would a run on COCO take on 1 to 64 GPUs, on 2 to 1000 CPU cores? Two models, their assumptions, a check.

GPUs, which were not at hand: counts of operations, bytes and launches (gpu_model.py), and what a host was measured to
spend (results/host.json); counting takes about four minutes. CPU cores: measured times come from results/train.json and
train_gangs.json; what is not measured is an assumption and is written down as one. A Fit: a step costs its share of the
compute, what does not depend on the share, the part of the ring all-reduce of the gradients that does not hide behind
the backward pass, and a fixed synchronisation; the loader may be the bottleneck. A Map: shards are dealt to workers,
the last round is as long as a whole shard.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.harness import PHOTOGRAPHS, RESULTS, write_result

COCO_TRAIN, COCO_VAL = 82_783, 40_504
GPUS = (1, 8, 64)
CORES = (2, 8, 64, 256, 1000)


@dataclass(frozen=True)
class Machine:
    """What a place can do. bytes_per_s: of one process's link to the next. hidden: share of the all-reduce behind the
    backward pass. decode_per_s: images a core decodes and crops. cores_per_process: that feed or are a process."""

    bytes_per_s: float
    sync_s: float
    hidden: float
    decode_per_s: float
    cores_per_process: int


@dataclass(frozen=True)
class FitCost:
    """A Fit. image_s: forward and backward of an image on one process. gradient_bytes: of the trained weights.
    step_s: what a step costs on every process however few its images are (optimiser, transformed weights)."""

    images: int
    batch: int
    image_s: float
    gradient_bytes: int
    step_s: float = 0.0


@dataclass(frozen=True)
class MapCost:
    """A Map. image_s: an image on one worker. shard: images in one."""

    images: int
    image_s: float
    shard: int = 500


def step_time(cost: FitCost, machine: Machine, processes: int) -> float:
    """Seconds of a step on a number of processes."""
    share = math.ceil(cost.batch / processes)
    compute = cost.step_s + share * cost.image_s
    ring = 2 * (processes - 1) / processes * cost.gradient_bytes / machine.bytes_per_s
    exchange = 0.0 if processes == 1 else ring * (1 - machine.hidden) + machine.sync_s * math.log2(processes)
    feed = share / (machine.decode_per_s * machine.cores_per_process)
    return max(compute + exchange, feed)


def fit_time(cost: FitCost, machine: Machine, size: int, *, threads: bool = False) -> float:
    """Seconds of a Fit on `size` GPUs or cores: at most a process an image of the batch; threads share the rest."""
    processes = min(size, cost.batch)
    gain = (size // processes) ** THREADS_EXPONENT if threads else 1.0
    faster = replace(cost, image_s=cost.image_s / gain)
    return cost.images / cost.batch * step_time(faster, machine, processes)


def map_time(cost: MapCost, workers: int) -> float:
    """Seconds of a Map on a number of workers."""
    shards = math.ceil(cost.images / cost.shard)
    return math.ceil(shards / workers) * cost.shard * cost.image_s


THREADS_EXPONENT = 0.85
"""n cores in one process are worth n to this power."""
GPU = Machine(bytes_per_s=20e9, sync_s=50e-6, hidden=0.7, decode_per_s=100.0, cores_per_process=8)
CPU = Machine(bytes_per_s=1e9, sync_s=1e-3, hidden=0.0, decode_per_s=100.0, cores_per_process=1)
"""A 10 Gbit/s network between CPU nodes; NVLink or 200 Gbit/s between GPUs."""

ASSUMED_IMAGE_S = {
    "classify": 2.4, "cam": 6.0, "cam_seed": 0.8, "amn": 2.6, "amn_map": 6.5, "amn_seed": 0.8,
    "irn": 1.2, "walk": 0.6, "segment": 4.0, "predict": 2.5,
}  # fmt: skip
"""Seconds an image on one core."""
EPOCHS = {"classify": 5, "amn": 5, "irn": 3}
BATCH = {"classify": 16, "amn": 16, "irn": 32}
SEGMENT_STEPS, SEGMENT_BATCH = 100_000, 10
"""As published for COCO (amn 4.1, 4.2)."""
GRADIENT_BYTES = {"classify": 94_000_000, "amn": 100_000_000, "irn": 2_000_000, "segment": 170_000_000}


def measured_cpu() -> dict[str, Any]:
    """Seconds an image and gradient bytes of the training benchmark on this machine, where it has been run."""
    path = RESULTS / "train.json"
    if not path.is_file():
        return {}
    record = json.loads(path.read_text())
    count = record["images_a_step"]
    return {
        "image_s": {
            stage: figures["engines"]["deepspeed"]["median_s"] / count * record["threads"]
            for stage, figures in record["stages"].items()
        },
    }


def prediction(kind: str, machine: Machine, sizes: tuple[int, ...], image_s: dict[str, float]) -> dict[str, Any]:
    """Hours of every stage of AMN on COCO, by number of GPUs or cores."""
    table: dict[str, Any] = {}
    for size in sizes:
        hours: dict[str, float] = {}
        for stage, seconds in image_s.items():
            if stage in EPOCHS:
                fit = FitCost(EPOCHS[stage] * COCO_TRAIN, BATCH[stage], seconds, GRADIENT_BYTES[stage])
                taken = fit_time(fit, machine, size, threads=kind == "cpu")
            elif stage == "segment":
                images = SEGMENT_STEPS * SEGMENT_BATCH
                fit = FitCost(images, SEGMENT_BATCH, seconds, GRADIENT_BYTES[stage])
                taken = fit_time(fit, machine, size, threads=kind == "cpu")
            else:
                workers = size * machine.cores_per_process if kind == "gpu" and stage.endswith("seed") else size
                taken = map_time(MapCost(COCO_VAL if stage == "predict" else COCO_TRAIN, seconds), workers)
            hours[stage] = round(taken / 3600, 3)
        table[str(size)] = {**hours, "total": round(sum(hours.values()), 2)}
    return table


def check(gangs: dict[str, Any], images: int, machine: Machine) -> dict[str, Any]:
    """Step of two processes as predicted from one (on all images, on half of them), against the measured one."""
    rows = {}
    one, half, two = gangs["one"], gangs["one on half"], gangs["two"]
    for name in ("plain", "zero0", "zero1", "zero2"):
        image_s = (one[name]["median_s"] - half[name]["median_s"]) / (images - images // 2)
        step_s = one[name]["median_s"] - images * image_s
        cost = FitCost(images, images, image_s, one["gradient_bytes"], step_s)
        predicted = step_time(cost, replace(machine, decode_per_s=1e9), 2)
        measured = two[name]["median_s"]
        rows[name] = {
            "one_s": one[name]["median_s"],
            "two_predicted_s": round(predicted, 4),
            "two_measured_s": measured,
            "off_by": round(measured / predicted - 1, 3),
        }
    return rows


def gpu_prediction(photographs: Path) -> dict[str, Any]:
    """Minutes on GPUs by counts, with all that they follow from."""
    # Its counting pretends to be a device; who asks for cores needs none of it.
    from benchmarks import clip_model, gpu_assumptions, gpu_model, gpu_times
    from benchmarks.device.stage_counts import CRF_GROUP, map_counts, published, step_counts

    config = published()
    pairs = {stage: step_counts(stage, config) for stage in gpu_assumptions.FITS}
    for name in ("cam", "amn_map", "edges", "walk", "predict", "predict with its CRF"):
        pairs[name] = map_counts(name, config)
    pairs["cam_seed"] = map_counts("cam_seed", config, group=CRF_GROUP)
    hosts = measured_hosts()
    hosts["parts"]["boxes"] = clip_model.box_host()
    tables = gpu_model.tables(gpu_plans(), pairs, hosts, GPUS)
    clip = clip_model.clip_prediction(pairs, hosts, GPUS)
    print(*gpu_model.lines(tables), *clip_model.lines(clip), sep="\n", file=sys.stderr)
    return {
        "never_run_on_a_gpu": True,
        "minutes": tables,
        "clip": {**clip, "groups": clip_model.group_fill(photographs)},
        "cases": {name: asdict(case) for name, case in gpu_assumptions.CASES.items()},
        "counts": gpu_model.counted(pairs),
        "crf_bytes": {name: [gpu_times.crf_bytes(name, case) for case in gpu_assumptions.CASES.values()]
                      for name in ("cam_seed", "predict")},
        "points_a_pixel": gpu_assumptions.POINTS,
        "hosts": hosts,
        "crops_per_s_of_16_cores": round(gpu_assumptions.CORES / hosts["parts"]["crop"]["median_ms"] * 1e3),
        "photograph_pixels": round(gpu_times.mean_pixels()),
        "parts": gpu_model.gpu_parts(gpu_plans(), pairs),
    }  # fmt: skip


def measured_hosts() -> dict[str, Any]:
    """What a host spends on an image, by part and by stream of Maps."""
    path = RESULTS / "host.json"
    if not path.is_file():
        raise SystemExit(f"{path}: found nothing, expected what a host spends; run python -m benchmarks.host first")
    record = json.loads(path.read_text())
    return {name: record[name] for name in ("parts", "streams")}


def gpu_plans() -> dict[str, Any]:
    """Steps, batch and gradients of every Fit."""
    from benchmarks.gpu_times import FitPlan

    plans = {
        stage: FitPlan(math.ceil(epochs * COCO_TRAIN / BATCH[stage]), BATCH[stage], GRADIENT_BYTES[stage])
        for stage, epochs in EPOCHS.items()
    }
    return {**plans, "segment": FitPlan(SEGMENT_STEPS, SEGMENT_BATCH, GRADIENT_BYTES["segment"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--link-gbit", type=float, default=8.0, help="between CPU processes, Gbit/s")
    parser.add_argument("--photographs", type=Path, default=PHOTOGRAPHS, help="in COCO's layout, for sizes of groups")
    parser.add_argument("--cores-alone", action="store_true", help="without GPUs, whose work takes minutes to count")
    asked = parser.parse_args()
    cpu = replace(CPU, bytes_per_s=asked.link_gbit * 1e9 / 8)
    found = measured_cpu()
    image_s = {**ASSUMED_IMAGE_S, **found.get("image_s", {})}
    record: dict[str, Any] = {
        "question": "AMN on COCO by stage, predicted: minutes on GPUs, hours on CPU cores",
        "measured": sorted(found.get("image_s", {})),
        "assumptions": {"cpu": asdict(cpu), "image_s": {"cpu": image_s}},
        "gpus": {} if asked.cores_alone else gpu_prediction(asked.photographs),
        "cores": prediction("cpu", cpu, CORES, image_s),
    }
    gangs = RESULTS / "train_gangs.json"
    if gangs.is_file():
        measured = json.loads(gangs.read_text())
        # Two processes of one machine talk through its memory.
        record["one_to_two"] = check(measured["gangs"], measured["images_a_step"], replace(cpu, bytes_per_s=2e9))
    write_result("scale", record)


if __name__ == "__main__":
    main()
