"""CLIP weights under anybody's names into ours, which are OpenAI's: open_clip's and Hugging Face's (clip 7)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from amn_dist.errors import PLACE, ConfigError, printable
from amn_dist.models.clip.archive import is_archive, read_archive
from amn_dist.models.clip.layers import Activation
from amn_dist.models.clip.network import ClipNet, ClipShape, shape_of
from amn_dist.models.weights import check_fit, fill, read_tensors

DROPPED = re.compile(r"(input_resolution|context_length|vocab_size|attn_mask|.*\.position_ids)$")
"""Entries of published files that are no weights."""

WHOLE = {
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_projection.weight": "text_projection",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "visual_projection.weight": "visual.proj",
}
"""Hugging Face's names and ours."""
PARTS = (
    ("text_model.encoder.layers.", "transformer.resblocks."),
    ("vision_model.encoder.layers.", "visual.transformer.resblocks."),
    ("text_model.final_layer_norm.", "ln_final."),
    ("vision_model.pre_layrnorm.", "visual.ln_pre."),
    ("vision_model.post_layernorm.", "visual.ln_post."),
    (".self_attn.out_proj.", ".attn.out_proj."),
    (".layer_norm1.", ".ln_1."),
    (".layer_norm2.", ".ln_2."),
    (".mlp.fc1.", ".mlp.c_fc."),
    (".mlp.fc2.", ".mlp.c_proj."),
)
"""Parts of Hugging Face's names and of ours. pre_layrnorm is spelled so."""
THIRD = re.compile(r"(.*)\.self_attn\.([qkv])_proj\.(weight|bias)$")
ROUNDED = re.compile(r"(.*\.)?(conv1|in_proj|out_proj|c_fc|c_proj)[._](weight|bias)$|visual\.proj$|text_projection$")
"""What the published code holds in float16: linear layers, convolutions and projections."""


def load_clip(
    path: str | os.PathLike[str], *, activation: Activation = "quick_gelu", half_weights: bool = True
) -> ClipNet:
    """The network of a file of weights, ready to infer on the CPU; its sizes are those of its tensors.

    path: OpenAI's archive, or .safetensors, .pt, .pth with names of OpenAI, open_clip or Hugging Face. half_weights:
    linear layers rounded to float16, as the published code does with any file on any device.
    Raises ConfigError naming the file and the tensors that are missing, unknown or misshapen.
    """
    where = printable(os.fspath(path), PLACE)
    tensors, shape = _tensors_and_shape(Path(path))
    network = ClipNet(shape, activation)
    if half_weights:
        tensors = {name: one.half().float() if ROUNDED.match(name) else one for name, one in tensors.items()}
    fill(network, tensors, where=where)
    return network.eval().requires_grad_(False)


def check_clip(path: str | os.PathLike[str]) -> ClipShape:
    """The sizes of a network whose weights a file holds, of names and shapes alone where its format has them.

    Raises ConfigError as load_clip does.
    """
    tensors, shape = _tensors_and_shape(Path(path), shapes_only=True)
    with torch.device("meta"):
        network = ClipNet(shape)
    check_fit(network.state_dict(), tensors, where=printable(os.fspath(path), PLACE))
    return shape


def _tensors_and_shape(file: Path, *, shapes_only: bool = False) -> tuple[dict[str, Tensor], ClipShape]:
    """Tensors of a file by OpenAI's names, in float32, and what they say of the network."""
    read = read_archive if file.suffix == ".pt" and is_archive(file) else read_tensors
    tensors = {name: tensor.float() for name, tensor in published_names(read(file, shapes_only=shapes_only)).items()}
    try:
        return tensors, shape_of(tensors)
    except (KeyError, IndexError) as error:
        raise ConfigError(
            f"{printable(file, PLACE)}: found no weights of a CLIP with a vision transformer ({printable(error)} is "
            "missing); give ViT-B-16.pt or another one's"
        ) from error


def published_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by OpenAI's names, of a file with any of the three; entries that are no weights are left out."""
    kept = {name.removeprefix("module."): one for name, one in tensors.items() if not DROPPED.match(name)}
    if any(name.startswith("vision_model.") for name in kept):
        return _of_hugging_face(kept)
    return {name.removeprefix("text."): one for name, one in kept.items()}


def _of_hugging_face(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    named: dict[str, Tensor] = {}
    thirds: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if third := THIRD.match(name):
            ours = _renamed(f"{third[1]}.attn.in_proj_{third[3]}")
            thirds.setdefault(ours, {})[third[2]] = tensor
        else:
            named[_renamed(name)] = tensor.T if name.endswith("_projection.weight") else tensor
    for ours, parts in thirds.items():
        if len(parts) == 3:  # else the whole one is missing, and said to be
            named[ours] = torch.cat([parts[letter] for letter in "qkv"])
    return named


def _renamed(name: str) -> str:
    name = WHOLE.get(name, name)
    for theirs, ours in PARTS:
        name = name.replace(theirs, ours)
    return name
