"""The drawn fixtures: their generator gives the published numbers on photographs, and is what wrote the files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.golden.make_crf import CASES, Arrays, Meta, answer, main


def opened(folder: Path, name: str) -> tuple[Arrays, Arrays, Meta]:
    """Inputs, outputs and parameters of a fixture."""
    with np.load(folder / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files if key != "meta"}
        meta = json.loads(str(file["meta"]))
    inputs = {key: array for key, array in arrays.items() if key.startswith("in_")}
    return inputs, {key: array for key, array in arrays.items() if key not in inputs}, meta


@pytest.mark.parametrize("name", CASES)
def test_published_numbers_come_out_to_the_bit(photographs: Path, name: str) -> None:
    inputs, published, meta = opened(photographs, name)
    found = answer(name, inputs, meta)
    assert found.keys() == published.keys()
    for key, expected in published.items():
        assert found[key].dtype == expected.dtype and np.array_equal(found[key], expected), key


@pytest.mark.parametrize("name", CASES)
def test_the_files_hold_the_answers_to_their_inputs(golden: Path, name: str) -> None:
    inputs, expected, meta = opened(golden, name)
    found = answer(name, inputs, meta)
    assert found.keys() == expected.keys()
    for key, array in expected.items():
        assert found[key].dtype == array.dtype and found[key].shape == array.shape, key
        # Another processor may round a softmax otherwise; labels stay.
        np.testing.assert_allclose(found[key], array, atol=1e-5 if array.dtype == np.float32 else 0)


def test_drawing_again_gives_the_same_files(golden: Path, tmp_path: Path) -> None:
    main(tmp_path)
    assert {path.stem for path in tmp_path.iterdir()} == set(CASES)
    for name in CASES:
        (again, _, meta), (inputs, _, expected) = opened(tmp_path, name), opened(golden, name)
        assert meta["scene"] == expected["scene"] and again.keys() == inputs.keys()
        for key, array in inputs.items():
            assert again[key].dtype == array.dtype and again[key].shape == array.shape, key
            # A sine that is rounded otherwise may move a pixel by one gray level.
            assert np.isclose(again[key], array, rtol=0, atol=1e-5).mean() > 0.999, key


@pytest.mark.parametrize(
    ("name", "before", "after", "least"),
    [
        ("crf_raw_q_0", "in_labels", "out_argmax_t10", 0.05),
        ("crf_seed_0", "out_fg_argmax", "out_fg_crf", 0.05),
        ("crf_seed_1", "out_bg_argmax", "out_bg_crf", 0.05),
        ("icd_seed_0", "out_seed_pre_crf", "out_seed_crf", 0.05),
        ("icd_seed_1", "out_seed_pre_crf", "out_seed_crf", 0.05),
        ("deeplab_crf_0", "out_label_plain_bgr", "out_label_wrapped", 0.002),
    ],
)
def test_the_crf_has_something_to_decide(golden: Path, name: str, before: str, after: str, least: float) -> None:
    inputs, outputs, _ = opened(golden, name)
    arrays = {**inputs, **outputs}
    assert (arrays[before] != arrays[after]).mean() > least
    assert len(np.unique(arrays[after])) > 1


@pytest.mark.parametrize("name", ["crf_seed_0", "crf_seed_1"])
def test_seeds_hold_classes_background_and_doubt(golden: Path, name: str) -> None:
    inputs, outputs, _ = opened(golden, name)
    assert np.unique(outputs["out_seed"]).tolist() == [0, *(inputs["in_keys"] + 1), 255]
