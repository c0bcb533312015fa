"""Activation maps out of shards: a folder of dictionaries as published code pickles them into `.npy`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amn_dist.interchange.folders import claim, file_of, is_missing, put
from amn_dist.interchange.selection import SelectedField, map_samples
from amn_dist.ops.resize import upsample
from amn_dist.shards.shardset import Entry


def export_maps(selected: SelectedField, out: Path, *, fine: bool = True) -> int:
    """Write KEY.npy for every sample; the same call again resumes. fine: with maps of the image's size.

    Returns the number of samples.
    """
    claim(out, {"maps": selected.shards.digest, "fine": fine})
    images = selected.images
    assert images is not None

    def write(entry: Entry) -> int:
        path = file_of(out, entry.key, ".npy")
        if is_missing(path):
            tags, maps = images.load(entry.ordinal, "tags"), selected.shards.load(entry.ordinal, selected.field)
            put(path, npy_of(dictionary(tags, maps, (entry.height, entry.width), fine=fine)))
        return 1

    return sum(map_samples(write, selected.shards))


def dictionary(tags: np.ndarray, maps: np.ndarray, size: tuple[int, int], *, fine: bool = True) -> dict[str, Any]:
    """What published code keeps of an image (amn 1.2): class numbers from 0, maps f32 at stride 4 and at its size.

    tags: [C-1] multi-hot. maps: f16[K, h, w]. An image without tags has keys alone. The published loaders hand keys and
    cam to torch without a conversion, so they are tensors; high_res is NumPy's.
    """
    keys = np.flatnonzero(tags)
    content: dict[str, Any] = {"keys": torch.from_numpy(keys.astype(np.int64))}
    if len(maps):
        content["cam"] = torch.from_numpy(maps.astype(np.float32))
        content |= {"high_res": upsample(maps, size)} if fine else {}
    return content


def npy_of(content: dict[str, Any]) -> bytes:
    """A dictionary pickled as the one object of an `.npy`; whoever reads it must trust it."""
    stream = io.BytesIO()
    np.save(stream, np.array(content, dtype=object), allow_pickle=True)
    return stream.getvalue()
