"""How many training crops and whole photos a second: DALI, its torchvision twin, a plain DataLoader over loose files?

Crops are the classifier's published ones (512 pixels, long side 320 to 640, flip), drawn from the sample's ordinal: all
three cut the same ones and must agree within the tolerance of tests/conformance/test_decoders.py. The DataLoader opens
JPEG files with Pillow, as published code does; its worker processes stay. `dali gpu` joins where there is a device.

    python -m benchmarks.decode [FOLDER of photographs, at any depth] [--images 192] [--batch 16] [--workers 2]
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from amn_dist.config import Loader
from amn_dist.loaders.crops import Crop, cut_image, draw_crop
from amn_dist.loaders.decode import crop_decoder, decode_images
from amn_dist.loaders.decoder import Encoded, normalisation
from amn_dist.records import CropRule
from benchmarks.harness import PHOTOGRAPHS, race, rates, write_result

RULE = CropRule(size=512, long_side=(320, 640))
MEAN_LEVELS, MOST_LEVELS = 2.0, 40.0
"""Mean difference of any image, and largest of any value, in 0..255: as in the decoders' conformance test."""
PHOTO_LEVELS = 0.5
"""Mean difference of whole photos."""


class LooseCrops(Dataset[Tensor]):
    """Crops of files, one by one, as a loader of published code cuts them: f32[3, S, S]."""

    def __init__(self, files: list[Path], crops: list[Crop], rule: CropRule) -> None:
        self.files, self.crops, self.rule = files, crops, rule
        self.mean, self.deviation = normalisation(rule.colour)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        crop = self.crops[index]
        resized = opened(self.files[index]).resize(crop.resized[::-1], Image.Resampling.BICUBIC)
        pixels = (np.asarray(resized, np.float32) - self.mean) / self.deviation
        return torch.from_numpy(cut_image(pixels, crop, self.rule.size)).permute(2, 0, 1)


def opened(file: Path) -> Image.Image:
    """A photo, upright, RGB."""
    with Image.open(file) as image:
        return ImageOps.exif_transpose(image).convert("RGB")


def drawn(files: list[Path], rule: CropRule) -> list[Crop]:
    """A crop for every file."""
    sizes = [opened(file).size for file in files]
    return [draw_crop(rule, size[1], size[0], seed=0, epoch=0, ordinal=n) for n, size in enumerate(sizes)]


def groups(samples: list[Encoded], batch: int) -> Iterator[list[Encoded]]:
    iterator = iter(samples)
    while group := list(islice(iterator, batch)):
        yield group


def loader(name: str, workers: int) -> Loader:
    return Loader(name=name, threads=workers, ahead=2)  # type: ignore[arg-type]


def crop_rivals(
    files: list[Path], rule: CropRule, *, batch: int, workers: int
) -> dict[str, Callable[[], Iterator[Tensor]]]:
    """Who cuts the crops: batches f32[B, 3, S, S], on the device for `dali gpu`."""
    crops = drawn(files, rule)
    samples = [
        Encoded(str(n), file.read_bytes(), crop) for n, (file, crop) in enumerate(zip(files, crops, strict=True))
    ]
    loose = DataLoader(LooseCrops(files, crops, rule), batch_size=batch, num_workers=workers, persistent_workers=True)

    def ours(name: str, device: str) -> Callable[[], Iterator[Tensor]]:
        decoder = crop_decoder(rule, loader=loader(name, workers), device=device)
        return lambda: (images for images, _ in decoder(groups(samples, batch)))

    rivals = {"DataLoader": lambda: iter(loose), "torchvision": ours("torchvision", "cpu"), "dali": ours("dali", "cpu")}
    return rivals | ({"dali gpu": ours("dali", "gpu")} if torch.cuda.is_available() else {})


def photo_rivals(files: list[Path], *, workers: int) -> dict[str, Callable[[], Iterator[np.ndarray]]]:
    """Who decodes whole photos, uint8[H, W, 3]."""
    encoded = [(str(n), file.read_bytes()) for n, file in enumerate(files)]
    names = {"torchvision": "cpu", "dali": "cpu"}
    rivals: dict[str, Callable[[], Iterator[np.ndarray]]] = {
        name: lambda name=name, device=device: decode_images(encoded, loader=loader(name, workers), device=device)  # type: ignore[misc]
        for name, device in names.items()
    }
    if torch.cuda.is_available():
        rivals["dali gpu"] = lambda: decode_images(encoded, loader=loader("dali", workers), device="gpu")
    return {"Pillow, one process": lambda: (np.asarray(opened(file)) for file in files), **rivals}


def crop_difference(found: Tensor, expected: Tensor, rule: CropRule) -> tuple[float, float]:
    """Largest mean of an image, and largest of all values, in 0..255; fails above the tolerance."""
    deviation = torch.from_numpy(normalisation(rule.colour)[1])[:, None, None]
    difference = ((found.cpu() - expected) * deviation).abs()
    mean, most = float(difference.mean(dim=(1, 2, 3)).max()), float(difference.max())
    assert mean < MEAN_LEVELS and most < MOST_LEVELS, f"crops differ by {mean} levels in the mean of an image, {most}"
    return mean, most


def crop_agreement(rivals: dict[str, Callable[[], Iterator[Tensor]]], rule: CropRule) -> dict[str, Any]:
    """How far every rival's crops are from the DataLoader's."""
    found: dict[str, Any] = {}
    for name in list(rivals)[1:]:
        pairs = zip(rivals[name](), rivals["DataLoader"](), strict=True)
        levels = [crop_difference(images, expected, rule) for images, expected in pairs]
        found[name] = {"mean_levels": max(mean for mean, _ in levels), "most_levels": max(most for _, most in levels)}
    return found


def photo_agreement(rivals: dict[str, Callable[[], Iterator[np.ndarray]]]) -> dict[str, float]:
    """Largest mean difference of a whole photo from Pillow's, in levels."""
    first, *others = rivals
    found = {}
    for name in others:
        pairs = zip(rivals[name](), rivals[first](), strict=True)
        found[name] = max(float(np.abs(one.astype(int) - other).mean()) for one, other in pairs)
        assert found[name] < PHOTO_LEVELS, f"{name}: a photo differs by {found[name]} levels"
    return found


def measured(files: list[Path], rule: CropRule, *, batch: int, workers: int, rounds: int) -> dict[str, Any]:
    crops, photos = crop_rivals(files, rule, batch=batch, workers=workers), photo_rivals(files, workers=workers)
    record = {"crops_differ": crop_agreement(crops, rule), "photos_differ": photo_agreement(photos)}
    for name, rivals in (("crops", crops), ("photos", photos)):
        # A decoder is made anew each round: its start is part of what is timed.
        calls = {rival: lambda call=call: sum(1 for _ in call()) for rival, call in rivals.items()}
        record[name] = rates(race(calls, rounds=rounds), len(files), per=len(files))
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="?", default=PHOTOGRAPHS)
    parser.add_argument("--images", type=int, default=192, help="the photographs are taken again when there are fewer")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="threads, or processes")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    found = sorted(asked.photos.rglob("*.jpg"))
    if not found:
        raise SystemExit(f"{asked.photos}: found no *.jpg, expected photographs; name another folder")
    files = list(islice(cycle(found), asked.images))
    record = measured(files, RULE, batch=asked.batch, workers=asked.workers, rounds=asked.rounds)
    write_result("decode", {"images": len(files), "batch": asked.batch, "workers": asked.workers, **record})


if __name__ == "__main__":
    main()
