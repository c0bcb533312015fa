"""CLIP's two sides. The image side stops before its last block, whose tokens last_block.py takes (clip 2.3, 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from amn_dist.models.clip.layers import Activation, Block, Transformer


@dataclass(frozen=True)
class ClipShape:
    """Sizes of a network. grid: patches a side that it was trained on; context, vocabulary: tokens of a text."""

    embed: int = 512
    width: int = 768
    depth: int = 12
    patch: int = 16
    grid: int = 14
    text_width: int = 512
    text_depth: int = 12
    context: int = 77
    vocabulary: int = 49408


class Vision(nn.Module):
    """The image side."""

    def __init__(self, shape: ClipShape, activation: Activation) -> None:
        super().__init__()
        width = shape.width
        self.patch, self.grid = shape.patch, shape.grid
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(shape.grid**2 + 1, width))
        self.proj = nn.Parameter(torch.empty(width, shape.embed).normal_(std=width**-0.5))
        self.conv1 = nn.Conv2d(3, width, shape.patch, stride=shape.patch, bias=False)
        self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
        self.transformer = Transformer(width, shape.depth, activation)
        self.half_position = True

    @property
    def last(self) -> Block:
        """The block that is evaluated separately."""
        block = self.transformer.resblocks[-1]
        assert isinstance(block, Block)
        return block

    def embedded(self, x: Tensor) -> Tensor:
        """Tokens [B, 1 + P, D] of images f32[B, 3, h patches, w patches]: class token, then patches row by row."""
        cells = x.unflatten(3, (-1, self.patch)).unflatten(2, (-1, self.patch)).permute(0, 2, 4, 1, 3, 5)
        # A product, not a convolution: cuDNN would round its input to TF32.
        patches = functional.linear(cells.flatten(3), self.conv1.weight.flatten(1))
        first = self.class_embedding.expand(len(x), 1, -1)
        tokens = torch.cat([first, patches.flatten(1, 2).to(first.dtype)], 1)
        return self.ln_pre(tokens + self.positions((patches.shape[1], patches.shape[2])))

    def positions(self, size: tuple[int, int]) -> Tensor:
        """Position table [1 + P, D] of a grid."""
        return position_table(self.positional_embedding, self.grid, size, half=self.half_position)

    def lower(self, precision: torch.dtype) -> None:
        """Round the factors of products in all blocks but the last to a type; sums and tokens keep theirs."""
        for block in self.transformer.resblocks[:-1]:
            assert isinstance(block, Block)
            block.lower(precision)

    def tokens(self, x: Tensor, *, attention_blocks: int = 8) -> tuple[Tensor, Tensor]:
        """Tokens before the last block of images f32[B, 3, h patches, w patches], and attention between their patches
        f32[B, P, P] summed over heads and blocks.

        attention_blocks: how many of all blocks count, from behind; the last one's share is not in yet.
        """
        return self._through_blocks(self.embedded(x), attention_blocks, None)

    def padded_tokens(self, images: Sequence[Tensor], *, attention_blocks: int = 8) -> tuple[Tensor, Tensor, Tensor]:
        """`tokens` of images f32[3, H, W] of any grids, as many as the largest has, and which are an image's own,
        bool[B, L]; what stands at the others, behind them, means nothing."""
        parts = [self.embedded(image[None])[0] for image in images]
        own = pad_sequence([torch.ones(len(part), dtype=torch.bool, device=part.device) for part in parts], True)
        return *self._through_blocks(pad_sequence(parts, True), attention_blocks, own), own

    def _through_blocks(self, x: Tensor, attention_blocks: int, own: Tensor | None) -> tuple[Tensor, Tensor]:
        patches = x.shape[1] - 1
        total = torch.zeros(
            len(x), patches, patches, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device
        )
        blocks = self.transformer.resblocks
        for number, block in enumerate(blocks[:-1]):
            x = block(x, total=total if number >= len(blocks) - attention_blocks else None, own=own)
        return x, total


class ClipNet(nn.Module):
    """Both sides, names of the parameters as in OpenAI's archives."""

    def __init__(self, shape: ClipShape, activation: Activation = "quick_gelu") -> None:
        super().__init__()
        self.shape = shape
        self.visual = Vision(shape, activation)
        self.transformer = Transformer(shape.text_width, shape.text_depth, activation)
        self.token_embedding = nn.Embedding(shape.vocabulary, shape.text_width)
        self.positional_embedding = nn.Parameter(torch.zeros(shape.context, shape.text_width))
        self.ln_final = nn.LayerNorm(shape.text_width)
        self.text_projection = nn.Parameter(torch.empty(shape.text_width, shape.embed).normal_(std=0.1))
        self.logit_scale = nn.Parameter(torch.tensor(100.0).log())

    def encode_text(self, ids: Tensor) -> Tensor:
        """Features [N, E] of texts int[N, context], zeros behind the end token, which has the largest id."""
        end = ids.argmax(1)
        # Causal attention: what stands behind the end token cannot change its row.
        length = int(end.max()) + 1
        x = self.token_embedding(ids[:, :length]) + self.positional_embedding[:length]
        for block in self.transformer.resblocks:
            x = block(x, causal=True)
        return self.ln_final(x)[torch.arange(len(x), device=x.device), end] @ self.text_projection


@torch.no_grad()
def text_features(network: ClipNet, ids: Tensor) -> Tensor:
    """Unit rows [N, E] of N phrases in T templates, int[N, T, context]: unit features, their mean, made unit again."""
    features = functional.normalize(network.encode_text(ids.flatten(0, 1)), dim=-1)
    return functional.normalize(features.unflatten(0, ids.shape[:2]).mean(1), dim=-1)


def position_table(table: Tensor, grid: int, size: tuple[int, int], *, half: bool = True) -> Tensor:
    """Position embedding [1 + grid^2, D] resized bilinearly to [1 + h w, D], its first row as it is.

    half: rounded to float16, as published on every device (clip 3.2).
    """
    square = table[1:].T.reshape(1, -1, grid, grid)
    resized = functional.interpolate(square, size=size, mode="bilinear", align_corners=False)[0]
    whole = torch.cat([table[:1], resized.flatten(1).T])
    return whole.half().to(table.dtype) if half else whole


def shape_of(tensors: Mapping[str, Tensor]) -> ClipShape:
    """The sizes of a network, of its tensors by OpenAI's names. Raises KeyError or IndexError where one is missing."""
    blocks = [name.split(".") for name in tensors if ".resblocks." in name]
    conv, words = tensors["visual.conv1.weight"], tensors["token_embedding.weight"]
    return ClipShape(
        embed=tensors["text_projection"].shape[1],
        width=conv.shape[0],
        depth=len({parts[3] for parts in blocks if parts[0] == "visual"}),
        patch=conv.shape[-1],
        grid=round((len(tensors["visual.positional_embedding"]) - 1) ** 0.5),
        text_width=words.shape[1],
        text_depth=len({parts[2] for parts in blocks if parts[0] == "transformer"}),
        context=len(tensors["positional_embedding"]),
        vocabulary=len(words),
    )
