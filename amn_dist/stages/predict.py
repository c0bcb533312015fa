"""Predictions of the segmentation network, raw and after the CRF (amn 3.5, 4.2, 6).

What passes from the network to a CRF elsewhere are the logits at the network's resolution; full-size probabilities, C
planes as large as the photograph, exist where they are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from amn_dist.interfaces import Map, Needs, crf_needs
from amn_dist.loaders.grouping import Finish, in_groups
from amn_dist.models.deeplab import DeepLab, segment_network
from amn_dist.models.inference import batch_pixels, device_of, load_for_inference
from amn_dist.models.precision import resolve_precision
from amn_dist.ops.normalise import input_batch
from amn_dist.ops.prediction import class_probabilities, predicted_labels, predictions_on_device
from amn_dist.ops.transfer import to_device, to_host
from amn_dist.records import Sample

if TYPE_CHECKING:  # annotations alone: networks and fits run without pydantic
    from amn_dist.config import Config, Predict


@dataclass(frozen=True)
class PredictMap:
    """Writes the predicted labels uint8[H, W], raw and (unless switched off) after the CRF.

    accelerated: whether workers that run networks have a GPU. A CRF that does not run there is a part of its own, so
    that it is done by the workers for CPU work.
    """

    config: Config
    num_classes: int
    checkpoint: str
    accelerated: bool = False
    name: str = "predict"
    needs: Needs = "network"

    @property
    def fields(self) -> tuple[str, ...]:
        return fields_of(self.config.predict)

    def parts(self) -> tuple[Map, ...]:
        section = self.config.predict
        if section.crf == "off" or crf_needs(section.crf, self.accelerated) == "network":
            return (self,)
        return LogitsMap(self.config, self.num_classes, self.checkpoint), LabelsMap(section)

    def open(self) -> DeepLab:
        return open_network(self.config, self.num_classes, self.checkpoint)

    def run(self, opened: DeepLab, samples: Iterator[Sample]) -> Iterator[Sample]:
        def infer(group: list[Sample]) -> Finish | None:
            if device_of(opened).type == "cpu":
                for sample, logits in zip(group, images_logits(opened, _images(group)), strict=True):
                    sample.made[self.name] = _labels(self.config.predict, sample.image, logits)
                return None
            return self._begin(opened, group)

        return in_groups(samples, infer, batch_pixels=batch_pixels(self.config.infer, opened))

    def labels(self, opened: DeepLab, image: np.ndarray) -> dict[str, np.ndarray]:
        """Predicted labels of one image uint8[H, W, 3], by field."""
        section = self.config.predict
        if device_of(opened).type == "cpu" or crf_needs(section.crf, True) == "cpu":
            return _labels(section, image, images_logits(opened, [image])[0].cpu())
        sample = Sample("", 0, image, np.zeros(0, np.uint8))
        self._begin(opened, [sample])()
        return sample.made[self.name]

    def _begin(self, opened: DeepLab, group: list[Sample]) -> Finish:
        """Give a group to the device; what is returned waits for its labels and fills them in."""
        section = self.config.predict
        pixels = to_device(np.stack(_images(group)), device_of(opened))
        with torch.inference_mode():
            logits = opened(input_batch(pixels, opened.backbone.colour)).float()
        fields = dict(
            predictions_on_device(list(pixels), logits, refined=section.crf != "off", wrap_image=section.wrap_image)
        )
        landing = to_host([labels for of_field in fields.values() for labels in of_field])

        def finish() -> None:
            arrays = landing.arrays()
            for number, field in enumerate(fields):
                for position, sample in enumerate(group):
                    sample.made.setdefault(self.name, {})[field] = arrays[number * len(group) + position]

        return finish


@dataclass(frozen=True)
class LogitsMap:
    """The network's part: fills in `logits` of every sample, and writes nothing."""

    config: Config
    num_classes: int
    checkpoint: str
    name: str = "predict_logits"
    needs: Needs = "network"
    fields: tuple[str, ...] = ()

    def open(self) -> DeepLab:
        return open_network(self.config, self.num_classes, self.checkpoint)

    def run(self, opened: DeepLab, samples: Iterator[Sample]) -> Iterator[Sample]:
        def infer(group: list[Sample]) -> Finish | None:
            logits = images_logits(opened, _images(group))

            def take(arrays: list[np.ndarray]) -> None:
                for sample, values in zip(group, arrays, strict=True):
                    sample.logits = values

            return to_host([one.permute(1, 2, 0).contiguous() for one in logits]).then(take)

        return in_groups(samples, infer, batch_pixels=batch_pixels(self.config.infer, opened))


@dataclass(frozen=True)
class LabelsMap:
    """The rest: labels and their CRF, on one core, from the logits of the part before."""

    section: Predict
    name: str = "predict"
    needs: Needs = "cpu"

    @property
    def fields(self) -> tuple[str, ...]:
        return fields_of(self.section)

    def open(self) -> None:
        return None

    def run(self, opened: Any, samples: Iterator[Sample]) -> Iterator[Sample]:
        for sample in samples:
            assert sample.logits is not None, f"{self.name} follows the part that runs the network"
            logits = torch.from_numpy(sample.logits).permute(2, 0, 1)
            sample.made[self.name], sample.logits = _labels(self.section, sample.image, logits), None
            yield sample


def fields_of(section: Predict) -> tuple[str, ...]:
    """The fields that are written as configured."""
    return ("raw.png",) if section.crf == "off" else ("mask.png", "raw.png")


def open_network(config: Config, num_classes: int, checkpoint: str) -> DeepLab:
    """The trained segmentation network, ready to infer."""
    precision = resolve_precision(config.infer.precision)
    return load_for_inference(segment_network(config, num_classes), checkpoint, precision=precision)


def image_probabilities(model: DeepLab, image: np.ndarray) -> np.ndarray:
    """Class probabilities of one image uint8[H, W, 3] at its own size, f32[C, H, W] (amn 4.2, Test)."""
    (probabilities,) = images_probabilities(model, [image])
    return probabilities


def images_probabilities(model: DeepLab, images: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """image_probabilities of several images of one size: one forward pass, full-size maps one after the other."""
    for logits in images_logits(model, images):
        yield class_probabilities(logits, images[0].shape[:2]).cpu().numpy()


@torch.inference_mode()
def images_logits(model: DeepLab, images: Sequence[np.ndarray]) -> Tensor:
    """Logits f32[B, C, h, w] of images uint8[H, W, 3] of one size, where the network is."""
    pixels = to_device(np.stack(images), device_of(model))
    logits: Tensor = model(input_batch(pixels, model.backbone.colour)).float()
    return logits


def _labels(section: Predict, image: np.ndarray, logits: Tensor) -> dict[str, np.ndarray]:
    backend = None if section.crf == "off" else section.crf
    return predicted_labels(image, logits, backend=backend, wrap_image=section.wrap_image)


def _images(group: Sequence[Sample]) -> list[np.ndarray]:
    return [sample.image for sample in group]
