"""The last block of CLIP and all that its GradCAM needs of it (clip 3.3).

The class token comes first among tokens; it is no part of means.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from amn_dist.models.clip.layers import attention_weights, joined
from amn_dist.models.clip.network import ClipNet


@dataclass(frozen=True)
class Normed:
    """A layer norm's input [..., D] at mean 0 and deviation 1, and the deviation [..., 1] it had."""

    values: Tensor
    deviation: Tensor

    def backward(self, gradient: Tensor) -> Tensor:
        """Gradient to the input [..., D], of the gradient to `values`; of several in front of those dimensions."""
        along = (gradient * self.values).mean(-1, keepdim=True)
        return (gradient - gradient.mean(-1, keepdim=True) - self.values * along) / self.deviation


@dataclass(frozen=True)
class LastPass:
    """What the last block makes of tokens [B, L, D] on the way, [B, ...] each; of one image without B.

    z: behind its first norm. q, k, v, attended: [B, heads, L, d]. weights: [B, heads, L, L]. middle, last: normed
    tokens before the MLP and behind the block. hidden: [B, L, 4D] before the activation. feature: [B, E], pooled.
    """

    z: Tensor
    q: Tensor
    k: Tensor
    v: Tensor
    weights: Tensor
    attended: Tensor
    middle: Normed
    hidden: Tensor
    last: Normed
    feature: Tensor


def last_pass(network: ClipNet, x: Tensor, own: Tensor | None = None) -> LastPass:
    """The last block and the pooled feature: the mean of the patch tokens, without the class token.

    own: bool[B, L], false for padding, which is in no mean.
    """
    vision, block = network.visual, network.visual.last
    z = block.ln_1(x)
    q, k, v = block.attn.project(z)
    weights = attention_weights(q, k, own)
    attended = weights @ v
    y = x + block.attn.out_proj(joined(attended))
    middle = _normed(y, block.ln_2)
    hidden = block.mlp.c_fc(middle.values * block.ln_2.weight + block.ln_2.bias)
    last = _normed(y + block.mlp.c_proj(block.mlp.activate(hidden)), vision.ln_post)
    pooled = _mean_patch(last.values, own) * vision.ln_post.weight + vision.ln_post.bias
    return LastPass(z, q, k, v, weights, attended, middle, hidden, last, pooled @ vision.proj)


def image_of(seen: LastPass, place: int, patches: int) -> LastPass:
    """The pass of one image of so many patches, without the dimension of the batch and without padding."""
    length = 1 + patches

    def normed(whole: Normed) -> Normed:
        return Normed(whole.values[place, :length], whole.deviation[place, :length])

    return LastPass(
        z=seen.z[place, :length],
        q=seen.q[place, :, :length],
        k=seen.k[place, :, :length],
        v=seen.v[place, :, :length],
        weights=seen.weights[place, :, :length, :length],
        attended=seen.attended[place, :, :length],
        middle=normed(seen.middle),
        hidden=seen.hidden[place, :length],
        last=normed(seen.last),
        feature=seen.feature[place],
    )


def _mean_patch(tokens: Tensor, own: Tensor | None) -> Tensor:
    """Mean [B, D] over the patches of tokens [B, L, D] that are no padding."""
    if own is None:
        return tokens[:, 1:].mean(1)
    inside = own[:, 1:, None]
    return torch.where(inside, tokens[:, 1:], 0).sum(1) / inside.sum(1)


def _normed(x: Tensor, norm: nn.LayerNorm) -> Normed:
    variance, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
    deviation = (variance + norm.eps).sqrt()
    return Normed((x - mean) / deviation, deviation)
