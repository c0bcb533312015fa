"""Intra-class discriminator: for every class a direction that splits its features, and a head that learns the split.

The network of icd 4: a classifier with activation maps (CAM), unit directions (bottom-up), signs, and a convolutional
head (top-down) whose signed logits are the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from amn_dist.models.backbones.backbone import Backbone
from amn_dist.models.backbones.blueprint import initialise_convolutions
from amn_dist.models.running_statistics import FeatureNorm, SignStatistics
from amn_dist.ops.region_means import sample_regions
from amn_dist.ops.sample_dropout import sample_dropout

DEVIATION = 0.01
"""Deviation of the initial weights of directions and of the published layers that yield classes."""
Head = Literal["top_down", "bottom_up"]
DROPOUT = 0.5
"""Share of the hidden features of the deep CAM head that dropout removes in training."""


class Reading(NamedTuple):
    """What a network sees in a training batch; K = C-1 classes, h w its grid.

    cam, score, logits: f32[B, K, h, w]; score is signed and bears gradient to the directions alone.
    inside: bool[B, 1, h, w], cells that count, or None for all. weight: of the top-down loss, f32[].
    """

    cam: Tensor
    score: Tensor
    logits: Tensor
    inside: Tensor | None
    weight: Tensor


class LinearCam(nn.Module):
    """CAM head of one 1x1 convolution."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(channels, classes, 1, bias=False)

    def forward(self, x: Tensor, draws: Sequence[int] = ()) -> Tensor:
        return self.classifier(x)


class DeepCam(nn.Module):
    """CAM head of the published network: two pools, two hidden layers with dropout, one that yields classes."""

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.fc6 = nn.Conv2d(channels, width, 3, padding=1)
        self.fc7 = nn.Conv2d(width, width, 1)
        self.classifier = nn.Conv2d(width, classes, 1)
        self.dropout = DROPOUT

    def forward(self, x: Tensor, draws: Sequence[int] = ()) -> Tensor:
        """draws: a number for every sample that dropout follows from; without any, torch's global generator."""
        x = functional.max_pool2d(x, 3, stride=1, padding=1)
        x = functional.avg_pool2d(x, 3, stride=1, padding=1)
        for number, layer in enumerate((self.fc6, self.fc7)):
            x = self._drop(functional.relu(layer(x)), draws, number)
        return self.classifier(x)

    def _drop(self, x: Tensor, draws: Sequence[int], layer: int) -> Tensor:
        if not self.training or not draws:
            return functional.dropout(x, self.dropout, training=self.training)
        return sample_dropout(x, draws, self.dropout, layer=layer)


class TopDown(nn.Module):
    """Head whose signed logits say where a class is; it reads the normalised features and two layers over them."""

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.fc6 = nn.Conv2d(channels, width, 3, padding=1)
        self.fc7 = nn.Conv2d(width, width, 1)
        self.classifier = nn.Conv2d(channels + 2 * width, classes, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        low = functional.relu(self.fc6(x))
        high = functional.relu(self.fc7(low))
        return self.classifier(torch.cat([x.to(low.dtype), low, high], 1))


class Directions(nn.Module):
    """A direction in feature space for every class; what lies along it is the class's score (icd 4.3)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(DEVIATION * torch.randn(classes, channels))

    def forward(self, x: Tensor) -> Tensor:
        """Scores f32[B, C-1, h, w] of features f32[B, c, h, w], which get no gradient."""
        unit = self.weight * torch.rsqrt((self.weight**2).sum(1, keepdim=True) + 1e-10)
        return functional.conv2d(x.detach(), unit[:, :, None, None])


class IcdNet(nn.Module):
    """The networks of icd 4 over one backbone."""

    steps: Tensor

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        width: int = 1024,
        deep: bool = True,
        mask_padding: bool = False,
        resolve_signs: bool = True,
        warmup: int = 0,
    ) -> None:
        """num_classes: C, background included. width: channels of hidden layers. deep: the published CAM head.

        mask_padding: leave cells outside the photo out of losses and statistics. resolve_signs: turn directions to
        the side where CAM is stronger. warmup: steps until the top-down loss has its full weight.
        """
        super().__init__()
        channels, classes = backbone.channels[-1], num_classes - 1
        self.backbone = backbone
        self.cam = DeepCam(channels, classes, width) if deep else LinearCam(channels, classes)
        self.norm = FeatureNorm(channels)
        self.directions = Directions(channels, classes)
        self.sign = SignStatistics(classes)
        self.top_down = TopDown(channels, classes, width)
        self.mask_padding = mask_padding
        self.resolve_signs = resolve_signs
        self.warmup = warmup
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._initialise()

    def forward(self, image: Tensor, tags: Tensor, regions: Tensor, *, draws: Sequence[int] = ()) -> Reading:
        """Read images f32[B, 3, H, W] tagged [B, C-1]; regions int[B, H, W] are negative outside the photos.

        draws: a number for every sample that dropout follows from.
        """
        features = self.backbone(image)[-1]
        cam = self.cam(features, draws).float()
        size = (features.shape[-2], features.shape[-1])
        inside = sample_regions(regions, size)[:, None] >= 0 if self.mask_padding else None
        with torch.autocast(image.device.type, enabled=False):
            x = self.norm(features.float(), inside)
            score = self.directions(x)
            if self.resolve_signs:
                score = score * self.sign(score, cam.detach(), tags, inside)[:, None, None]
        logits = self.top_down(x).float()
        return Reading(cam, score, logits, inside, top_down_weight(self.steps, self.warmup))

    def maps(self, image: Tensor, head: Head = "top_down") -> tuple[Tensor, Tensor]:
        """CAM logits and a head's signed maps, f32[B, C-1, h, w] each, of images f32[B, 3, H, W].

        head: the top-down head's logits, or bottom_up, scores along the directions.
        """
        features = self.backbone(image)[-1]
        cam, x = self.cam(features).float(), self.norm(features.float())
        if head == "top_down":
            return cam, self.top_down(x).float()
        with torch.autocast(image.device.type, enabled=False):
            score = self.directions(x.float())
        return cam, score * self.sign.signs()[:, None, None] if self.resolve_signs else score

    @torch.no_grad()
    def end_step(self) -> None:
        """Close an optimiser step: running statistics move once, the step is counted."""
        self.norm.end_step()
        self.sign.end_step()
        self.steps += 1

    def _initialise(self) -> None:
        hidden = {name: layer for name, layer in self.named_modules() if name.endswith(("fc6", "fc7"))}
        initialise_convolutions(hidden)
        nn.init.normal_(self.top_down.classifier.weight, std=DEVIATION)
        if isinstance(self.cam, DeepCam):
            nn.init.normal_(self.cam.classifier.weight, std=DEVIATION)
            nn.init.zeros_(self.cam.classifier.bias)  # type: ignore[arg-type]
            self.top_down.fc6.load_state_dict(self.cam.fc6.state_dict())
            self.top_down.fc7.load_state_dict(self.cam.fc7.state_dict())


def top_down_weight(steps: Tensor, warmup: int) -> Tensor:
    """Weight f64[] of the top-down loss after so many steps: exp(-10 (1 - steps / warmup)), then 1 (icd 4.6)."""
    left = (warmup - steps.double()).clamp(min=0) / max(warmup, 1)
    return torch.exp(-10 * left)
