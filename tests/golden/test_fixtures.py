"""The fixtures are those of the list, and the recipe draws the weights their numbers were made with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.golden.make_weights import as_torch, digest, make_weights
from tests.golden.manifest import FOLDER, NAME, describe

CHECK = json.loads((FOLDER / "weights_check.json").read_text())["files"]


def test_every_file_is_as_listed_and_small() -> None:
    listed = json.loads((FOLDER / NAME).read_text())
    assert describe(FOLDER) == listed
    assert max(entry["bytes"] for entry in listed.values()) < 2**20
    assert sum(entry["bytes"] for entry in listed.values()) < 3.2e6


@pytest.mark.parametrize("name", CHECK)
def test_weights_are_drawn_to_the_bit(name: str) -> None:
    arrays = make_weights(FOLDER / "keys" / name)
    assert (len(arrays), digest(arrays)) == (CHECK[name]["entries"], CHECK[name]["sha256"])
    for tensor, first in CHECK[name]["first_values"].items():
        assert arrays[tensor].flat[: len(first)].tolist() == first


def test_aliases_scales_salt_and_buffers(tmp_path: Path) -> None:
    entries = [
        {"name": "conv.weight", "shape": [8, 4, 3, 3], "kind": "weight"},
        {"name": "same.weight", "shape": [8, 4, 3, 3], "alias_of": "conv.weight"},
        {"name": "paths", "shape": [9], "dtype": "int64", "kind": "structural"},
        {"name": "steps", "shape": [], "dtype": "int64", "kind": "zero"},
    ]
    keys, scaled = tmp_path / "keys.json", tmp_path / "scaled.json"
    keys.write_text(json.dumps({"entries": entries}))
    scaled.write_text(json.dumps({"entries": [{**entries[0], "scale": 0.25}]}))
    arrays = make_weights(keys)
    assert list(arrays) == ["conv.weight", "same.weight", "steps"] and arrays["steps"].dtype == np.int64
    assert np.array_equal(arrays["same.weight"], arrays["conv.weight"])
    assert np.array_equal(make_weights(scaled)["conv.weight"], arrays["conv.weight"] / 4)
    assert not np.array_equal(make_weights(keys, salt=1)["conv.weight"], arrays["conv.weight"])
    tensors = as_torch(arrays)
    tensors["conv.weight"].zero_()
    assert tensors["same.weight"].any() and arrays["conv.weight"].any()
