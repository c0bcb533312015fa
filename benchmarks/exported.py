"""Does an exported segmentation network agree with the run's, and how fast is it beside our own inference?

The files of `amn export network` (.onnx in onnxruntime, .pt2 in torch) against the run's network as `amn predict` uses
it, on photographs one by one, each at its own size, on one thread; rounds alternate. Figures count once probabilities
agree.

    python -m benchmarks.exported RUN FILE.onnx|FILE.pt2 ... [--photographs FOLDER] [--images 8] [--rounds 5]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from amn_dist.runs.pipeline import reopen
from amn_dist.shards.sample import evenly
from amn_dist.stages.predict import image_probabilities, open_network
from benchmarks.harness import PHOTOGRAPHS, race, rates, write_result

TOLERANCE = 1e-4
"""Between probabilities."""

Predict = Callable[[np.ndarray], np.ndarray]
"""Probabilities f32[C, H, W] of a photograph uint8[H, W, 3]."""


def ours(run: Path) -> Predict:
    """The network of a run as `amn predict` uses it."""
    pipeline = reopen(run)
    model = open_network(pipeline.config, pipeline.num_classes, str(pipeline.run.checkpoint("segment")))
    return lambda image: image_probabilities(model, image)


def exported(file: Path) -> Predict:
    """An exported network in its own runtime, on one thread."""
    if file.suffix == ".pt2":
        program = torch.export.load(str(file)).module()
        return lambda image: np.asarray(program(torch.from_numpy(image[None].copy()))[0])
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda image: np.asarray(session.run(None, {"image": image[None]})[0][0])


def photographs(folder: Path, count: int) -> list[np.ndarray]:
    """Photographs uint8[H, W, 3] taken evenly from a folder, at any depth. Raises ValueError where it has too few."""
    files = sorted(folder.rglob("*.jpg"))
    if len(files) < count:
        raise ValueError(f"{folder}: found {len(files)} photographs (*.jpg), expected {count}")
    return [np.asarray(Image.open(files[at]).convert("RGB")) for at in evenly(len(files), count)]


def differences(one: Predict, other: Predict, images: Sequence[np.ndarray]) -> dict[str, float]:
    """The largest difference of probabilities, and the share of pixels whose label is another."""
    largest, moved, pixels = 0.0, 0, 0
    for image in images:
        first, second = one(image), other(image)
        largest = max(largest, float(np.abs(first - second).max()))
        moved += int((first.argmax(0) != second.argmax(0)).sum())
        pixels += first[0].size
    return {"largest": largest, "labels_changed": moved / pixels}


def measured(rivals: Mapping[str, Predict], images: Sequence[np.ndarray], rounds: int) -> dict[str, Any]:
    """Agreement with `ours` and images a second of every rival. Raises ValueError where probabilities differ."""
    agreement = {name: differences(rivals["ours"], rival, images) for name, rival in rivals.items() if name != "ours"}
    for name, found in agreement.items():
        if found["largest"] > TOLERANCE:
            raise ValueError(f"{name}: found probabilities that differ by {found['largest']:.2g}, expected {TOLERANCE}")
    rounds_of = {name: partial(_through, rival, images) for name, rival in rivals.items()}
    timings = race(rounds_of, rounds=rounds)
    return {"images": len(images), "agreement": agreement, "rates": rates(timings, len(images), per=len(images))}


def _through(predict: Predict, images: Sequence[np.ndarray]) -> None:
    for image in images:
        predict(image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--photographs", type=Path, default=PHOTOGRAPHS)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    try:
        images = photographs(asked.photographs, asked.images)
        rivals = {"ours": ours(asked.run), **{file.suffix.removeprefix("."): exported(file) for file in asked.files}}
        write_result("exported", measured(rivals, images, asked.rounds))
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
