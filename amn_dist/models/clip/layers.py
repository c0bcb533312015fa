"""The transformer of CLIP, names of its parameters as in OpenAI's archives (clip 3.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

HEAD = 64
"""Channels of an attention head, of every published model."""
STEEPNESS = 1.702
"""Of the sigmoid in QuickGELU."""

Activation = Literal["quick_gelu", "gelu"]
"""OpenAI's weights and those trained like them; most of open_clip's others."""


class Attention(nn.Module):
    """Multi-head self-attention; the rows of in_proj are those of q, k and v."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(width // HEAD, 1)
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width).normal_(std=width**-0.5))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def project(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v [B, heads, L, d] of tokens [B, L, D], in the type of the weights."""
        rows = functional.linear(z.to(self.in_proj_weight.dtype), self.in_proj_weight, self.in_proj_bias)
        q, k, v = rows.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return q, k, v

    def forward(
        self, z: Tensor, *, causal: bool = False, total: Tensor | None = None, own: Tensor | None = None
    ) -> Tensor:
        """Attended tokens. total: f32[B, P, P], to which the weights between patches are added, summed over heads.

        own: bool[B, L], false for padding, which nobody attends to.
        """
        q, k, v = self.project(z)
        if total is None:
            mask = None if own is None else own[:, None, None]
            attended = functional.scaled_dot_product_attention(q, k, v, mask, is_causal=causal)
        else:
            attended = _attend_and_count(q, k, v, total, own)
        return self.out_proj(joined(attended))


class Mlp(nn.Module):
    """Two linear layers around the activation."""

    def __init__(self, width: int, activation: Activation) -> None:
        super().__init__()
        self.c_fc, self.c_proj = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.activate, self.slope = ACTIVATIONS[activation]

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(self.activate(self.c_fc(x.to(self.c_fc.weight.dtype))))


class Block(nn.Module):
    """Attention and MLP, each behind its norm and beside the tokens it adds to."""

    def __init__(self, width: int, activation: Activation) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(width), Attention(width)
        self.ln_2, self.mlp = nn.LayerNorm(width), Mlp(width, activation)

    def forward(
        self, x: Tensor, *, causal: bool = False, total: Tensor | None = None, own: Tensor | None = None
    ) -> Tensor:
        x = x + self.attn(self.ln_1(x), causal=causal, total=total, own=own)
        return x + self.mlp(self.ln_2(x))

    def lower(self, precision: torch.dtype) -> None:
        """Round the factors of products to a type; norms, sums and tokens keep theirs."""
        self.attn.to(precision)
        self.mlp.to(precision)


class Transformer(nn.Module):
    """Blocks in a row."""

    def __init__(self, width: int, depth: int, activation: Activation) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, activation) for _ in range(depth))


def joined(heads: Tensor) -> Tensor:
    """Values [B, heads, L, d] as [B, L, D]."""
    return heads.transpose(1, 2).flatten(2)


def attention_weights(q: Tensor, k: Tensor, own: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) over the keys [B, heads, L, d] that are no padding (own: bool[B, L])."""
    scores = q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)
    if own is not None:
        scores = scores.masked_fill(~own[:, None, None], -torch.inf)
    return scores.softmax(-1)


def _attend_and_count(q: Tensor, k: Tensor, v: Tensor, total: Tensor, own: Tensor | None) -> Tensor:
    """Attended values; the weights of one head (on a CPU) or of all exist at a time."""
    if q.device.type != "cpu" or own is not None:
        weights = attention_weights(q, k, own)
        total += weights[:, :, 1:, 1:].sum(1, dtype=total.dtype)
        return weights @ v
    attended = torch.empty_like(v)
    for image in range(len(q)):
        for head in range(q.shape[1]):
            weights = attention_weights(q[image, head], k[image, head])
            total[image] += weights[1:, 1:]
            attended[image, head] = weights @ v[image, head]
    return attended


def _quick_gelu(t: Tensor) -> Tensor:
    return functional.silu(STEEPNESS * t) / STEEPNESS


def _quick_gelu_slope(t: Tensor) -> Tensor:
    s = torch.sigmoid(STEEPNESS * t)
    return s * (1 + STEEPNESS * t * (1 - s))


def _gelu_slope(t: Tensor) -> Tensor:
    density = torch.exp(-t * t / 2) * (2 * torch.pi) ** -0.5
    return (1 + torch.erf(t * 2**-0.5)) / 2 + t * density


ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "quick_gelu": (_quick_gelu, _quick_gelu_slope),
    "gelu": (functional.gelu, _gelu_slope),
}
"""Functions and their derivatives."""
