"""GradCAM of tags in the last block of CLIP, in closed form: one forward pass, no autograd (clip 3.3, 4).

The class token comes first among tokens; it is no part of means and maps. Names follow clip 4 of docs/method.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from amn_dist.models.clip.last_block import LastPass, Normed, image_of
from amn_dist.models.clip.layers import Block
from amn_dist.models.clip.network import ClipNet


@dataclass(frozen=True)
class Relevance:
    """Of one image: the logits and probabilities [K + N] of its tags and of the background words, the channel weights
    [K, D] of its tags, and their maps [K, P] before anything is cut off."""

    logits: Tensor
    probabilities: Tensor
    channels: Tensor
    maps: Tensor


def relevances(
    network: ClipNet,
    seen: LastPass,
    texts: Sequence[Tensor],
    tags: Sequence[int],
    *,
    patches: Sequence[int] | None = None,
    scale_free: bool = False,
) -> list[Relevance]:
    """GradCAM of the tags of every image of a pass.

    texts: unit rows [K + N, E] of an image's tags and of the background words. tags: K of each image. patches: of each
    image, behind which padding stands; all are its own without. scale_free: the gradient of a probability without the
    factor of that probability, so that tags of next to none keep their maps.
    """
    counts = patches or [seen.z.shape[1] - 1] * len(tags)
    one = zip(texts, tags, counts, strict=True)
    return [
        _of_image(network, image_of(seen, place, count), rows, number, scale_free)
        for place, (rows, number, count) in enumerate(one)
    ]


def _of_image(network: ClipNet, seen: LastPass, texts: Tensor, tags: int, scale_free: bool) -> Relevance:
    scale, vision = network.logit_scale.exp(), network.visual
    logits = scale * functional.normalize(seen.feature, dim=0) @ texts.T
    probabilities = logits.softmax(0)
    to_feature = feature_gradients(seen.feature, texts, probabilities, tags, scale, scale_free=scale_free)
    to_last = vision.ln_post.weight * (to_feature @ vision.proj.T) / (len(seen.z) - 1)
    weights = _channel_weights(vision.last, seen, to_last) if tags else to_last
    return Relevance(logits, probabilities, weights, weights @ seen.z[1:].T)


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


def _channel_weights(block: Block, seen: LastPass, to_last: Tensor) -> Tensor:
    """Means over the patches of the gradients [K, D] to z, of the gradients [K, D] that every patch's last token
    receives: of one tag after the other on a CPU, whose caches hold one; else of all together, in few launches."""
    slopes = block.mlp.slope(seen.hidden[1:]) / seen.last.deviation[1:]
    through = _Hidden(slopes, (seen.last.values[1:] @ block.mlp.c_proj.weight) * slopes)
    centred = to_last - to_last.mean(1, keepdim=True)
    together = 1 if centred.device.type == "cpu" else len(centred)
    sums = [_attention_sums(seen, _to_attended(block, seen, through, rows)) for rows in centred.split(together)]
    return torch.cat(sums) @ block.attn.in_proj_weight / (len(seen.z) - 1)


@dataclass(frozen=True)
class _Hidden:
    """What all tags share on the way back through the last norm and the MLP's second layer, [P, 4D].

    slopes: of the activation, over the deviation before the norm. values: slopes times the normed tokens there.
    """

    slopes: Tensor
    values: Tensor


def _to_attended(block: Block, seen: LastPass, shared: _Hidden, centred: Tensor) -> Tensor:
    """Gradients [K, heads, P, d] to the attended values, of gradients [K, D] to every normed last token, mean zero."""
    last, middle = (Normed(one.values[1:], one.deviation[1:]) for one in (seen.last, seen.middle))
    along = (centred @ last.values.T)[..., None] / centred.shape[-1]
    rows = centred[:, None]
    after_mlp = (rows - along * last.values) / last.deviation
    to_hidden = (shared.slopes * (rows @ block.mlp.c_proj.weight)).addcmul_(along, shared.values, value=-1)
    to_middle = to_hidden @ block.mlp.c_fc.weight * block.ln_2.weight
    after_attention = after_mlp + middle.backward(to_middle)
    return (after_attention @ block.attn.out_proj.weight).unflatten(-1, (block.attn.heads, -1)).transpose(-2, -3)


def _attention_sums(seen: LastPass, to_attended: Tensor) -> Tensor:
    """Sums over the patches of the gradients to q, k and v, one after the other: [K, 3 D].

    to_attended: [K, heads, P, d]. Rows of a softmax's gradient sum to zero, so that column 0 says what the others come
    to.
    """
    q, k, v = seen.q, seen.k, seen.v
    weights, to_class = seen.weights[:, 1:], seen.weights[:, 1:, :1]
    own = (to_attended * seen.attended[:, 1:]).sum(-1, keepdim=True)
    of_v = ((1 - to_class) * to_attended).sum(-2)
    of_k = -(to_class * ((to_attended @ v[:, :1].transpose(1, 2)) - own) * q[:, 1:]).sum(-2)
    columns = torch.cat([to_attended, own], -1).permute(1, 2, 0, 3)
    moved = (weights.transpose(1, 2) @ columns.flatten(2)).unflatten(2, columns.shape[2:]).permute(2, 0, 1, 3)
    of_q = (((moved[..., :-1] * v).sum(-1, keepdim=True) - moved[..., -1:]) * k).sum(-2)
    scale = q.shape[-1] ** -0.5
    return torch.cat([scale * of_q.flatten(1), scale * of_k.flatten(1), of_v.flatten(1)], 1)
