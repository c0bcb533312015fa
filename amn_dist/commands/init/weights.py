"""Which pretrained backbones are at hand: a file or folder that is named, or the usual places."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from amn_dist.config import BackboneSection
from amn_dist.errors import ConfigError, printable
from amn_dist.models.backbones.architectures import ARCHITECTURES
from amn_dist.models.weight_files import check_backbone_weights
from amn_dist.models.weights import ENDINGS, torchvision_cache

USUAL = Path("weights")
"""Folder of weights beside the configurations, as `weights` of a configuration has it without a word."""
MOST = 32
"""Files of a folder that are looked at."""
TRIED = ("resnet50", "vgg16", "resnet101")
"""Architectures that weights may be of, the first choice first."""


@dataclass(frozen=True)
class FoundWeights:
    """Pretrained weights by backbone: `torchvision`, or a file. looked: where they were looked for, in words."""

    by_backbone: dict[str, str]
    looked: str


def find_weights(named: Path | None) -> FoundWeights:
    """What is at hand. named: a file or folder of the user's; without it the usual places.

    Raises ConfigError where a file that is named, or all of a folder, is of no backbone.
    """
    if named is not None:
        found = _in_files([named] if named.is_file() else _files(named))
        if not found:
            expected = f"weights of {', '.join(TRIED)} as {', '.join(ENDINGS)}"
            what = "no weights that fit a backbone" if named.exists() else "nothing"
            raise ConfigError(f"--weights {printable(named)}: found {what}, expected {expected}")
        return FoundWeights(found, str(named))
    cached = {name: "torchvision" for name in TRIED if is_cached(name)}
    looked = f"folder {USUAL}, torchvision's downloads in {Path(torch.hub.get_dir()) / 'checkpoints'}"
    return FoundWeights({**_in_files(_files(USUAL)), **cached}, looked)


def is_cached(name: str) -> bool:
    """Whether torchvision's weights of a backbone were downloaded before, so that no network is needed."""
    return ARCHITECTURES[name].torchvision is not None and torchvision_cache(name).is_file()


def backbone_of(file: Path) -> str | None:
    """The backbone that a file's weights fit by names and shapes, or None."""
    for name in TRIED:
        section = BackboneSection(name=name, stride=ARCHITECTURES[name].strides[0])  # type: ignore[arg-type]
        try:
            check_backbone_weights(section, str(file))
        except ConfigError:
            continue
        return name
    return None


def _in_files(files: list[Path]) -> dict[str, str]:
    pairs = [(name, str(file.resolve())) for file in files if (name := backbone_of(file)) is not None]
    return dict(reversed(pairs))  # of several the first


def _files(folder: Path) -> list[Path]:
    return sorted(_weight_files(folder))[:MOST]


def _weight_files(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        yield from (path for path in folder.iterdir() if path.is_file() and path.name.endswith(ENDINGS))
