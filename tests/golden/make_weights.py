"""Weights of the golden fixtures: every tensor drawn from its own name, so that lists of names stand for checkpoints.

`python -m tests.golden.make_weights KEYS.json [OUT.pth]`, in the project's root, prints the digest that
weights_check.json holds for the list, and writes a checkpoint.

A list is {"entries": [...]} in the order of the state dict. An entry has a name, a shape and a kind; a dtype where it
is not float32; a scale, a factor of what is drawn. Or it has `alias_of`: it is the same tensor as that earlier entry.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

STRUCTURAL = "structural"
"""Kind of buffers that hold geometry: named, never drawn."""


def make_weights(path: str | os.PathLike[str], salt: int = 0) -> dict[str, np.ndarray]:
    """Arrays of a list, by name. Another salt draws other numbers."""
    with open(path, encoding="utf-8") as file:
        entries = json.load(file)["entries"]
    arrays: dict[str, np.ndarray] = {}
    for entry in entries:
        if entry.get("alias_of"):
            arrays[entry["name"]] = arrays[entry["alias_of"]]
        elif entry["kind"] != STRUCTURAL:
            arrays[entry["name"]] = _draw(entry, salt)
    return arrays


def as_torch(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """The arrays as tensors, of which no two share memory."""
    return {name: torch.tensor(array) for name, array in arrays.items()}


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over every name and its bytes, in order."""
    total = hashlib.sha256()
    for name, array in arrays.items():
        total.update(name.encode())
        total.update(np.ascontiguousarray(array).data)
    return total.hexdigest()


def _draw(entry: Mapping[str, Any], salt: int) -> np.ndarray:
    """An entry's array. Drawn and scaled in float64, then rounded."""
    shape, kind = tuple(entry["shape"]), entry["kind"]
    if kind == "zero":
        return np.zeros(shape, entry.get("dtype", "float32"))
    number = zlib.crc32(entry["name"].encode())
    rng = np.random.default_rng([number, salt] if salt else number)
    if kind in ("norm_weight", "running_var"):
        drawn = rng.uniform(0.5, 1.5, shape)
    else:
        drawn = rng.standard_normal(shape) * _deviation(kind, shape)
    return (drawn * entry.get("scale", 1.0)).astype(np.float32)


def _deviation(kind: str, shape: tuple[int, ...]) -> float:
    """Of a normal kind: He's for weights of convolutions and linear layers."""
    if kind == "weight":
        return math.sqrt(2 / math.prod(shape[1:]))
    return {"bias": 0.05, "norm_bias": 0.1, "running_mean": 0.1}[kind]


if __name__ == "__main__":
    made = make_weights(sys.argv[1])
    print(len(made), "entries", digest(made))
    if len(sys.argv) > 2:
        torch.save(as_torch(made), sys.argv[2])
