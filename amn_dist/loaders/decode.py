"""Bytes to pixels: the choice between the decoders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from amn_dist.config import Loader
from amn_dist.loaders.decoder import CropDecoder
from amn_dist.records import CropRule


def crop_decoder(rule: CropRule, *, loader: Loader, device: str = "cpu") -> CropDecoder:
    """The configured decoder of training crops. device: `cpu` or `gpu`, where DALI decodes; its images stay there."""
    if loader.name == "dali":
        from amn_dist.loaders.dali import DaliCrops

        return DaliCrops(rule, threads=loader.threads, ahead=loader.ahead, device=device)
    from amn_dist.loaders.torchvision import TorchvisionCrops

    return TorchvisionCrops(rule, threads=loader.threads, ahead=loader.ahead)


def decode_images(encoded: Iterable[tuple[str, bytes]], *, loader: Loader, device: str = "cpu") -> Iterator[np.ndarray]:
    """Decode whole photos ahead of their use: (key, bytes) to uint8[H, W, 3] RGB, upright, in order.

    Raises ShardError naming the key of a photo that cannot be decoded. Closing the iterator ends its threads.
    """
    if loader.name == "dali":
        from amn_dist.loaders.dali import dali_images

        return dali_images(encoded, threads=loader.threads, ahead=loader.ahead, device=device)
    from amn_dist.loaders.torchvision import torchvision_images

    return torchvision_images(encoded, threads=loader.threads, ahead=loader.ahead)
