"""How long would AMN on COCO take on GPUs? A model of counts: nothing in it has been run on one.

Operations, bytes and launches of every stage are counted on tensors without values (device/stage_counts.py); what a
host spends on an image is measured (host.py); what a device, a link and a start are worth is assumed, twice: a kind and
a harsh case (gpu_assumptions.py). How time follows is in gpu_times.py; here are the tables.
"""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import torch

from amn_dist.farms.stream import TOGETHER
from benchmarks.coco_like import TRAIN, VAL
from benchmarks.device.counting import Counts
from benchmarks.device.stage_counts import Pair
from benchmarks.gpu_assumptions import CASES, FITS, MASKS, STREAMS, TARGETS_MIN, Case
from benchmarks.gpu_times import FitPlan, Hosts, crf_bytes, image, of_number, step


def stage_row(
    stage: str, plans: dict[str, FitPlan], pairs: dict[str, Pair], hosts: Hosts, gpus: int, case: Case
) -> dict[str, Any]:
    """Minutes of a stage, its start among them, and what bounds it."""
    if stage in FITS:
        spent, times = step(stage, plans[stage], pairs[stage], hosts, gpus, case), plans[stage].steps
    else:
        spent = image(stage, pairs, hosts, case)
        images = VAL if stage == "predict" else TRAIN
        times = math.ceil(math.ceil(images / TOGETHER) / gpus) * TOGETHER
    start = 0.0 if stage in STREAMS else case.start_s
    seconds = times * spent.total
    parts = {name: round(times * value / 60, 2) for name, value in asdict(spent).items() if value}
    bound = spent.bound if seconds > start else "starting"
    return {"minutes": round((seconds + start) / 60, 2), "bound": bound, "minutes_by": parts}


def tables(plans: dict[str, FitPlan], pairs: dict[str, Pair], hosts: Hosts, gpus: tuple[int, ...]) -> Any:
    """By number of GPUs and case: every stage, masks and all."""
    found: dict[str, Any] = {}
    for number in gpus:
        by_case = {}
        for name, case in CASES.items():
            rows = {
                stage: stage_row(stage, plans, pairs, hosts, number, case) for stage in (*MASKS, "segment", "predict")
            }
            minutes = {stage: row["minutes"] for stage, row in rows.items()}
            masks, everything = sum(minutes[stage] for stage in MASKS), sum(minutes.values())
            by_case[name] = {"stages": rows, "masks_min": round(masks, 1), "all_min": round(everything, 1)}
        found[str(number)] = {**by_case, "target_min": TARGETS_MIN.get(number)}
    return found


def lines(found: dict[str, Any]) -> list[str]:
    """The table as text: minutes low-high and what bounds each, by stage; totals beside targets."""
    said = []
    for gpus, row in found.items():
        said.append(f"{gpus} GPU(s), minutes by a model of counts")
        for stage, low in row["low"]["stages"].items():
            high = row["high"]["stages"][stage]
            bounds = " / ".join(dict.fromkeys((low["bound"], high["bound"])))
            said.append(f"  {stage:10s} {low['minutes']:7.1f} - {high['minutes']:7.1f}  {bounds}")
        for key, name in (("masks_min", "masks"), ("all_min", "all")):
            target = f", target {row['target_min'][name]}" if row["target_min"] else ""
            said.append(f"  {name:10s} {row['low'][key]:7.1f} - {row['high'][key]:7.1f}{target}")
    return said


def counted(pairs: dict[str, Pair]) -> dict[str, Any]:
    """What was counted, a unit (a step's image, a photograph of 640x480) in its batch or group."""
    return {
        name: {
            "together": pair.number,
            "gflop": round(pair.many.flops / pair.number / 1e9, 2),
            "gflop_float32": round(_flops_of(pair.many, torch.float32) / pair.number / 1e9, 2),
            "gigabytes": round(pair.many.moved / pair.number / 1e9, 3),
            "launches_together": pair.many.launches,
            "launches_alone": pair.one.launches,
        }
        for name, pair in pairs.items()
    }


def _flops_of(counts: Counts, kind: torch.dtype) -> float:
    return sum(kernel.flops for kernel in counts.kernels if kernel.kind == kind)


def gpu_parts(plans: dict[str, FitPlan], pairs: dict[str, Pair], images: int = 16) -> dict[str, dict[str, Any]]:
    """Seconds an image, low and high, of what benchmarks/gpu.sh measures: part, row, seconds.

    Its photographs lie in the host's memory, all of 640x480; nothing is decoded, and its CRFs are seeds' pairs.
    """
    found: dict[str, dict[str, Any]] = {}
    for part, name in {"cam": "cam", "amn": "amn_map", "edges": "edges"}.items():
        found[part] = {"ours": [of_number(pairs[name], images, case).device / images for case in CASES.values()]}
    for stage in FITS:
        seconds = [of_number(pairs[stage], plans[stage].batch, case).device for case in CASES.values()]
        found[f"step_{stage}"] = {"bf16": [one / plans[stage].batch for one in seconds]}
    crf = [crf_bytes("cam_seed", case) / case.lattice_bytes_per_s for case in CASES.values()]
    found["crf"] = {"device": crf}
    return {
        part: {row: [round(one, 7) for one in seconds] for row, seconds in rows.items()} for part, rows in found.items()
    }
