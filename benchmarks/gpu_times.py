"""Seconds of a training step and of an image of a Map on GPUs, by counts of kernels and what a host was measured to do.

The kernels of a stream run one after the other, so a stage's time on the device is the sum over its kernels of the
longer of operations and bytes; or that of launching them, with all that the launching thread does besides. Training
also waits for the part of the gradients' exchange that nothing hides. The host works beside: the slowest decides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from amn_dist.config import Loader
from amn_dist.farms.stream import ENCODERS, JOINERS, TOGETHER
from amn_dist.loaders.decode import image_threads
from benchmarks.coco_like import SIZES
from benchmarks.device.counting import Counts
from benchmarks.device.crfs import moved_bytes
from benchmarks.device.stage_counts import GROUP, SIZE, TAGS, Pair
from benchmarks.gpu_assumptions import CORES, FIT_PARTS, HOST_AS, NODE, POINTS, STREAMS, WAITED, Case

Hosts = dict[str, dict[str, Any]]
"""What a host spends (results/host.json): `parts` of an image, and `streams` of Maps by kind of thread."""


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


def step(stage: str, plan: FitPlan, pair: Pair, hosts: Hosts, gpus: int, case: Case) -> Spent:
    """A training step on as many of the GPUs as make it shortest; on no more than it has images."""
    most = min(gpus, plan.batch)
    tried = {most, *(2**power for power in range(most.bit_length()))}
    return min((step_of(stage, plan, pair, hosts, number, case) for number in sorted(tried)), key=lambda s: s.total)


def step_of(stage: str, plan: FitPlan, pair: Pair, hosts: Hosts, processes: int, case: Case) -> Spent:
    """A training step of so many processes, a GPU each."""
    share = math.ceil(plan.batch / processes)
    spent = of_number(pair, share, case)
    link = case.node_link if processes <= NODE else case.far_link
    ring = 2 * (processes - 1) / processes * plan.gradient_bytes / link
    waited = (1 - case.hidden) * ring + case.sync_s * math.log2(processes)
    work_ms = sum(hosts["parts"][part]["median_ms"] for part in FIT_PARTS)
    host = share * case.host * work_ms / 1e3 / case.cores
    return Spent(spent.operations, spent.bytes, spent.launches, waited, host)


def image(stage: str, pairs: dict[str, Pair], hosts: Hosts, case: Case) -> Spent:
    """A photograph of COCO's mix of sizes in a Map, in chunks that are grouped by size as farms do."""
    pixels = mean_pixels() / (SIZE[0] * SIZE[1])
    pair = pairs["cam_seed" if stage in STREAMS else stage]
    moved = operations = 0.0
    if stage not in STREAMS:
        spent = of_number(pair, pair.number, case)
        operations, moved = (pixels / pair.number * value for value in (spent.operations, spent.bytes))
    if stage in (*STREAMS, "predict"):
        moved += pixels * crf_bytes(stage, case) / case.lattice_bytes_per_s
    launching = pairs["predict with its CRF"] if stage == "predict" else pair
    numbers = [pair.number] * (TOGETHER // pair.number) if stage in STREAMS else group_sizes()
    launches = sum(of_number(launching, number, case).launches for number in numbers) / sum(numbers)
    spent_s = {kind: case.host * spent_ms / 1e3 for kind, spent_ms in of_host(stage, hosts).items()}
    launches += spent_s["own"]
    all_cores = (spent_s["all"] - spent_s["own"] + launches) / case.cores
    host = max(all_cores, spent_s["encoding"] / ENCODERS, spent_s["joining"] / JOINERS, spent_s["reading"])
    waited = case.host * hosts["parts"][WAITED[stage]]["median_ms"] / 1e3 if stage in WAITED else 0.0
    return Spent(operations, moved, launches, waited, host, spent_s["decoding"] / image_threads(Loader(), CORES))


def of_host(stage: str, hosts: Hosts) -> dict[str, float]:
    """Core-milliseconds of an image in a Map, by kind of thread; of a seed, what it adds to the Map before."""
    stage = HOST_AS.get(stage, stage)
    whole = hosts["streams"][f"{STREAMS[stage]}+{stage}" if stage in STREAMS else stage]
    before = hosts["streams"][STREAMS[stage]] if stage in STREAMS else {}
    spent = {kind: row["median_ms"] - before.get(kind, {"median_ms": 0.0})["median_ms"] for kind, row in whole.items()}
    return {kind: max(spent_ms, 0.0) for kind, spent_ms in spent.items()}


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
