"""How long would CLIP's maps and seeds of COCO's training set take on GPUs? The model of counts, with those of CLIP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from amn_dist.loaders.grouping import WINDOW
from amn_dist.models.inference import ACCELERATOR_PIXELS
from amn_dist.ops.clip.refine import box_masks
from benchmarks import gpu_model
from benchmarks.device.stage_counts import TAGS, Pair, map_counts, published
from benchmarks.gpu_assumptions import CASES
from benchmarks.gpu_times import Hosts, crf_bytes
from benchmarks.host_costs import core_ms

STAGES = ("clip_map", "clip_seed")
TARGET_MIN = 12
"""Both, on one GPU with its 16 cores."""
GROUP = 4
"""Photographs that are counted together; a further one adds what one of these does."""
BOX, PATCHES, PATCH = 0.7, (30, 40), 16


def clip_prediction(pairs: dict[str, Pair], hosts: Hosts, gpus: tuple[int, ...]) -> dict[str, Any]:
    """Minutes by number of GPUs and case, and what they follow from. pairs: with cam_seed, whose launches a seed has.

    hosts: with the part `boxes`.
    """
    found = {"clip_map": map_counts("clip_map", published(), group=GROUP)}
    counts = {**pairs, **found}
    minutes: dict[str, Any] = {}
    for number in gpus:
        by_case = {
            name: [gpu_model.stage_row(one, {}, counts, hosts, number, case) for one in STAGES]
            for name, case in CASES.items()
        }
        minutes[str(number)] = {
            name: {**dict(zip(STAGES, rows, strict=True)), "both_min": round(sum(row["minutes"] for row in rows), 1)}
            for name, rows in by_case.items()
        }
    return {
        "minutes": minutes,
        "target_min": TARGET_MIN,
        "counts": gpu_model.counted(found),
        "crf_bytes": crf_bytes("clip_seed", CASES["low"]),
    }


def group_fill(photographs: Path, *, windows: int = 200, window: int = WINDOW) -> dict[str, Any]:
    """Photographs of a group in the mean, and padding a patch, by how windows of COCO's sizes are grouped.

    By their grids; or by their number of patches, rounded up, with padding behind the shorter. photographs: in COCO's
    layout; windows are drawn from their sizes.
    """
    grids = [grid_of(file) for file in sorted(photographs.glob("*2014/*.jpg"))]
    random = np.random.default_rng(0)
    drawn = [[grids[place] for place in random.choice(len(grids), window)] for _ in range(windows)]
    kinds: dict[str, Callable[[tuple[int, int]], Any]] = {"by_grid": lambda grid: grid}
    kinds |= {f"padded_to_{step}": lambda grid, step=step: -(-prod(grid) // step) for step in (64, 128, 256)}
    filled = {name: _fill(drawn, kind) for name, kind in kinds.items()}
    return {"photographs": len(grids), "grids": len(set(grids)), **filled}


def grid_of(file: Path) -> tuple[int, int]:
    """Patches (h, w) of a photograph."""
    with Image.open(file) as photo:
        return -(-photo.height // PATCH), -(-photo.width // PATCH)


def _fill(windows: list[list[tuple[int, int]]], kind: Callable[[tuple[int, int]], Any]) -> dict[str, float]:
    groups = [group for grids in windows for group in _groups(grids, kind)]
    number, patches = sum(map(len, groups)), sum(map(sum, groups))
    held = sum(max(group) * len(group) for group in groups)
    return {"photographs_a_group": round(number / len(groups), 2), "padding": round(held / patches - 1, 4)}


def _groups(grids: list[tuple[int, int]], kind: Callable[[tuple[int, int]], Any]) -> Iterator[list[int]]:
    """Patches of the photographs of each group of a window."""
    for _, alike in groupby(sorted(grids, key=kind), key=kind):
        patches = sorted(map(prod, alike))
        most = max(ACCELERATOR_PIXELS // (patches[-1] * PATCH**2), 1)
        yield from (patches[start : start + most] for start in range(0, len(patches), most))


def box_host(images: int = 96, rounds: int = 5) -> dict[str, Any]:
    """Core-milliseconds that the boxes of an image's maps take on the host."""
    noise = torch.rand(images * TAGS, 1, 6, 8, generator=torch.Generator().manual_seed(0))
    maps = functional.interpolate(noise, size=PATCHES, mode="bicubic")[:, 0].clamp(0, 1).numpy()
    maps = np.ascontiguousarray(maps / maps.max((1, 2), keepdims=True))
    return core_ms(lambda: box_masks(maps, BOX), images, rounds)


def lines(found: dict[str, Any]) -> list[str]:
    """The table as text."""
    said = []
    for gpus, row in found["minutes"].items():
        for stage in STAGES:
            low, high = (row[case][stage] for case in ("low", "high"))
            bounds = " / ".join(dict.fromkeys((low["bound"], high["bound"])))
            said.append(f"  {stage:10s} {low['minutes']:7.1f} - {high['minutes']:7.1f}  {gpus} GPU(s), {bounds}")
    return said
