"""One file of somebody else's activation maps to ours: f16[K, h, w] of the tagged classes, in [0, 1]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from amn_dist.errors import ShardError, printable
from amn_dist.records import grid_size
from data_shards.pickles import read_pickled_dict

Scale = Literal["keep", "peak"]
EPSILON = 1e-5
"""Added to a peak that is divided by (amn 1.2)."""
SLACK = 1e-3
"""How far outside [0, 1] rounding may have taken a value."""


def read_maps(content: bytes, tags: np.ndarray, size: tuple[int, int], *, scale: Scale = "keep") -> np.ndarray:
    """The maps of an `.npy` dictionary as f16[K, h, w] on the stride-4 grid, classes in ascending order.

    tags: [C-1] multi-hot of the image. size: its (H, W). scale: `keep` expects values in [0, 1]; `peak` sets negative
    ones to 0 and divides each class by (its peak + 1e-5). Maps of the photograph's size become means of 4x4 pixels.
    Raises ShardError saying what does not fit.
    """
    dictionary = read_pickled_dict(content)
    maps = _keyed(dictionary, size) if "keys" in dictionary else _by_class(dictionary)
    expected = np.flatnonzero(tags)
    if sorted(maps) != expected.tolist():
        raise ShardError(
            f"holds maps of the classes {printable(_ids(maps))}, its image is tagged {printable(_ids(expected))} (0 is "
            "the first class after background); make both from the same labels"
        )
    grid = grid_size(*size)
    on_grid = [_on_grid(maps[number], grid, size) for number in expected.tolist()]
    stacked = np.stack(on_grid) if on_grid else np.zeros((0, *grid), np.float32)
    return _in_unit(stacked, scale).astype(np.float16)


def _keyed(dictionary: Mapping[int | str, Any], size: tuple[int, int]) -> dict[int, np.ndarray]:
    """Maps by class of `{"keys": [K], "cam": [K, h, w], "high_res": [K, H, W]}`; a first map beyond K is background.

    `cam` is taken where it lies on the stride-4 grid, else `high_res`, or CLIP-ES's `attn_highres`. Without keys there
    need not be maps.
    """
    numbers = _numbers(dictionary["keys"])
    if not numbers:
        return {}
    expected = {"cam": grid_size(*size), "high_res": size, "attn_highres": size}
    stacks = {name: dictionary[name] for name in expected if isinstance(dictionary.get(name), np.ndarray)}
    usable = [maps for name, maps in stacks.items() if maps.ndim == 3 and maps.shape[1:] == expected[name]]
    if not usable:
        shapes = (
            ", ".join(f"{name} {list(maps.shape)}" for name, maps in stacks.items())
            or "neither cam nor high_res nor attn_highres"
        )
        raise ShardError(f"holds {shapes}; expected cam [K, {_sides(expected['cam'])}] or high_res [K, {_sides(size)}]")
    if len(usable[0]) not in (len(numbers), len(numbers) + 1) or len(set(numbers)) != len(numbers):
        raise ShardError(
            f"holds {len(usable[0])} maps for {len(numbers)} keys; expected one a key, or background first"
        )
    return dict(zip(numbers, usable[0][-len(numbers) :], strict=True))


def _numbers(keys: Any) -> list[int]:
    """The class numbers of keys, 0 for the first class."""
    if isinstance(keys, list | tuple) and not keys:
        return []
    array = isinstance(keys, np.ndarray)
    if not array or keys.ndim != 1 or (keys.size and keys.dtype.kind not in "iu"):
        what = f"{printable(keys.dtype)}{printable(list(keys.shape))}" if array else f"of type {type(keys).__name__}"
        raise ShardError(f"has keys {what}; expected class numbers [K], 0 for the first class")
    return [int(number) for number in keys]


def _by_class(dictionary: Mapping[int | str, Any]) -> dict[int, np.ndarray]:
    """Maps of `{class: [H, W]}`, 0 for the first class."""
    maps: dict[int, np.ndarray] = {}
    for key, values in dictionary.items():
        if not isinstance(key, int) or not isinstance(values, np.ndarray) or values.ndim != 2:
            raise ShardError(
                f"has the entry '{printable(key, 40)}'; expected keys with cam or high_res, or class: [H, W]"
            )
        maps[key] = values
    return maps


def _on_grid(values: np.ndarray, grid: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """A map f32[h, w] on the stride-4 grid; of a map of the photograph's size, the mean of each 4x4 pixels."""
    if values.shape not in (grid, size):
        raise ShardError(f"has a map of {_sides(values.shape)}; expected {_sides(grid)} or {_sides(size)}")
    if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
        raise ShardError("has a map with values that are not finite numbers; make it again")
    values = values.astype(np.float32)
    if values.shape == grid:
        return values
    below, right = (4 * cells - side for cells, side in zip(grid, size, strict=True))
    whole = np.pad(values, ((0, below), (0, right)), mode="edge")
    return whole.reshape(grid[0], 4, grid[1], 4).mean((1, 3), dtype=np.float32)


def _in_unit(maps: np.ndarray, scale: Scale) -> np.ndarray:
    """Maps f32[K, h, w] brought to [0, 1]."""
    if not maps.size:
        return maps
    if scale == "peak":
        positive = maps.clip(min=0)
        return positive / (positive.max((1, 2), keepdims=True) + EPSILON)
    if maps.min() < -SLACK or maps.max() > 1 + SLACK:
        raise ShardError(
            f"holds values from {maps.min():.4g} to {maps.max():.4g}, expected 0 to 1; --scale peak divides each "
            "class by its peak"
        )
    return maps.clip(0, 1)


def _sides(size: tuple[int, ...]) -> str:
    return ", ".join(str(side) for side in size)


def _ids(numbers: Any) -> list[int]:
    return sorted(int(number) for number in numbers)
