"""Bytes to pixels: the choice between the decoders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

import numpy as np

from amn_dist.config import Loader
from amn_dist.errors import ConfigError
from amn_dist.loaders.decoder import CropDecoder
from amn_dist.records import CropRule
from amn_dist.variables import whole_number

FEW_THREADS = 2
"""For a farm's worker that has a core, and beside a network that trains on the cores itself."""
MOST_THREADS = 16
"""Beside a GPU, which asks for about 1,400 crops a second at 7 ms each."""


def decoding_device(loader: Loader, trains_on: str) -> str:
    """Where the crops of a network that trains on `cuda` or `cpu` are decoded: `gpu` or `cpu`.

    Raises ConfigError when that is a GPU and none trains.
    """
    on_gpu = trains_on == "cuda"
    if loader.device == "gpu" and not on_gpu:
        raise ConfigError("loader.device gpu: found no GPU that torch can use; set loader.device=auto, or cpu")
    return "gpu" if on_gpu and loader.name == "dali" and loader.device != "cpu" else "cpu"


def training_threads(loader: Loader, trains_on: str) -> int:
    """Threads that read and decode for a training process; `auto` shares the machine's cores with those beside it."""
    if loader.threads != "auto" or trains_on != "cuda":
        return _threads(loader)
    cores = len(os.sched_getaffinity(0)) // whole_number("LOCAL_WORLD_SIZE", 1, least=1)
    return min(max(cores, FEW_THREADS), MOST_THREADS)


def image_threads(loader: Loader, cores: int) -> int:
    """Threads that decode whole photographs for a GPU with so many cores beside it; `auto` takes half of them.

    Decoding is a third of what a host spends on an image of a Map (benchmarks/results/host.json); the network's own
    thread, reading and encoding have the other half.
    """
    return min(max(cores // 2, FEW_THREADS), MOST_THREADS) if loader.threads == "auto" else loader.threads


def leaves_bytes(rule: CropRule, trains_on: str, device: str) -> bool:
    """Whether crops that are decoded on `cpu` or `gpu` are normalised where a network trains, `cuda` or `cpu`.

    That takes a quarter of the memory on the way. Bilinear resizing makes values between those of bytes.
    """
    return trains_on == "cuda" and device == "cpu" and rule.interpolation == "cubic"


def crop_decoder(
    rule: CropRule, *, loader: Loader, device: str = "cpu", threads: int | None = None, raw: bool = False
) -> CropDecoder:
    """The configured decoder of training crops. device: `cpu` or `gpu`, where DALI decodes; its images stay there.

    threads: in the place of the configured ones. raw: leave pixels as bytes.
    """
    threads = threads or _threads(loader)
    if loader.name == "dali":
        from amn_dist.loaders.dali import DaliCrops

        return DaliCrops(rule, threads=threads, ahead=loader.ahead, device=device, raw=raw)
    from amn_dist.loaders.torchvision import TorchvisionCrops

    return TorchvisionCrops(rule, threads=threads, ahead=loader.ahead, raw=raw)


def decode_images(encoded: Iterable[tuple[str, bytes]], *, loader: Loader, device: str = "cpu") -> Iterator[np.ndarray]:
    """Decode whole photos ahead of their use: (key, bytes) to uint8[H, W, 3] RGB, upright, in order.

    Raises ShardError naming the key of a photo that cannot be decoded. Closing the iterator ends its threads.
    """
    threads = _threads(loader)
    if loader.name == "dali":
        from amn_dist.loaders.dali import dali_images

        return dali_images(encoded, threads=threads, ahead=loader.ahead, device=device)
    from amn_dist.loaders.torchvision import torchvision_images

    return torchvision_images(encoded, threads=threads, ahead=loader.ahead)


def _threads(loader: Loader) -> int:
    return FEW_THREADS if loader.threads == "auto" else loader.threads
