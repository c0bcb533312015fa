"""CAM inference the way the published code runs it (amn 1.2): one process, one image at a time.

Own implementation of the published loop: a data loader prepares four scales and their mirror images of one photo,
the network sees them in NCHW float32, all classes are resized to full size before the tagged ones are chosen, and a
dictionary with the full-size maps is pickled per image.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from amn_dist.models.cam import CamNet
from benchmarks.reference.published_maps import cam_maps

SCALES = (1.0, 0.5, 1.5, 2.0)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Photos(Dataset[dict[str, Any]]):
    """Photos at every scale, each stacked on its mirror image."""

    def __init__(self, files: list[Path], tags: list[np.ndarray]) -> None:
        self.files, self.tags = files, tags

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        photo = np.asarray(Image.open(self.files[index]).convert("RGB"))
        return {
            "name": self.files[index].stem,
            "size": photo.shape[:2],
            "scales": [pair_of(photo, scale) for scale in SCALES],
            "tags": self.tags[index],
        }


def loader(files: list[Path], tags: list[np.ndarray], *, workers: int = 1) -> DataLoader[dict[str, Any]]:
    """One photo at a time, prepared by worker processes that stay."""
    return DataLoader(Photos(files, tags), batch_size=None, num_workers=workers, persistent_workers=workers > 0)


def write_maps(network: CamNet, photos: DataLoader[dict[str, Any]], folder: Path) -> None:
    """Write NAME.npy for every photo: keys i64[K] from 0, cam f32[K, h, w], high_res f32[K, H, W]."""
    for photo in photos:
        tags = torch.as_tensor(photo["tags"])
        coarse, fine = cam_maps(network, photo["scales"], tags, photo["size"])
        made = {"keys": torch.nonzero(tags)[:, 0], "cam": coarse, "high_res": fine.numpy()}
        np.save(folder / f"{photo['name']}.npy", made)  # type: ignore[arg-type]


def pair_of(photo: np.ndarray, scale: float) -> Tensor:
    """A photo uint8[H, W, 3] at a scale, normalised, on its mirror image: f32[2, 3, H s, W s]."""
    if scale != 1:
        height, width = photo.shape[:2]
        size = (round(width * scale), round(height * scale))
        photo = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BICUBIC))
    x = np.empty(photo.shape, np.float32)
    for channel in range(3):
        x[..., channel] = (photo[..., channel] / 255.0 - MEAN[channel]) / DEVIATION[channel]
    x = np.transpose(x, (2, 0, 1))
    return torch.from_numpy(np.stack([x, np.flip(x, -1)]))
