"""GradCAM of tags in the last block of CLIP, in closed form: one forward pass, no autograd (clip 3.3, 4).

The class token comes first among tokens; it is no part of means and maps. Names follow clip 4 of docs/method.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from amn_dist.models.clip.layers import Block, attention_weights, joined
from amn_dist.models.clip.network import ClipNet


@dataclass(frozen=True)
class Normed:
    """A layer norm's input [..., D] at mean 0 and deviation 1, and the deviation [..., 1] it had."""

    values: Tensor
    deviation: Tensor

    def backward(self, gradient: Tensor) -> Tensor:
        """Gradient to the input, of the gradient to `values`."""
        along = (gradient * self.values).mean(-1, keepdim=True)
        return (gradient - gradient.mean(-1, keepdim=True) - self.values * along) / self.deviation


@dataclass(frozen=True)
class LastPass:
    """What the last block makes of tokens [B, L, D] on the way, [B, ...] each.

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


@dataclass(frozen=True)
class Relevance:
    """Of one image: the logits and probabilities [K + N] of its tags and of the background words, the channel weights
    [K, D] of its tags, and their maps [K, P] before anything is cut off."""

    logits: Tensor
    probabilities: Tensor
    channels: Tensor
    maps: Tensor


def last_pass(network: ClipNet, x: Tensor) -> LastPass:
    """The last block and the pooled feature: the mean of the patch tokens, without the class token."""
    vision, block = network.visual, network.visual.last
    z = block.ln_1(x)
    q, k, v = block.attn.project(z)
    weights = attention_weights(q, k)
    attended = weights @ v
    y = x + block.attn.out_proj(joined(attended))
    middle = _normed(y, block.ln_2)
    hidden = block.mlp.c_fc(middle.values * block.ln_2.weight + block.ln_2.bias)
    last = _normed(y + block.mlp.c_proj(block.mlp.activate(hidden)), vision.ln_post)
    pooled = last.values[:, 1:].mean(1) * vision.ln_post.weight + vision.ln_post.bias
    return LastPass(z, q, k, v, weights, attended, middle, hidden, last, pooled @ vision.proj)


def relevances(
    network: ClipNet, seen: LastPass, texts: Sequence[Tensor], tags: Sequence[int], *, scale_free: bool = False
) -> list[Relevance]:
    """GradCAM of the tags of every image of a pass.

    texts: unit rows [K + N, E] of an image's tags and of the background words. tags: K of each image. scale_free: the
    gradient of a probability without the factor of that probability, so that tags of next to none keep their maps.
    """
    shared = seen.last.values[:, 1:] @ network.visual.last.mlp.c_proj.weight
    chosen = zip(texts, tags, strict=True)
    return [_of_image(network, seen, place, shared[place], *one, scale_free) for place, one in enumerate(chosen)]


def _of_image(
    network: ClipNet, seen: LastPass, place: int, shared: Tensor, texts: Tensor, tags: int, scale_free: bool
) -> Relevance:
    scale, feature = network.logit_scale.exp(), seen.feature[place]
    logits = scale * functional.normalize(feature, dim=0) @ texts.T
    probabilities = logits.softmax(0)
    to_feature = feature_gradients(feature, texts, probabilities, tags, scale, scale_free=scale_free)
    vision = network.visual
    to_last = vision.ln_post.weight * (to_feature @ vision.proj.T) / (seen.z.shape[1] - 1)
    channels = [_channel_weights(vision.last, seen, place, shared, row) for row in to_last]
    weights = torch.stack(channels) if channels else to_last
    return Relevance(logits, probabilities, weights, weights @ seen.z[place, 1:].T)


def feature_gradients(
    feature: Tensor, texts: Tensor, probabilities: Tensor, tags: int, scale: Tensor, *, scale_free: bool = False
) -> Tensor:
    """Gradients [K, E] of the first K probabilities to the feature [E].

    A sum of differences between texts, so that nothing cancels where a probability is close to 1.
    """
    apart = torch.einsum("n,kne->ke", probabilities, texts[:tags, None] - texts[None])
    if not scale_free:
        apart = apart * probabilities[:tags, None]
    length = feature.norm()
    unit = feature / length
    return scale / length * (apart - (apart @ unit)[:, None] * unit)


def _channel_weights(block: Block, seen: LastPass, place: int, shared: Tensor, to_last: Tensor) -> Tensor:
    """Mean over the patches of the gradient [D] to z, of the gradient [D] that every patch's last token receives.

    shared: the last tokens [P, 4D] times the MLP's second layer, the same for all tags.
    """
    after_mlp, into_hidden = _through_last_norm(seen.last, place, shared, to_last, block)
    to_hidden = into_hidden * block.mlp.slope(seen.hidden[place, 1:])
    to_middle = to_hidden @ block.mlp.c_fc.weight * block.ln_2.weight
    middle = Normed(seen.middle.values[place, 1:], seen.middle.deviation[place, 1:])
    after_attention = after_mlp + middle.backward(to_middle)
    heads = block.attn.heads
    to_attended = (after_attention @ block.attn.out_proj.weight).unflatten(-1, (heads, -1)).transpose(0, 1)
    sums = _attention_sums(seen, place, to_attended)
    return sums @ block.attn.in_proj_weight / len(shared)


def _through_last_norm(
    last: Normed, place: int, shared: Tensor, to_last: Tensor, block: Block
) -> tuple[Tensor, Tensor]:
    """Gradients to the tokens behind the MLP [P, D] and, through its second layer, to its hidden values [P, 4D]."""
    values, deviation = last.values[place, 1:], last.deviation[place, 1:]
    centred = to_last - to_last.mean()
    along = (values @ centred)[:, None] / values.shape[-1]
    to_tokens = (centred - along * values) / deviation
    return to_tokens, (centred @ block.mlp.c_proj.weight - along * shared) / deviation


def _attention_sums(seen: LastPass, place: int, to_attended: Tensor) -> Tensor:
    """Sums over the patches of the gradients to q, k and v, one after the other: [3 D].

    to_attended: [heads, P, d]. Rows of a softmax's gradient sum to zero, so that column 0 says what the others come to.
    """
    q, k, v = (rows[place] for rows in (seen.q, seen.k, seen.v))
    weights, attended = seen.weights[place, :, 1:], seen.attended[place, :, 1:]
    own = (to_attended * attended).sum(-1, keepdim=True)
    to_class = weights[..., :1]
    of_v = ((1 - to_class) * to_attended).sum(1)
    of_k = -(to_class * ((to_attended @ v[:, :1].transpose(1, 2)) - own) * q[:, 1:]).sum(1)
    moved = weights.transpose(1, 2) @ torch.cat([to_attended, own], -1)
    of_q = (((moved[..., :-1] * v).sum(-1, keepdim=True) - moved[..., -1:]) * k).sum(1)
    scale = q.shape[-1] ** -0.5
    return torch.cat([scale * of_q.flatten(), scale * of_k.flatten(), of_v.flatten()])


def _normed(x: Tensor, norm: nn.LayerNorm) -> Normed:
    variance, mean = torch.var_mean(x, -1, correction=0, keepdim=True)
    deviation = (variance + norm.eps).sqrt()
    return Normed((x - mean) / deviation, deviation)
