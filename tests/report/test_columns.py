"""Samples as pictures: whole for a contact sheet, reduced for the page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from amn_dist.errors import ShardError
from amn_dist.report.columns import columns_of, sampled, stage_pictures
from amn_dist.report.run_folder import RunRecord, read_run


@pytest.fixture(scope="module")
def record(make_run: Any, tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return read_run(make_run(tmp_path_factory.mktemp("run"), "run"), label="run")


def test_what_fits_is_drawn_whole(record: RunRecord) -> None:
    images, columns = record.sets["train"], columns_of([record], "train")
    whole, fitting = (stage_pictures(images, columns, 1, longest=longest) for longest in (None, 41))
    assert [title for title, _ in whole] == ["photo", "truth", *(column.title for column in columns)]
    for (title, pixels), (same_title, same_pixels) in zip(whole, fitting, strict=True):
        assert title == same_title and pixels.shape == (30, 41, 3) and np.array_equal(pixels, same_pixels)


def test_what_is_larger_is_drawn_in_the_size_of_the_reduced_photo(record: RunRecord) -> None:
    pictures = stage_pictures(record.sets["train"], columns_of([record], "train"), 1, longest=20)
    assert {pixels.shape for _, pixels in pictures} == {(15, 20, 3)}


def test_sampling_takes_the_nearest_pixel() -> None:
    values = np.arange(24).reshape(1, 4, 6)
    assert sampled(values, (2, 3)).tolist() == [[[7, 9, 11], [19, 21, 23]]]
    assert np.array_equal(sampled(values, (4, 6)), values)


def test_what_lies_over_other_images_is_named(record: RunRecord) -> None:
    with pytest.raises(ShardError, match="sample 0 is not val0; make it again from this set"):
        record.outputs["walk"].load(record.sets["val"], 0)
