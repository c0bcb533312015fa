"""Dense CRFs compared: ours, pydensecrf, and what else the package index has that refines labels of an image.

Photographs of 500x375: 3 labels as a seed stage refines them, 21 as DeepLab does. pydensecrf computes the same
marginals. SimpleCRF is the same model, gives labels alone and clips probabilities to [0.01, 0.99]: it is given such.
crfseg smooths over positions without looking at the image: another model, shown for its time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from amn_dist.ops.crf.dense import DEEPLAB, dense_crf, hard_label_unary
from benchmarks.harness import race, torch_threads
from benchmarks.inputs import drawn_photo, smooth_logits, two_labellings
from benchmarks.rivals.packages import there

SIZE, SMALL = (375, 500), (47, 63)
SEED: dict[str, Any] = {"gaussian": (3, 3), "bilateral": (50, 5, 10), "iterations": 10}
CLIPPED = (0.01, 0.99)
MOST, EQUAL = 1e-3, 0.9999
"""Largest difference of a marginal from pydensecrf's, and least share of equal labels, of ours."""

Refine = Callable[["Scene"], np.ndarray]
"""Marginals f32[L, H, W], or labels [H, W]."""


@dataclass(frozen=True)
class Scene:
    """image: uint8[H, W, 3]. probabilities: f32[L, H, W]. settings: of the CRF."""

    image: np.ndarray
    probabilities: np.ndarray
    settings: dict[str, Any]

    @property
    def unary(self) -> np.ndarray:
        return -np.log(self.probabilities)


def ours(scene: Scene) -> np.ndarray:
    return np.asarray(dense_crf(scene.image, scene.unary, backend="cpu", **scene.settings))


def pydensecrf(scene: Scene) -> np.ndarray:
    return np.asarray(dense_crf(scene.image, scene.unary, backend="pydensecrf", **scene.settings))


def simplecrf(scene: Scene) -> np.ndarray:
    import denseCRF

    (near, smoothness), (far, colour, weight) = scene.settings["gaussian"], scene.settings["bilateral"]
    words = (weight, far, colour, smoothness, near, scene.settings["iterations"])
    last = np.ascontiguousarray(scene.probabilities.transpose(1, 2, 0))
    return np.asarray(denseCRF.densecrf(scene.image, last, tuple(map(float, words))))


def crfseg(scene: Scene) -> np.ndarray:
    from crfseg import CRF

    near, smoothness = scene.settings["gaussian"]
    layer = CRF(
        n_spatial_dims=2,
        n_iter=scene.settings["iterations"],
        requires_grad=False,
        returns="proba",
        smoothness_weight=smoothness,
        smoothness_theta=near,
    )
    with torch.no_grad():
        marginals: np.ndarray = layer(torch.from_numpy(-scene.unary)[None])[0].numpy()
    return marginals


REFINERS: dict[str, tuple[str, Refine]] = {
    "amn-dist": ("amn_dist", ours),
    "pydensecrf2": ("pydensecrf", pydensecrf),
    "SimpleCRF": ("denseCRF", simplecrf),
    "crfseg": ("crfseg", crfseg),
}
"""Module and function by name of the distribution; ours first."""


def scenes(labels: int, count: int, size: tuple[int, int]) -> list[Scene]:
    """Photographs drawn, with hard labels of two thresholds (3 labels) or maps of a network (21)."""
    found = []
    for number in range(count):
        if labels == 3:
            unary = hard_label_unary(two_labellings(number, size)[0], labels)
            probabilities, settings = np.exp(-unary), SEED
        else:
            probabilities, settings = (3 * smooth_logits(labels, number, size)).softmax(0).numpy(), DEEPLAB
        found.append(Scene(drawn_photo(number, size), probabilities.clip(*CLIPPED).astype(np.float32), settings))
    return found


def labels_of(result: np.ndarray) -> np.ndarray:
    return result if result.ndim == 2 else result.argmax(0)


def refined(refine: Refine, cases: list[Scene]) -> list[np.ndarray]:
    return [refine(scene) for scene in cases]


def agreement(name: str, cases: list[Scene]) -> dict[str, Any]:
    """How far a refiner's results are from pydensecrf's; ours must be near."""
    pairs = [(REFINERS[name][1](scene), pydensecrf(scene)) for scene in cases]
    equal = min(float(np.mean(labels_of(found) == expected.argmax(0))) for found, expected in pairs)
    whole = all(found.ndim == 3 for found, _ in pairs)
    most = max(float(np.abs(found - expected).max()) for found, expected in pairs) if whole else None
    if name == "amn-dist":
        assert most is not None and most <= MOST and equal >= EQUAL, f"marginals differ by {most}, {equal:.4%} equal"
    return {"equal_labels": equal, "largest_difference": most}


@torch_threads(1)
def measured(*, quick: bool, rounds: int) -> dict[str, Any]:
    """Milliseconds an image of every refiner that is there, on one thread, beside how far it is from pydensecrf."""
    size, count = (SMALL, 1) if quick else (SIZE, 4)
    names = [name for name, (module, _) in REFINERS.items() if there(module)]
    record: dict[str, Any] = {"size": size, "images": count, "labels": {}}
    for labels in (3, 21):
        cases = scenes(labels, count, size)
        near = {name: agreement(name, cases) for name in names}
        calls = {name: partial(refined, REFINERS[name][1], cases) for name in names}
        timings = race(calls, rounds=rounds)
        ours_s = timings["amn-dist"].median
        record["labels"][str(labels)] = {
            name: {**timing.as_json(per=count), "ratio": round(ours_s / timing.median, 3), **near[name]}
            for name, timing in timings.items()
        }
    return {**record, "absent": [name for name in REFINERS if name not in names]}


def rows(record: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """A row a refiner and number of labels, for people."""
    yield ("dense CRF", "labels", "ms an image", "ratio", "equal labels", "largest difference")
    for labels, refiners in record["labels"].items():
        for name, row in refiners.items():
            most = "labels alone" if row["largest_difference"] is None else f"{row['largest_difference']:.1e}"
            yield (
                name,
                labels,
                f"{1e3 * row['median_s']:.0f}",
                f"{row['ratio']:.2f}",
                f"{row['equal_labels']:.4%}",
                most,
            )
