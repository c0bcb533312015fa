"""CLIP-ES as it is published, in our words: an image at a time, a backward pass a tag, products of P x P matrices."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from amn_dist.models.clip.layers import Block
from amn_dist.models.clip.network import ClipNet
from amn_dist.models.clip.texts import TextRows
from amn_dist.ops.clip.patches import resized
from amn_dist.ops.clip.refine import box_masks, positive_maps, stretched
from amn_dist.ops.normalise import input_batch


def published_clip(network: ClipNet, texts: TextRows, image: np.ndarray, tags: np.ndarray, box: float) -> Tensor:
    """Maps [K, H, W] of an image uint8[H, W, 3] and its tags [C-1]; parameters get gradients that nobody reads."""
    vision, pixels = network.visual, resized([image], torch.device("cpu"))
    grid = pixels.shape[1] // vision.patch, pixels.shape[2] // vision.patch
    rows = texts.of_tags(torch.from_numpy(np.flatnonzero(tags)))
    with torch.no_grad():
        x, attentions = vision.embedded(input_batch(pixels, "clip")), []
        for block in vision.transformer.resblocks[:-1]:
            x, _, weights = _through(block, x)
            attentions.append(weights)
    fine = []
    for place in range(int(tags.sum())):
        y, z, last = _through(vision.last, x.clone().requires_grad_())
        feature = vision.ln_post(y)[0, 1:].mean(0) @ vision.proj
        logits = network.logit_scale.exp() * functional.normalize(feature, dim=0) @ rows.T
        z.retain_grad()
        network.zero_grad()
        logits.softmax(0)[place].backward()
        assert z.grad is not None
        with torch.no_grad():
            raw = (z.grad[0, 1:].mean(0) * z[0, 1:]).sum(1)
            fine.append(_refined([*attentions, last], positive_maps(raw[None]), grid, box, image.shape[:2]))
    return torch.cat(fine)


def _through(block: Block, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A block's tokens, what its attention reads, and its weights averaged over heads."""
    z, attention = block.ln_1(x), block.attn
    rows = z.transpose(0, 1)
    attended, weights = functional.multi_head_attention_forward(
        *(rows, rows, rows, rows.shape[-1], attention.heads, attention.in_proj_weight, attention.in_proj_bias),
        *(None, None, False, 0.0, attention.out_proj.weight, attention.out_proj.bias),
        need_weights=True,
    )
    assert weights is not None
    x = x + attended.transpose(0, 1)
    return x + block.mlp(block.ln_2(x)), z, weights.detach()


def _refined(
    attentions: list[Tensor], maps: Tensor, grid: tuple[int, int], box: float, size: tuple[int, ...]
) -> Tensor:
    weights = torch.stack(attentions)[-8:].mean(0)[0, 1:, 1:]
    for _ in range(3):
        weights = weights / weights.sum(0, keepdim=True)
        weights = weights / weights.sum(1, keepdim=True)
    weights = (weights + weights.T) / 2
    weights = weights @ weights
    inside = torch.from_numpy(box_masks(maps.view(1, *grid).numpy(), box)).view(1, -1)
    refined = stretched((weights * inside @ maps[0])[None]).view(1, 1, *grid)
    return functional.interpolate(refined, size=size, mode="bilinear", align_corners=False)[0]
