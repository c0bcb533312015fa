"""A small CLIP of random weights and a vocabulary of four merges, drawn anew."""

from __future__ import annotations

import gzip
from pathlib import Path

import torch
from safetensors.torch import save_file

from amn_dist.models.clip.layers import Activation
from amn_dist.models.clip.network import ClipNet, ClipShape

MERGES = (("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>"))
SMALL = ClipShape(
    embed=24, width=128, depth=3, grid=3, text_width=64, text_depth=2, context=16, vocabulary=2 * 256 + len(MERGES) + 2
)


def draw_clip(shape: ClipShape = SMALL, activation: Activation = "quick_gelu", seed: int = 0) -> ClipNet:
    """A network whose every parameter is random."""
    torch.manual_seed(seed)
    network = ClipNet(shape, activation).requires_grad_(False).eval()
    for name, parameter in network.named_parameters():
        parameter.normal_(std=0.3 if parameter.ndim < 2 else 1.5 * parameter.shape[-1] ** -0.5)
        if name.endswith("weight") and parameter.ndim == 1:
            parameter.add_(1)
    network.logit_scale.fill_(3.0)
    return network


def write_vocabulary(folder: Path) -> Path:
    """A file of MERGES."""
    with gzip.open(folder / "merges.txt.gz", "wt") as file:
        file.write("heading\n" + "\n".join(map(" ".join, MERGES)) + "\n")
    return folder / "merges.txt.gz"


def write_clip(folder: Path) -> Path:
    """The folder with weights.safetensors and merges.txt.gz."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: one.contiguous() for name, one in draw_clip().state_dict().items()}, folder / "clip.safetensors")
    write_vocabulary(folder)
    return folder
