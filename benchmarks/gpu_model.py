"""How long would AMN on COCO take on GPUs? A model of counts: nothing in it has been run on one.

Operations, bytes and launches of every stage are counted on tensors without values (device/stage_counts.py); what a
host spends on an image is measured (host_costs.py); what a device, a link and a start are worth is assumed, twice: a
kind and a harsh case. The kernels of a stream run one after the other, so a stage's time on the device is the sum over
its kernels of the longer of operations and bytes; or that of launching them, if the host is slower. Training also
waits for the part of the gradients' exchange that nothing hides. The host works beside: the slowest decides.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

from amn_dist.farms.stream import ENCODERS, TOGETHER
from amn_dist.loaders.decode import FEW_THREADS
from benchmarks.coco_like import SIZES, TRAIN, VAL
from benchmarks.device.counting import Counts
from benchmarks.device.crfs import moved_bytes
from benchmarks.device.stage_counts import GROUP, SIZE, TAGS, Pair

FITS = ("classify", "amn", "irn", "segment")
MAPS = ("cam", "cam_seed", "amn_map", "amn_seed", "walk", "predict")
MASKS = ("classify", "cam", "cam_seed", "amn", "amn_map", "amn_seed", "irn", "walk")
STREAMS = ("cam_seed", "amn_seed", "clip_seed")
"""Maps that go on with the chunks of the Map before, where they lie: they start nothing and decode nothing."""
CORES = 16
"""Of a host, for each of its GPUs."""
NODE = 8
"""GPUs that one machine holds."""
TARGETS_MIN = {1: {"masks": 60, "all": 180}, 8: {"masks": 12, "all": 35}}
HOST_WORK: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(FITS, ("read", "crop")),
    "cam": ("read", "photo", "maps_f16"),
    "amn_map": ("read", "read", "photo", "maps_f16"),
    "clip_map": ("read", "photo", "maps_f16"),
    "walk": ("read", "read", "photo", "labels_png"),
    "predict": ("read", "photo", "labels_png", "labels_png"),
    **dict.fromkeys(STREAMS, ("labels_png",)),
}
ENCODING = ("maps_f16", "labels_png")
WAITED = {"clip_map": "boxes"}
"""Work of the host that the device waits for: CLIP's maps go on when their boxes are there."""
POINTS = {"seed": (0.130, 0.832), "deeplab": (1.156, 1.377)}
"""Lattice points a pixel, over positions and colours, in the mean of 20 photographs of COCO at the stages' kernels."""


@dataclass(frozen=True)
class Case:
    """What is assumed of an H200 and its host. Rates are those reached, a second. flops: by type."""

    bf16: float
    fp32: float
    fp64: float
    bytes_per_s: float
    lattice_bytes_per_s: float
    """Of a CRF, whose accesses are scattered."""
    launch_s: float
    node_link: float
    far_link: float
    """Bytes a second of a GPU's link inside a machine and between machines."""
    hidden: float
    """Share of the gradients' exchange behind the backward pass."""
    sync_s: float
    host: float
    """Of the core-milliseconds measured here."""
    python_ms: float
    """Core-milliseconds a Map's own thread spends on an image."""
    cores: int
    """That are free for this, of the 16 of a GPU."""
    labels: int
    """Of 81 that compete in a prediction's CRF."""
    start_s: float
    """Until a stage's processes have what they need."""

    def flops(self, kind: torch.dtype) -> float:
        half = {torch.bfloat16: self.bf16, torch.float16: self.bf16}
        return {**half, torch.float64: self.fp64}.get(kind, self.fp32)


CASES = {
    "low": Case(bf16=0.55 * 790e12, fp32=0.8 * 67e12, fp64=0.6 * 67e12, bytes_per_s=0.9 * 4.3e12,
                lattice_bytes_per_s=0.6 * 4.3e12, launch_s=4e-6, node_link=300e9, far_link=40e9, hidden=0.7,
                sync_s=50e-6, host=0.52, python_ms=0.5, cores=15, labels=6, start_s=15),
    "high": Case(bf16=0.35 * 790e12, fp32=0.5 * 67e12, fp64=0.3 * 67e12, bytes_per_s=0.6 * 4.3e12,
                 lattice_bytes_per_s=0.2 * 4.3e12, launch_s=8e-6, node_link=100e9, far_link=20e9, hidden=0.0,
                 sync_s=200e-6, host=1.0, python_ms=2.0, cores=10, labels=20, start_s=45),
}  # fmt: skip
"""bf16: 35 to 55 % of 790 TFLOP/s; float32 without TF32, float64: of 67; bytes: of 4.3 TB/s. host: a core as measured
here, or that of results/decode.json, which does a crop in 6.9 ms."""


@dataclass(frozen=True)
class FitPlan:
    """A Fit of a run. gradient_bytes: of the weights it trains."""

    steps: int
    batch: int
    gradient_bytes: int


@dataclass(frozen=True)
class Spent:
    """Seconds by what spends them."""

    operations: float
    bytes: float
    launches: float
    link: float = 0.0
    """Of the exchange of gradients; in a Map, for what its host finds out."""
    host: float = 0.0
    decoding: float = 0.0
    """By the few threads that a Map decodes with."""

    @property
    def device(self) -> float:
        return max(self.operations + self.bytes, self.launches) + self.link

    @property
    def total(self) -> float:
        return max(self.device, self.host, self.decoding)

    @property
    def bound(self) -> str:
        """What the total would fall with first."""
        if self.total > self.device:
            return "host cores" if self.host >= self.decoding else "decode threads"
        busy = {"operations": self.operations, "bytes": self.bytes, "link": self.link}
        if self.launches > self.operations + self.bytes:
            busy = {"launches": self.launches, "link": self.link}
        return max(busy, key=lambda name: busy[name])


def on_device(counts: Counts, case: Case) -> Spent:
    """Seconds of kernels, one after the other."""
    operations = moved = 0.0
    for kernel in counts.kernels:
        compute, carry = kernel.flops / case.flops(kernel.kind), kernel.moved / case.bytes_per_s
        operations, moved = (operations + compute, moved) if compute > carry else (operations, moved + carry)
    return Spent(operations, moved, counts.launches * case.launch_s)


def of_number(pair: Pair, number: float, case: Case) -> Spent:
    """Seconds of so many units together, on the line through one and many."""
    one, many = on_device(pair.one, case), on_device(pair.many, case)
    share = (number - 1) / (pair.number - 1)

    def between(name: str) -> float:
        return float(getattr(one, name) + share * (getattr(many, name) - getattr(one, name)))

    return Spent(between("operations"), between("bytes"), between("launches"))


def step(stage: str, plan: FitPlan, pair: Pair, host_ms: dict[str, float], gpus: int, case: Case) -> Spent:
    """A training step on as many of the GPUs as make it shortest; on no more than it has images."""
    most = min(gpus, plan.batch)
    tried = {most, *(2**power for power in range(most.bit_length()))}
    return min((step_of(stage, plan, pair, host_ms, number, case) for number in sorted(tried)), key=lambda s: s.total)


def step_of(stage: str, plan: FitPlan, pair: Pair, host_ms: dict[str, float], processes: int, case: Case) -> Spent:
    """A training step of so many processes, a GPU each."""
    share = math.ceil(plan.batch / processes)
    spent = of_number(pair, share, case)
    link = case.node_link if processes <= NODE else case.far_link
    ring = 2 * (processes - 1) / processes * plan.gradient_bytes / link
    waited = (1 - case.hidden) * ring + case.sync_s * math.log2(processes)
    host = share * case.host * sum(host_ms[work] for work in HOST_WORK[stage]) / 1e3 / case.cores
    return Spent(spent.operations, spent.bytes, spent.launches, waited, host)


def image(stage: str, pairs: dict[str, Pair], host_ms: dict[str, float], case: Case) -> Spent:
    """A photograph of COCO's mix of sizes in a Map, in chunks that are grouped by size as farms do."""
    pixels = mean_pixels() / (SIZE[0] * SIZE[1])
    name = "cam_seed" if stage in STREAMS else stage
    pair = pairs[name]
    moved = operations = 0.0
    if stage not in STREAMS:
        spent = of_number(pair, pair.number, case)
        operations, moved = (pixels / pair.number * value for value in (spent.operations, spent.bytes))
    if stage in (*STREAMS, "predict"):
        moved += pixels * crf_bytes(stage, case) / case.lattice_bytes_per_s
    launching = pairs["predict with its CRF"] if stage == "predict" else pair
    numbers = [pair.number] * (TOGETHER // pair.number) if stage in STREAMS else group_sizes()
    launches = sum(of_number(launching, number, case).launches for number in numbers) / sum(numbers)
    python = case.python_ms / (4 if stage in STREAMS else 1)
    work = [case.host * host_ms[name] for name in HOST_WORK[stage]]
    coding = sum(case.host * host_ms[name] for name in HOST_WORK[stage] if name in ENCODING)
    host = max((sum(work) + python) / case.cores, coding / ENCODERS, python) / 1e3
    decoding = case.host * host_ms["photo"] / FEW_THREADS / 1e3 if "photo" in HOST_WORK[stage] else 0.0
    waited = case.host * host_ms[WAITED[stage]] / 1e3 if stage in WAITED else 0.0
    return Spent(operations, moved, launches, waited, host, decoding)


def crf_bytes(stage: str, case: Case) -> int:
    """Bytes of the CRFs of a 640x480 photograph: two thresholds of three labels, or one over those that compete, or
    over three tags and the background."""
    labelled = {"predict": case.labels, "clip_seed": TAGS + 1}
    kind, groups, labels = ("deeplab", 1, labelled[stage]) if stage in labelled else ("seed", 2, 3)
    flat, coloured = (round(share * SIZE[0] * SIZE[1]) for share in POINTS[kind])
    return sum(moved_bytes(SIZE, (flat, coloured), groups=groups, labels=labels, iterations=10).values())


def mean_pixels() -> float:
    """Of a photograph of COCO."""
    return sum(width * height * share for (width, height), share in SIZES.items()) / sum(SIZES.values())


def group_sizes() -> list[float]:
    """Photographs of every group that a chunk of COCO's mix falls into; means, not whole numbers."""
    found: list[float] = []
    for (width, height), share in SIZES.items():
        number = TOGETHER * share / sum(SIZES.values())
        groups = max(math.ceil(number / (GROUP * SIZE[0] * SIZE[1] // (width * height))), 1)
        found += [number / groups] * groups
    return found


def stage_row(
    stage: str, plans: dict[str, FitPlan], pairs: dict[str, Pair], host_ms: dict[str, float], gpus: int, case: Case
) -> dict[str, Any]:
    """Minutes of a stage, its start among them, and what bounds it."""
    if stage in FITS:
        spent, times = step(stage, plans[stage], pairs[stage], host_ms, gpus, case), plans[stage].steps
    else:
        spent = image(stage, pairs, host_ms, case)
        images = VAL if stage == "predict" else TRAIN
        times = math.ceil(math.ceil(images / TOGETHER) / gpus) * TOGETHER
    start = 0.0 if stage in STREAMS else case.start_s
    seconds = times * spent.total
    parts = {name: round(times * value / 60, 2) for name, value in asdict(spent).items() if value}
    bound = spent.bound if seconds > start else "starting"
    return {"minutes": round((seconds + start) / 60, 2), "bound": bound, "minutes_by": parts}


def tables(plans: dict[str, FitPlan], pairs: dict[str, Pair], host_ms: dict[str, float], gpus: tuple[int, ...]) -> Any:
    """By number of GPUs and case: every stage, masks and all."""
    found: dict[str, Any] = {}
    for number in gpus:
        by_case = {}
        for name, case in CASES.items():
            rows = {
                stage: stage_row(stage, plans, pairs, host_ms, number, case) for stage in (*MASKS, "segment", "predict")
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
