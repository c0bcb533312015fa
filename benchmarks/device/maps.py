"""CAM, AMN's maps and IRN's edges: ours batched in bf16 against the published loop of one image in float32.

Both run on the same device; the published loop is handed its resized inputs in the host's memory, ours the photographs.
Agreement is asserted in float32 without TF32; timings leave torch's defaults, as a published run would.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.device.figures import Setting, counted_flops, row, wide_range
from benchmarks.harness import race
from benchmarks.inputs import drawn_photo, drawn_seed, drawn_tags
from benchmarks.reference.published_settings import CLASSES, published_settings

SCALES = (1.0, 0.5, 1.5, 2.0)
TOLERANCE = 5e-3
"""Largest difference of two maps in [0, 1]; resizing on the device rounds a value in 10^5 to the level beside."""

Maps = list[tuple[np.ndarray, ...]]


@dataclass(frozen=True)
class Photos:
    """What both see. pairs: of every image and scale, f32[2, 3, H s, W s]. tags: f32[N, C-1]. seed: uint8[H, W]."""

    images: list[np.ndarray]
    pairs: list[list[Tensor]]
    tags: Tensor
    seed: np.ndarray

    @property
    def seeds(self) -> list[np.ndarray]:
        return [self.seed] * len(self.images)


def photos(setting: Setting, scales: Sequence[float] = SCALES) -> Photos:
    from benchmarks.reference.published_cam import pair_of

    images = [drawn_photo(n, setting.size) for n in range(setting.images)]
    pairs = [[pair_of(image, scale) for scale in scales] for image in images]
    return Photos(images, pairs, drawn_tags(len(images), CLASSES), drawn_seed(setting.size, 2))


def cam(setting: Setting) -> dict[str, Any]:
    """Classifier, four scales and their mirror images."""
    from amn_dist.models.backbones.backbone import build_backbone
    from amn_dist.models.cam import CamNet
    from amn_dist.stages.classify import images_cam
    from benchmarks.reference.published_maps import cam_maps

    seen, pixels = photos(setting), batch_pixels(setting)
    network = CamNet(build_backbone(published_settings().classify.backbone), CLASSES)

    def ours(model: Any, images: slice) -> Maps:
        tags = list(seen.tags[images].numpy())
        return [m[1:] for m in images_cam(model, seen.images[images], tags, batch_pixels=pixels)]

    def theirs(model: nn.Module, n: int) -> tuple[np.ndarray, ...]:
        return numbers(cam_maps(model, seen.pairs[n], seen.tags[n], setting.size))

    return raced(setting, network, network, ours, theirs)


def amn(setting: Setting) -> dict[str, Any]:
    """AMN, four scales and their mirror images; dropout off to compare, on to time, as published."""
    from amn_dist.models.amn import AmnNet
    from amn_dist.models.backbones.backbone import build_backbone
    from amn_dist.stages.amn import images_amn
    from benchmarks.reference.published_maps import amn_maps

    seen, pixels = photos(setting), batch_pixels(setting)
    network = AmnNet(build_backbone(published_settings().amn.backbone), CLASSES)

    def ours(model: Any, images: slice, *, timed: bool = False) -> Maps:
        chosen = seen.images[images]
        names: Any = [str(n) for n in range(len(chosen))] if timed else False
        tags = list(seen.tags[images].numpy())
        found = images_amn(model, chosen, tags, seen.seeds[images], dropout=names, batch_pixels=pixels)
        return [m[1:] for m in found]

    def theirs(model: nn.Module, n: int, *, timed: bool = False) -> tuple[np.ndarray, ...]:
        return numbers(amn_maps(model, seen.pairs[n], seen.tags[n], seen.seed, dropout=timed))

    return raced(setting, network, network, ours, theirs, timed={"timed": True})


def edges(setting: Setting) -> dict[str, Any]:
    """IRN's edges at one scale; the published network computes displacements beside them."""
    from amn_dist.models.backbones.backbone import build_backbone
    from amn_dist.models.irn import EdgeNet
    from amn_dist.stages.irn import images_edge
    from benchmarks.reference.published_displacement import PublishedIrn
    from benchmarks.reference.published_maps import edge_map

    seen = photos(setting, (1.0,))
    network = EdgeNet(build_backbone(published_settings().irn.backbone))
    published = PublishedIrn(copy.deepcopy(network))

    def ours(model: Any, images: slice) -> Maps:
        return [numbers([edge]) for edge in images_edge(model, seen.images[images], pad=None)]

    def theirs(model: nn.Module, n: int) -> tuple[np.ndarray, ...]:
        return numbers([edge_map(model, seen.pairs[n][0])])

    return raced(setting, network, published, ours, theirs)


def raced(
    setting: Setting,
    network: nn.Module,
    published: nn.Module,
    ours: Callable[..., Maps],
    theirs: Callable[..., tuple[np.ndarray, ...]],
    *,
    timed: dict[str, bool] | None = None,
) -> dict[str, Any]:
    """Compare on the first image, then race all images."""
    from amn_dist.models.inference import prepare

    options, count = timed or {}, setting.images
    plain = published.eval().requires_grad_(False).to(setting.device)
    # Before timing settles: what follows runs with torch's own defaults again.
    kept = torch.backends.cudnn.allow_tf32
    wide_range()
    expected = theirs(plain, 0)
    (exact,) = ours(prepare(copy.deepcopy(network), setting.device), slice(0, 1))
    torch.backends.cudnn.allow_tf32 = kept
    difference = largest_difference(exact, expected)
    assert difference < TOLERANCE, f"maps differ by {difference} in float32"
    half = prepare(copy.deepcopy(network), setting.device, precision=torch.bfloat16)
    flops = counted_flops(lambda: theirs(plain, 0))
    timings = race(
        {
            "published": lambda: [theirs(plain, n, **options) for n in range(count)],
            "ours": lambda: ours(half, slice(0, count), **options),
        },
        rounds=max(setting.rounds - 2, 1),
        warmup=1,
    )
    return {
        "largest_difference": difference,
        "mean_difference_bf16": mean_difference(ours(half, slice(0, 1))[0], expected),
        "published": row(timings["published"], count, flops=flops),
        "ours": row(timings["ours"], count, flops=flops, half=True),
        "ratio": round(timings["published"].median / timings["ours"].median, 2),
        "tf32_convolutions": kept,
    }


def batch_pixels(setting: Setting) -> int:
    from amn_dist.models.inference import ACCELERATOR_PIXELS

    return 1 if setting.device == "cpu" else ACCELERATOR_PIXELS


def numbers(maps: Sequence[Tensor]) -> tuple[np.ndarray, ...]:
    """Maps in the host's memory."""
    return tuple(one.float().cpu().numpy() for one in maps)


def largest_difference(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    return max(float(np.abs(one - other).max()) for one, other in zip(found, expected, strict=True))


def mean_difference(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    return max(float(np.abs(one - other).mean()) for one, other in zip(found, expected, strict=True))
