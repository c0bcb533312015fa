"""The fixtures of dense CRFs: scenes drawn, answered by pydensecrf inside a plain transcription of the published steps.

`python -m tests.golden.make_crf [FOLDER]`, in the project's root, draws and answers all of them. Nothing of amn_dist is
called, so that the package is compared with numbers of another. B, C, K, H, W, h, w as in docs/method.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydensecrf.densecrf import DenseCRF2D
from pydensecrf.utils import unary_from_labels, unary_from_softmax
from scipy.ndimage import gaussian_filter
from torch.nn import functional

from data_shards.backdrop import smooth_noise
from data_shards.scenes import Scene, draw_scene

Arrays = dict[str, np.ndarray]
Meta = dict[str, Any]

SEED = 11
"""Of the scenes and of everything drawn around them."""
VOC_CLASSES = 21
SPREAD = 3
"""Scene class k stands for VOC's class 3 k + 1, so that no position in a list passes for an id."""
MEAN_BGR = (104.008, 116.669, 122.675)
"""DeepLab's mean colour."""
TINY = 1e-5


@dataclass(frozen=True, slots=True)
class Case:
    """A fixture. scene: its number. size: range of both sides, pixels. draw: the inputs. answer: inputs to outputs."""

    scene: int
    size: tuple[int, int]
    draw: Callable[[Scene, np.random.Generator, Meta], Arrays]
    answer: Callable[[Arrays, Meta], Arrays]
    meta: Meta


def refine(image: np.ndarray, unary: np.ndarray, near: Meta, alike: Meta, iterations: int = 10) -> np.ndarray:
    """Marginals f32[C, H, W] of pydensecrf for unaries f32[C, H*W]. near, alike: its two pairwise terms."""
    height, width = image.shape[:2]
    field = DenseCRF2D(width, height, len(unary))
    field.setUnaryEnergy(np.ascontiguousarray(unary, np.float32))
    field.addPairwiseGaussian(**near)
    field.addPairwiseBilateral(**alike, rgbim=np.ascontiguousarray(image))
    return np.array(field.inference(iterations), np.float32).reshape(-1, height, width)


def refine_labels(image: np.ndarray, labels: np.ndarray, count: int, iterations: int = 10) -> np.ndarray:
    """Marginals f32[C, H, W] behind decided labels of which each is 0.7 certain (amn 6)."""
    unary = unary_from_labels(labels, count, gt_prob=0.7, zero_unsure=False)
    return refine(image, unary, {"sxy": 3, "compat": 3}, {"sxy": 50, "srgb": 5, "compat": 10}, iterations=iterations)


def answer_marginals(arrays: Arrays, meta: Meta) -> Arrays:
    """Unary and marginals after each number of iterations."""
    image, labels, count = arrays["in_image"], arrays["in_labels"], meta["n_labels"]
    unary = unary_from_labels(labels, count, gt_prob=0.7, zero_unsure=False)
    found = {f"out_q_t{n}": refine_labels(image, labels, count, n) for n in meta["iterations"]}
    last = found[f"out_q_t{meta['iterations'][-1]}"].argmax(0).astype(np.uint8)
    return {"out_unary": unary, **found, f"out_argmax_t{meta['iterations'][-1]}": last}


def answer_seed(arrays: Arrays, meta: Meta) -> Arrays:
    """Two thresholds, a CRF behind each, and what both together decide (amn 1.3)."""
    maps = arrays["in_maps_u8"].astype(np.float32) / np.float32(255)
    maps = maps[1:] if meta["kind"] == "amn" else maps
    found: Arrays = {}
    for kind in ("fg", "bg"):
        threshold = np.full_like(maps[:1], meta[f"t_{kind}"])
        labels = np.concatenate([threshold, maps]).argmax(0)
        found[f"out_{kind}_argmax"] = labels.astype(np.uint8)
        marginals = refine_labels(arrays["in_image"], labels, len(maps) + 1)
        found[f"out_{kind}_crf"] = marginals.argmax(0).astype(np.uint8)
    ids = np.array([0, *(arrays["in_keys"] + 1)], np.uint8)
    claimed, cleared = ids[found["out_fg_crf"]], found["out_bg_crf"] == 0
    seed = np.full(cleared.shape, 255, np.uint8)
    seed[cleared] = 0
    seed[claimed > 0] = claimed[claimed > 0]
    return {**found, "out_seed": seed}


def answer_deeplab(arrays: Arrays, meta: Meta) -> Arrays:
    """DeepLab's CRF over the image as published (less its mean, wrapped around 0) and over the plain one (amn 6)."""
    bgr = arrays["in_image_rgb"][..., ::-1]
    logits = torch.from_numpy(arrays["in_logit"])[None]
    fine = functional.interpolate(logits, size=bgr.shape[:2], mode="bilinear", align_corners=False)
    unary = unary_from_softmax(fine.softmax(1)[0].numpy())
    less = bgr.astype(np.float32) - np.array(MEAN_BGR, np.float32)
    wrapped = np.trunc(less).astype(np.int64).astype(np.uint8)
    term = partial(refine, near={"sxy": 1, "compat": 3}, alike={"sxy": 67, "srgb": 3, "compat": 4})
    marginals, plain = term(wrapped, unary), term(bgr, unary)
    return {
        "out_wrapped_image": wrapped,
        "out_label_wrapped": marginals.argmax(0).astype(np.uint8),
        "out_label_plain_bgr": plain.argmax(0).astype(np.uint8),
        "out_q_wrapped": marginals,
    }


def answer_signed(arrays: Arrays, meta: Meta) -> Arrays:
    """ICD's seed, by sign alone and behind the CRF over all classes (icd 5.1, 5.3)."""
    labels = signed_labels(arrays, meta["infer_size"])
    certain = np.float32(meta["confidence"])
    shares = np.full((VOC_CLASSES, *labels.shape), certain / np.float32(VOC_CLASSES), np.float32)
    shares[np.arange(VOC_CLASSES)[:, None, None] == labels] = certain
    shares[:, labels == 255] = 1 / np.float32(VOC_CLASSES)
    unary = unary_from_softmax(shares / shares.sum(0))
    marginals = refine(arrays["in_image"], unary, {"sxy": 3, "compat": 3}, {"sxy": 80, "srgb": 13, "compat": 10})
    refined = marginals.argmax(0).astype(np.uint8)
    refined[marginals.max(0) < 0.1] = 255
    return {"out_seed_pre_crf": labels, "out_seed_crf": refined, "out_unary_values": np.unique(unary)}


def signed_labels(arrays: Arrays, canvas: int) -> np.ndarray:
    """Labels uint8[H, W] that the signs of the maps decide, 255 where they do not (icd 5.1)."""
    height, width = arrays["in_image"].shape[:2]
    signed, cam = (enlarged(arrays[name], canvas)[:, :height, :width] for name in ("in_icd", "in_cam"))
    inside, outside = share_of_peak(signed), share_of_peak(-signed)
    seen = np.maximum(cam, 0)
    product = (seen - seen.min()) / max(np.ptp(seen), TINY) * inside
    foreground = (inside > TINY).any(0)
    background = (outside > TINY).all(0)
    ids = (arrays["in_classes"] + 1).astype(np.uint8)
    labels = np.where(foreground, ids[product.argmax(0)], np.uint8(0))
    contested = foreground & (np.ptp(product, axis=0) <= TINY) if len(ids) > 1 else np.zeros_like(foreground)
    return np.where((foreground == background) | contested, np.uint8(255), labels)


def share_of_peak(maps: np.ndarray) -> np.ndarray:
    """Positive part of each map f32[K, H, W] over its peak."""
    positive = np.maximum(maps, 0)
    return positive / np.maximum(positive.max((1, 2), keepdims=True), TINY)


def enlarged(maps: np.ndarray, side: int) -> np.ndarray:
    """Maps f32[K, h, w] resized bilinearly to [K, side, side], corners not aligned."""
    for axis in (1, 2):
        length = maps.shape[axis]
        at = np.clip((np.arange(side) + 0.5) * length / side - 0.5, 0, length - 1)
        low = np.minimum(at.astype(int), length - 2)
        share = (at - low).astype(np.float32).reshape([-1 if dim == axis else 1 for dim in range(3)])
        maps = np.take(maps, low, axis) * (1 - share) + np.take(maps, low + 1, axis) * share
    return maps


def evidence(ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Maps f64[K, H, W] up to 1 as classifiers make them: blurred, uneven over an object, with false alarms."""
    height, width = ids.shape
    side = min(height, width)
    maps = []
    for kind in np.unique(ids[ids > 0]):
        body = gaussian_filter((ids == kind).astype(np.float64), side / 14)
        uneven = 0.7 + 0.3 * smooth_noise(height, width, side / 3, rng)
        alarms = (smooth_noise(height, width, side / 4, rng) - 0.3).clip(0) * 0.7
        maps.append(np.maximum(body * uneven, alarms) + rng.normal(0, 0.01, ids.shape))
    return np.stack([(found / found.max()).clip(0) for found in maps])


def classes_of(scene: Scene) -> np.ndarray:
    """VOC's classes, from 0 without background, that the scene's stand for, int64[K]."""
    return (np.unique(scene.ids[scene.ids > 0]).astype(np.int64) - 1) * SPREAD


def draw_labels(scene: Scene, rng: np.random.Generator, meta: Meta) -> Arrays:
    """The image and decided labels of background and every class in it."""
    maps = evidence(scene.ids, rng)
    labels = np.concatenate([np.full_like(maps[:1], 0.3), maps]).argmax(0)
    return {"in_image": scene.image, "in_labels": labels.astype(np.uint8)}


def draw_maps(scene: Scene, rng: np.random.Generator, meta: Meta) -> Arrays:
    """The image and maps of its classes in 256 steps; AMN's have one of the background in front."""
    maps = evidence(scene.ids, rng)
    if meta["kind"] == "amn":
        maps = np.concatenate([1 - maps.max(0, keepdims=True), maps])
    return {
        "in_image": scene.image,
        "in_keys": classes_of(scene),
        "in_maps_u8": (maps * 255 + 0.5).astype(np.uint8),
    }


def draw_logits(scene: Scene, rng: np.random.Generator, meta: Meta) -> Arrays:
    """The image and logits f32[C, h, w] at stride 8 of all classes of VOC."""
    maps = evidence(scene.ids, rng)[:, ::8, ::8]
    logits = rng.normal(0, 0.5, (VOC_CLASSES, *maps.shape[1:]))
    logits[0] += 2.5
    logits[classes_of(scene) + 1] += 5 * maps
    return {"in_image_rgb": scene.image, "in_logit": logits.astype(np.float32)}


def draw_signed(scene: Scene, rng: np.random.Generator, meta: Meta) -> Arrays:
    """The image, and at stride 8 of a larger canvas signed maps and CAM's logits, f32[K, h, w]."""
    side, cell = meta["infer_size"], 8
    ids = np.pad(scene.ids, [(0, side - length) for length in scene.ids.shape])
    maps = evidence(ids, rng)[:, ::cell, ::cell]
    return {
        "in_image": scene.image,
        "in_classes": classes_of(scene),
        "in_icd": (9 * (maps - 0.25) + rng.normal(0, 0.3, maps.shape)).astype(np.float32),
        "in_cam": (14 * (maps - 0.35) + rng.normal(0, 0.5, maps.shape)).astype(np.float32),
    }


ICD: Meta = {"confidence": 0.5, "infer_size": 129}
CASES = {
    "crf_raw_q_0": Case(7, (45, 70), draw_labels, answer_marginals, {"iterations": [1, 5, 10], "n_labels": 3}),
    "crf_seed_0": Case(39, (80, 132), draw_maps, answer_seed, {"kind": "cam", "t_fg": 0.3, "t_bg": 0.05}),
    "crf_seed_1": Case(16, (80, 132), draw_maps, answer_seed, {"kind": "amn", "t_fg": 0.45, "t_bg": 0.15}),
    "deeplab_crf_0": Case(24, (45, 70), draw_logits, answer_deeplab, {}),
    "icd_seed_0": Case(16, (60, 98), draw_signed, answer_signed, ICD),
    "icd_seed_1": Case(39, (60, 98), draw_signed, answer_signed, ICD),
}


def draw(name: str) -> Arrays:
    """The inputs of a fixture."""
    case = CASES[name]
    scene = draw_scene(case.scene, seed=SEED, classes=6, size=case.size)
    return case.draw(scene, np.random.default_rng([SEED, case.scene]), case.meta)


def answer(name: str, arrays: Arrays, meta: Meta) -> Arrays:
    """The outputs of a fixture's kind for any inputs of that kind."""
    return CASES[name].answer(arrays, meta)


def main(folder: Path) -> None:
    """Write every fixture into a folder."""
    source = f"tests/golden/make_crf.py: drawn scene, own transcription, pydensecrf2 {version('pydensecrf2')}"
    for name, case in CASES.items():
        arrays = draw(name)
        meta = {**case.meta, "scene": case.scene, "seed": SEED, "source": source}
        made = answer(name, arrays, meta)
        np.savez_compressed(folder / f"{name}.npz", **arrays, **made, meta=json.dumps(meta, sort_keys=True))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
