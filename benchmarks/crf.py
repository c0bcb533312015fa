"""How much faster than pydensecrf is our dense CRF on one core?

Seed pair: photographs of 480x640, two labellings of 3 labels (what a seed stage refines), against two pydensecrf runs;
also with the lattices of the image's size not yet known. DeepLab: 81 labels, softmax maps of smooth logits at stride 8,
bilinear to 480x640: `flat` (deviation 0.05) and `warm`, `cold` (deviation 3, temperatures 1 and 0.3), where every label
matters somewhere, and `scene`, where 6 labels compete and the others lie at the floor, as a trained network has it;
there also with all labels filtered. Marginals within 1e-3 and 99.99 % of labels equal are asserted on what is timed.

    python -m benchmarks.crf [FOLDER of photographs, at any depth] [seed|deeplab]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from amn_dist.ops.allocator import keep_freed_memory
from amn_dist.ops.crf.dense import Backend, dense_crf, hard_label_unary
from amn_dist.ops.crf.lattice import bilateral_lattice, gaussian_lattice, tile_order
from amn_dist.ops.crf.mean_field import mean_field
from benchmarks.harness import PHOTOGRAPHS, Timing, one_core, race, write_result
from benchmarks.inputs import smooth_logits, two_labellings

SIZE = (480, 640)
SEED: dict[str, Any] = {"gaussian": (3, 3), "bilateral": (50, 5, 10), "iterations": 10}
DEEPLAB: dict[str, Any] = {"gaussian": (1, 3), "bilateral": (67, 3, 4), "iterations": 10}
FLOOR = 1e-5


def photographs(folder: Path, count: int) -> list[np.ndarray]:
    """The first photographs of native 480x640, uint8[H, W, 3]."""
    found: list[np.ndarray] = []
    for path in sorted(folder.rglob("*.jpg")):
        with Image.open(path) as image:
            if (image.height, image.width) == SIZE and len(found) < count:
                found.append(np.asarray(image.convert("RGB")))
    if len(found) < count:
        sys.exit(f"{folder}: found {len(found)} photographs of 480x640, expected {count}; name another folder")
    return found


def seed_unary(number: int) -> np.ndarray:
    """Unaries f32[2, 3, H, W] of two thresholds on smooth maps of two classes."""
    return hard_label_unary(two_labellings(number, SIZE), 3)


def deeplab_unary(case: str, number: int) -> np.ndarray:
    """Unaries f32[81, H, W] of softmax maps, see above."""
    logits = smooth_logits(81, number, SIZE) * {"flat": 0.05, "warm": 3, "cold": 10, "scene": 3}[case]
    if case == "scene":
        logits[6:] -= 25
    return -np.log(logits.softmax(0).numpy().clip(FLOOR, 1))


def agreement(found: np.ndarray, expected: np.ndarray, axis: int) -> dict[str, float]:
    """Largest difference of marginals and share of equal labels; stops the benchmark where they are too far apart."""
    difference = float(np.abs(found - expected).max())
    equal = float(np.mean(found.argmax(axis) == expected.argmax(axis)))
    assert difference <= 1e-3 and equal >= 0.9999, f"marginals differ by {difference}, {equal:.4%} of labels equal"
    return {"largest_difference": difference, "equal_labels": equal}


def worst(found: list[dict[str, float]]) -> dict[str, float]:
    return {
        "largest_difference": max(one["largest_difference"] for one in found),
        "equal_labels": min(one["equal_labels"] for one in found),
    }


def record(timings: dict[str, Timing], per: int) -> dict[str, Any]:
    """Seconds an image of every rival, and how many times faster than pydensecrf."""
    reference = timings["pydensecrf"].median
    speed = {name: round(reference / timing.median, 2) for name, timing in timings.items()}
    return {"seconds": {name: timing.as_json(per=per) for name, timing in timings.items()}, "times_faster": speed}


def seed_pair(folder: Path, count: int = 10) -> dict[str, Any]:
    """Question one."""
    images = photographs(folder, count)
    unaries = [seed_unary(number) for number in range(count)]

    def one_by_one(image: np.ndarray, unary: np.ndarray) -> np.ndarray:
        return np.stack([dense_crf(image, one, backend="pydensecrf", **SEED) for one in unary])

    def pair(image: np.ndarray, unary: np.ndarray) -> np.ndarray:
        return dense_crf(image, unary, backend="cpu", **SEED)

    def unseen(image: np.ndarray, unary: np.ndarray) -> np.ndarray:
        gaussian_lattice.cache_clear()
        tile_order.cache_clear()
        return pair(image, unary)

    cases = list(zip(images, unaries, strict=True))
    checked = worst([agreement(pair(*case), one_by_one(*case), 1) for case in cases])
    rivals: dict[str, Callable[[], Any]] = {
        "pydensecrf": lambda: [one_by_one(*case) for case in cases],
        "cpu": lambda: [pair(*case) for case in cases],
        "cpu, size unseen": lambda: [unseen(*case) for case in cases],
    }
    points = [bilateral_lattice(image, 50, 5).points for image in images]
    return {"photographs": count, "points": points, **checked, **record(race(rivals), count)}


def deeplab(folder: Path, count: int = 1) -> dict[str, Any]:
    """Question two."""
    images = photographs(folder, count)
    results: dict[str, Any] = {"photographs": count}
    for case in ("flat", "warm", "cold", "scene"):
        inputs = [(image, deeplab_unary(case, number)) for number, image in enumerate(images)]

        def run(backend: Backend, inputs: list[tuple[np.ndarray, np.ndarray]] = inputs) -> list[np.ndarray]:
            return [dense_crf(image, unary, backend=backend, **DEEPLAB) for image, unary in inputs]

        def full(inputs: list[tuple[np.ndarray, np.ndarray]] = inputs) -> list[np.ndarray]:
            return [mean_field(image, unary[None], drop=False, **DEEPLAB) for image, unary in inputs]

        compared = zip(run("cpu"), run("pydensecrf"), strict=True)
        checked = worst([agreement(found, expected, 0) for found, expected in compared])
        rivals = {
            "pydensecrf": lambda run=run: run("pydensecrf"),
            "cpu": lambda run=run: run("cpu"),
            "cpu, all labels": full,
        }
        results[case] = {**checked, **record(race(rivals), count)}
    return results


def main() -> None:
    one_core()
    keep_freed_memory()  # as the workers that call it do
    names = [argument for argument in sys.argv[1:] if argument in ("seed", "deeplab")]
    folder = next((Path(argument) for argument in sys.argv[1:] if argument not in names), PHOTOGRAPHS)
    questions = {"seed": seed_pair, "deeplab": deeplab}
    for name in names or questions:
        write_result(f"crf_{name}", {"size": SIZE, name: questions[name](folder)})


if __name__ == "__main__":
    main()
