"""From a segmentation network's logits to the labels of a photograph (amn 4.2, 6)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from amn_dist.ops.crf.batch import batches, deeplab_crfs
from amn_dist.ops.crf.dense import Backend, deeplab_crf


def class_probabilities(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Probabilities f32[C, H, W] at a photograph's size, of logits f32[C, h, w]; where they lie."""
    with torch.inference_mode():
        fine = functional.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)
        return fine.softmax(1)[0]


def predicted_labels(
    image: np.ndarray, logits: Tensor, *, backend: Backend | None, wrap_image: bool
) -> dict[str, np.ndarray]:
    """Labels uint8[H, W] by field, raw and (with a backend) after the CRF, of an image uint8[H, W, 3] on the CPU."""
    probabilities = class_probabilities(logits, image.shape[:2]).numpy()
    fields = {"raw.png": probabilities.argmax(0).astype(np.uint8)}
    if backend is not None:
        refined = deeplab_crf(image, probabilities, wrap_image=wrap_image, backend=backend)
        fields["mask.png"] = refined.argmax(0).astype(np.uint8)
    return fields


def predictions_on_device(
    images: Sequence[Tensor], logits: Tensor, *, refined: bool, wrap_image: bool
) -> Iterator[tuple[str, list[Tensor]]]:
    """predicted_labels of images uint8[H, W, 3] of one size and their logits f32[B, C, h, w]: each field of all.

    Full-size probabilities exist of as many images at a time as a batch of CRFs holds.
    """
    size, classes = (images[0].shape[0], images[0].shape[1]), logits.shape[1]
    raw: list[Tensor] = []
    masks: list[Tensor] = []
    pixels = size[0] * size[1]
    for batch in batches([classes * pixels] * len(images), [pixels] * len(images)):
        probabilities = [class_probabilities(logits[place], size) for place in batch]
        raw += [one.argmax(0).to(torch.uint8) for one in probabilities]
        if refined:
            masks += deeplab_crfs([images[place] for place in batch], probabilities, wrap_image=wrap_image)
    yield "raw.png", raw
    if refined:
        yield "mask.png", masks
