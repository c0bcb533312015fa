"""Maps of a frozen CLIP: GradCAM of an image's tags, spread along attention. No stage trains for them (clip 1 to 5)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence

from amn_dist.errors import printable
from amn_dist.interfaces import Needs
from amn_dist.loaders.evidence import TensorMaps, hand_out
from amn_dist.loaders.grouping import Finish, in_groups
from amn_dist.models.clip.downloads import SOURCES
from amn_dist.models.clip.last_block import last_pass
from amn_dist.models.clip.network import ClipNet
from amn_dist.models.clip.relevance import relevances
from amn_dist.models.clip.texts import Prompts, TextRows, text_rows, words_of
from amn_dist.models.clip.tokens import read_tokeniser
from amn_dist.models.clip.weights import check_clip, load_clip
from amn_dist.models.inference import batch_pixels, device_of
from amn_dist.models.weights import read_tensors
from amn_dist.ops.allocator import keep_freed_memory
from amn_dist.ops.clip.patches import patch_size, resized
from amn_dist.ops.clip.refine import box_masks, positive_maps, spread, stretched
from amn_dist.ops.normalise import input_batch
from amn_dist.ops.transfer import all_to_device, inference_device, to_device, to_host
from amn_dist.records import ACTIVATION, Sample, grid_size
from amn_dist.storage.atomic import commit
from amn_dist.storage.paths import path_of

if TYPE_CHECKING:  # annotations alone: networks and fits run without pydantic
    from amn_dist.config import ClipMapSection, Config

FEATURES, PROMPTS = "text.safetensors", "prompts.json"
"""What is kept of the text side in the stage's folder: features, and the words they are of."""


@dataclass(frozen=True)
class ClipWorker:
    """A network on its device with the features of the words."""

    network: ClipNet
    texts: TextRows


@dataclass(frozen=True)
class ClipMap:
    """Writes the stride-4 activation maps of the tagged classes, f16[K, h, w], stored as those of the patches.

    classes: of the set, background first. texts: file of text features, made once a run; they are made here without.
    """

    config: Config
    classes: tuple[str, ...]
    texts: str = ""
    name: str = "clip_map"
    needs: Needs = "network"
    fields: tuple[str, ...] = (ACTIVATION,)

    @property
    def weight_files(self) -> Mapping[str, str]:
        """Weights and vocabulary. Raises ConfigError naming the one that is missing, and what to download."""
        files = {part: self.config.weights_path(getattr(self.config.clip_map, part)) for part in SOURCES}
        for part, file in files.items():
            SOURCES[part].require(f"clip_map.{part}", file)
        return {f"clip {part}": file for part, file in files.items()}

    def check_weights(self) -> None:
        """Raise ConfigError unless both files belong to one network that takes the words as configured."""
        files, shape = self.weight_files, check_clip(self.weight_files["clip weights"])
        read_tokeniser(files["clip vocabulary"], shape.vocabulary).rows(self.prompts().sentences(), shape.context)

    def prompts(self) -> Prompts:
        """The words as configured."""
        section = self.config.clip_map
        return Prompts(section.templates, words_of(self.classes[1:], section.names), section.background)

    def prepare(self, folder: str) -> tuple[ClipMap, str]:
        """Make the text features and keep them in the stage's folder, the words beside them."""
        prompts, place = self.prompts(), path_of(folder)
        rows = self._text_rows(self._network())
        words = {**asdict(prompts), "classes": dict(zip(self.classes[1:], prompts.classes, strict=True))}
        commit(place / PROMPTS, (json.dumps(words, indent=1, ensure_ascii=False) + "\n").encode())
        commit(place / FEATURES, save(asdict(rows)))
        sentence = printable(" ".join(prompts.templates))
        told = f"{len(prompts.classes)} classes, {len(prompts.background)} words of the background, in {sentence}"
        return replace(self, texts=str(place / FEATURES)), f"{told} ({PROMPTS})"

    def open(self) -> ClipWorker:
        network, device = self._network(), inference_device()
        rows = TextRows(**read_tensors(self.texts)) if self.texts else self._text_rows(network)
        keep_freed_memory()
        network.visual.lower(precision_of(self.config.clip_map.precision, device))
        return ClipWorker(network.to(device), TextRows(rows.classes.to(device), rows.background.to(device)))

    def run(self, opened: ClipWorker, samples: Iterator[Sample]) -> Iterator[Sample]:
        section, pixels = self.config.clip_map, batch_pixels(self.config.infer, opened.network)

        def infer(group: list[Sample]) -> Finish | None:
            images, tags = [sample.image for sample in group], [sample.tags for sample in group]
            maps = patch_maps(opened, images, tags, section)
            return hand_out(self.name, group, at_both_sizes(images, tags, maps), stored=maps)

        def stretched_size(sample: Sample) -> tuple[int, int]:
            return patch_size(sample.image.shape[:2], opened.network.visual.patch)

        return in_groups(samples, infer, batch_pixels=pixels, size=stretched_size)

    def _network(self) -> ClipNet:
        section = self.config.clip_map
        file = self.weight_files["clip weights"]
        network = load_clip(file, activation=section.activation, half_weights=section.half_weights)
        network.visual.half_position = section.half_position
        return network

    def _text_rows(self, network: ClipNet) -> TextRows:
        tokeniser = read_tokeniser(self.weight_files["clip vocabulary"], network.shape.vocabulary)
        return text_rows(network, tokeniser, self.prompts())


def tensors_clip(
    opened: ClipWorker, images: Sequence[np.ndarray], tags: Sequence[np.ndarray], section: ClipMapSection
) -> list[TensorMaps]:
    """Classes and maps of images uint8[H, W, 3] whose patches make equal grids, where the network is, on the stride-4
    grid and at the photograph's size. tags: [C-1] multi-hot."""
    return at_both_sizes(images, tags, patch_maps(opened, images, tags, section))


@torch.inference_mode()
def patch_maps(
    opened: ClipWorker, images: Sequence[np.ndarray], tags: Sequence[np.ndarray], section: ClipMapSection
) -> list[Tensor]:
    """Maps f32[K, h', w'] of the patches of images, as tensors_clip takes them.

    Their boxes are found on the host, which waits for K maps of an image once a group.
    """
    vision, device = opened.network.visual, device_of(opened.network)
    present = [np.flatnonzero(of_image) for of_image in tags]
    counts = [len(places) for places in present]
    size = patch_size(images[0].shape[:2], vision.patch)
    grid = size[0] // vision.patch, size[1] // vision.patch
    if not any(counts):
        return [torch.zeros(0, *grid, device=device) for _ in images]
    pixels = input_batch(resized(images, device, vision.patch), "clip")
    tokens, attention = vision.tokens(pixels, attention_blocks=section.attention_blocks)
    seen = last_pass(opened.network, tokens)
    attention += seen.weights[:, :, 1:, 1:].sum(1)
    attention /= vision.last.attn.heads * min(section.attention_blocks, len(vision.transformer.resblocks))
    texts = [opened.texts.of_tags(places) for places in all_to_device(present, device)]
    relevance = relevances(opened.network, seen, texts, counts, scale_free=section.scale_free)
    maps = positive_maps(pad_sequence([one.maps for one in relevance], batch_first=True))
    refined = stretched(spread(attention, maps, _boxes(maps, grid, section), section.sinkhorn)).unflatten(-1, grid)
    return [one[:count] for one, count in zip(refined, counts, strict=True)]


@torch.inference_mode()
def at_both_sizes(images: Sequence[np.ndarray], tags: Sequence[np.ndarray], maps: Sequence[Tensor]) -> list[TensorMaps]:
    """Classes of images, and their maps [K, h', w'] bilinearly on the stride-4 grid and at their sizes."""
    trios = zip(images, tags, maps, strict=True)
    return [
        (
            (np.flatnonzero(of_image) + 1).astype(np.uint8),
            _resized(one, grid_size(*image.shape[:2])),
            _resized(one, image.shape[:2]),
        )
        for image, of_image, one in trios
    ]


def _resized(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    if not len(maps):
        return maps.new_zeros(0, *size)
    return functional.interpolate(maps[None], size=size, mode="bilinear", align_corners=False)[0]


def precision_of(name: str, device: torch.device) -> torch.dtype:
    """Of products in all blocks but the last."""
    half = name == "fp16" or (name == "auto" and device.type != "cpu")
    return torch.float16 if half else torch.float32


def _boxes(maps: Tensor, grid: tuple[int, ...], section: ClipMapSection) -> Tensor:
    """Where the sources of refinement are, bool[B, K, P] on the device of the maps f32[B, K, P]."""
    (array,) = to_host([maps]).arrays()
    boxes = box_masks(array.reshape(-1, *grid), section.box, cut=section.cut_boxes)
    return to_device(boxes.reshape(array.shape), maps.device)
