"""ICD: a discriminator of object and background inside every class, and the signed maps it yields (icd 4, 5)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from amn_dist.config import Config, FitSection
from amn_dist.errors import ConfigError
from amn_dist.interfaces import Needs
from amn_dist.loaders.evidence import hand_out
from amn_dist.loaders.grouping import Finish, in_groups
from amn_dist.models.backbones.backbone import build_backbone, input_colour
from amn_dist.models.icd import Head, IcdNet
from amn_dist.models.icd_losses import bottom_up_part, classification_part, top_down_part
from amn_dist.models.inference import batch_pixels, device_of, load_for_inference
from amn_dist.models.precision import resolve_precision
from amn_dist.models.weights import load_backbone_weights
from amn_dist.ops.normalise import input_batch
from amn_dist.ops.region_means import refine_scores
from amn_dist.ops.resize import resize_batch, resize_image, scaled_size
from amn_dist.ops.signed import signed_activation, signed_labels
from amn_dist.ops.signed_device import decide
from amn_dist.ops.transfer import all_to_device, to_device
from amn_dist.records import ACTIVATION, Batch, CropRule, Evidence, Sample, grid_size


@dataclass(frozen=True)
class IcdFit:
    """Trains classifier, directions and top-down head together, on tags and superpixels."""

    config: Config
    num_classes: int
    name: str = "discriminate"

    @property
    def section(self) -> FitSection:
        return self.config.discriminate

    @property
    def rule(self) -> CropRule:
        section = self.config.discriminate
        return CropRule(
            size=section.crop,
            scales=section.scales,
            rounding="half_up",
            label="regions",
            place="corner",
            interpolation="linear",
            colour=icd_colour(self.config),
        )

    def network(self) -> nn.Module:
        network = icd_network(self.config, self.num_classes)
        load_backbone_weights(network.backbone, self.config.initial_weights(self.section.backbone))
        return network

    def parameter_groups(self, network: nn.Module) -> list[dict[str, Any]]:
        """Backbone at lr, layers that yield classes at lr_head, the rest at lr_hidden; biases without decay."""
        section = self.config.discriminate
        rates = {"backbone": section.lr, "hidden": section.lr_hidden, "head": section.lr_head}
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                decay = 0.0 if name.endswith("bias") else section.weight_decay
                groups.setdefault((rates[_part(name)], decay), []).append(parameter)
        return [{"params": parameters, "lr": lr, "weight_decay": decay} for (lr, decay), parameters in groups.items()]

    def normalisers(self, batch: Batch) -> Tensor:
        return batch.tags.new_full((1,), len(batch), dtype=torch.float64)

    def losses(self, network: nn.Module, batch: Batch, pooled: Tensor) -> dict[str, Tensor]:
        assert batch.label is not None
        tags, images = batch.tags, pooled[0].float()
        seen = network(batch.image, tags, batch.label, draws=batch.draws)
        target = seen.score.detach()
        if self.config.discriminate.refine:
            target = refine_scores(target, tags, batch.label)
        parts = {
            "classification": classification_part(seen.cam, tags, seen.inside) / images,
            "bottom_up": bottom_up_part(seen.score, tags, seen.inside) / images,
            "top_down": seen.weight.float() * top_down_part(seen.logits, target, tags, seen.inside) / images,
        }
        return {**parts, "total": torch.stack(list(parts.values())).sum()}


@dataclass(frozen=True)
class IcdMap:
    """Writes the stride-4 activation of the tagged classes, f16[K, h, w], made of positive parts (icd 5.2)."""

    config: Config
    num_classes: int
    checkpoint: str
    name: str = "icd_map"
    needs: Needs = "network"
    fields: tuple[str, ...] = (ACTIVATION,)

    def open(self) -> IcdNet:
        precision = resolve_precision(self.config.infer.precision)
        return load_for_inference(icd_network(self.config, self.num_classes), self.checkpoint, precision=precision)

    def run(self, opened: IcdNet, samples: Iterator[Sample]) -> Iterator[Sample]:
        options = {**self.config.icd_map.model_dump(), "colour": icd_colour(self.config)}

        def infer(group: list[Sample]) -> Finish | None:
            images, tags = [sample.image for sample in group], [sample.tags for sample in group]
            logits = logits_icd(opened, images, tags, **options)
            classes = [(np.flatnonzero(of_image) + 1).astype(np.uint8) for of_image in tags]
            if device_of(opened).type != "cpu":
                return self._decide(group, logits, classes)
            for sample, (cam, signed), own in zip(group, logits, classes, strict=True):
                sample.evidence = evidence_of(own, signed.numpy(), cam.numpy())
                sample.made[self.name] = {ACTIVATION: sample.evidence.coarse.astype(np.float16)}
            return None

        return in_groups(samples, infer, batch_pixels=batch_pixels(self.config.infer, opened))

    def _decide(self, group: list[Sample], logits: Sequence[Tensor], classes: Sequence[np.ndarray]) -> Finish | None:
        """Evidence of logits on a device, made there."""
        names = all_to_device(classes, logits[0].device)
        decided = [decide(cam, signed, own) for (cam, signed), own in zip(logits, names, strict=True)]
        maps = [(own, coarse, fine) for own, (coarse, fine, _) in zip(classes, decided, strict=True)]
        return hand_out(self.name, group, maps, [labels for _, _, labels in decided])


def icd_network(config: Config, num_classes: int) -> IcdNet:
    """The configured discriminator with random weights."""
    section = config.discriminate
    return IcdNet(
        build_backbone(section.backbone),
        num_classes,
        width=section.width,
        deep=section.cam_head == "deep",
        mask_padding=section.mask_padding,
        resolve_signs=section.resolve_signs,
        warmup=section.warmup,
    )


def icd_colour(config: Config) -> str:
    """How the discriminator wants its input: as its backbone does, or as configured. Raises ConfigError when its
    backbone is never fed so."""
    section = config.discriminate
    try:
        return input_colour(section.backbone, section.colour)
    except ConfigError as error:
        raise ConfigError(f"discriminate.{error}") from error


def image_icd(
    model: IcdNet,
    image: np.ndarray,
    tags: np.ndarray,
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    pad: int | None = 513,
    head: Head = "top_down",
    colour: str | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A head's signed maps and the CAM logits of one image, averaged over scales and mirror images at the image's size.

    image: uint8[H, W, 3]. tags: [C-1] multi-hot. pad: side the image is padded to at scale 1, bottom and right. head:
    top_down's logits or bottom_up's scores. colour: in the place of what the backbone wants.
    Returns classes uint8[K] (1-based), signed f32[K, H, W], CAM f32[K, H, W].
    """
    (logits,) = logits_icd(model, [image], [tags], scales=scales, flip=flip, pad=pad, head=head, colour=colour)
    cam, signed = logits.cpu().numpy()
    return (np.flatnonzero(tags) + 1).astype(np.uint8), signed, cam


@torch.inference_mode()
def logits_icd(
    model: IcdNet,
    images: Sequence[np.ndarray],
    tags: Sequence[np.ndarray],
    *,
    scales: Sequence[float] = (1.0,),
    flip: bool = False,
    pad: int | None = 513,
    head: Head = "top_down",
    colour: str | None = None,
) -> list[Tensor]:
    """image_icd of images of one size, all in one forward pass a scale: CAM and signed logits f32[2, K, H, W] of each,
    where the network is."""
    size, device, stride = images[0].shape[:2], device_of(model), model.backbone.strides[-1]
    present = [np.flatnonzero(of_image) for of_image in tags]
    places = all_to_device(present, device)
    totals = [torch.zeros(2, len(of_image), *size, device=device) for of_image in present]
    pixels = to_device(np.stack(images), device)
    for scale in scales if any(map(len, present)) else ():
        x, canvas, resized = _scaled_input(pixels, scale, flip, pad, stride, colour or model.backbone.colour)
        maps = torch.stack(model.maps(x, head)).unflatten(1, (len(images), -1))
        for place, total in enumerate(totals):
            seen = _laid(maps[:, place][:, :, places[place]], canvas, resized, flip=flip)
            if len(present[place]):
                fine = functional.interpolate(seen.flatten(0, 1), size=size, mode="bilinear", align_corners=False)
                total += fine.unflatten(0, seen.shape[:2]).mean(1)
    return [total / len(scales) for total in totals]


def evidence_of(classes: np.ndarray, signed: np.ndarray, cam: np.ndarray) -> Evidence:
    """Activations at both sizes, and the labels that the signs decide, of the maps of image_icd."""
    grid = grid_size(*signed.shape[1:])
    coarse = (
        functional.interpolate(torch.from_numpy(maps)[None], size=grid, mode="bilinear", align_corners=False)[0].numpy()
        if len(classes)
        else np.zeros((0, *grid), np.float32)
        for maps in (signed, cam)
    )
    return Evidence(
        classes, signed_activation(*coarse), signed_activation(signed, cam), signed_labels(signed, cam, classes)
    )


Size = tuple[int, int]


def _scaled_input(
    pixels: Tensor, scale: float, flip: bool, pad: int | None, stride: int, colour: str
) -> tuple[Tensor, Size, Size]:
    """Images uint8[B, H, W, 3] at a scale, on a canvas of whole cells, each before its mirror image if there is one.

    Returns f32[B F, 3, h, w], the size of the canvas, and that of the images on it.
    """
    size = scaled_size(pixels.shape[1], pixels.shape[2], scale)
    x = input_batch(_resized(pixels, size), colour)
    x = torch.stack([x, x.flip(-1)], 1).flatten(0, 1) if flip else x
    least = 0 if pad is None else round((pad - 1) * scale) + 1
    # Cells lie on pixels 0, stride, 2 * stride ...: a canvas ends on the last of them.
    height, width = (-(-(max(side, least) - 1) // stride) * stride + 1 for side in size)
    x = functional.pad(x, (0, width - size[1], 0, height - size[0]))
    return x.contiguous(memory_format=torch.channels_last), (height, width), size


def _resized(pixels: Tensor, size: Size) -> Tensor:
    if tuple(pixels.shape[1:3]) == size:
        return pixels
    if pixels.device.type != "cpu":
        return resize_batch(pixels, size)
    return torch.from_numpy(np.stack([resize_image(image, size) for image in pixels.numpy()]))


def _laid(maps: Tensor, canvas: Size, size: Size, *, flip: bool) -> Tensor:
    """Maps f32[2, F, K, h, w] over the image at a scale, the mirror image's turned back: f32[2, F, K, H', W']."""
    if not maps.shape[2]:
        return maps
    laid = functional.interpolate(maps.flatten(0, 1), size=canvas, mode="bilinear", align_corners=False)
    laid = laid.unflatten(0, maps.shape[:2])[..., : size[0], : size[1]]
    return torch.stack([laid[:, 0], laid[:, 1].flip(-1)], 1) if flip else laid


def _part(name: str) -> str:
    """Which rate a parameter learns at, by its name."""
    if name.startswith("backbone."):
        return "backbone"
    return "head" if ".classifier." in name else "hidden"
