"""Activation manipulation network: per-pixel classes under a gate of the image tags (amn 2.3, 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional

from amn_dist.models.aspp import Aspp
from amn_dist.models.backbones.backbone import Backbone
from amn_dist.ops.dropout import named_dropout
from amn_dist.ops.resize import sample_labels
from amn_dist.ops.sample_dropout import sample_dropout
from amn_dist.records import IGNORE

Dropout = bool | Sequence[str] | Sequence[int]
"""Whether features are dropped, and what the draws follow from."""
DROPOUT = 0.1
"""Share of the gated features that dropout removes, element by element (amn 2.3)."""


class AmnNet(nn.Module):
    """Backbone, label gate and dilated head over C classes."""

    def __init__(self, backbone: Backbone, num_classes: int, *, condition: bool = True) -> None:
        """num_classes: C, background included. condition=False leaves the label gate out."""
        super().__init__()
        self.backbone = backbone
        self.gate = nn.Linear(num_classes - 1, backbone.channels[-1]) if condition else None
        self.aspp = Aspp(backbone.channels[-1], num_classes)

    def forward(self, image: Tensor, tags: Tensor, *, dropout: Dropout) -> Tensor:
        """Logits [B, C, h, w] of normalised images [B, 3, H, W] tagged [B, C-1].

        dropout: off, on from torch's global generator, or on with draws that follow from names, one for each equal
        share of the batch, or from numbers, one for each sample (training). It does not follow train() or eval(),
        because published inference leaves it on.
        """
        features = self.backbone(image)[-1]
        if self.gate is not None:
            features = features * self.gate(tags)[:, :, None, None]
        return self.aspp(_drop(features, dropout))


def pixel_loss(logits: Tensor, labels: Tensor, smoothing: float = 0.4) -> Tensor:
    """Half the mean loss over background pixels plus half of it over foreground pixels of the batch (amn 3.2).

    logits: [B, C, h, w]. labels: uint8[B, h, w], 255 = ignore; labels of another size are sampled at the logits'
    cell centres. A batch without background (or foreground) has a zero in its place.
    """
    labels = _on_grid(labels, logits)
    background, foreground = pixel_loss_parts(logits, labels, smoothing)
    backgrounds, foregrounds = (mask.sum().clamp(min=1) for mask in _masks(labels))
    return (background / backgrounds + foreground / foregrounds) / 2


def pixel_loss_parts(logits: Tensor, labels: Tensor, smoothing: float = 0.4) -> tuple[Tensor, Tensor]:
    """Sums of the smoothed per-pixel loss over background and over foreground pixels; see pixel_loss."""
    labels = _on_grid(labels, logits)
    loss = _smoothed_loss(logits.float(), labels, smoothing)
    background, foreground = _masks(labels)
    return (loss * background).sum(), (loss * foreground).sum()


def _smoothed_loss(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    log_p = functional.log_softmax(logits, dim=1)
    target = labels.long().masked_fill(labels == IGNORE, 0)
    own = log_p.gather(1, target[:, None]).squeeze(1)
    others = log_p.sum(1) - own
    return -(1 - smoothing) * own - smoothing / (logits.shape[1] - 1) * others


def _masks(labels: Tensor) -> tuple[Tensor, Tensor]:
    return labels == 0, (labels > 0) & (labels != IGNORE)


def _on_grid(labels: Tensor, logits: Tensor) -> Tensor:
    size = (logits.shape[-2], logits.shape[-1])
    return labels if labels.shape[-2:] == size else sample_labels(labels, size)


def _drop(x: Tensor, dropout: Dropout) -> Tensor:
    if isinstance(dropout, bool):
        return functional.dropout(x, DROPOUT, training=dropout)
    names = [name for name in dropout if isinstance(name, str)]
    if names:
        return named_dropout(x, names, DROPOUT)
    return sample_dropout(x, [number for number in dropout if isinstance(number, int)], DROPOUT)
