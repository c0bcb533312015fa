"""Figures behind the report: axes, metrics, single images, shown classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amn_dist.report.charts import Axis, Chart, Line, fitted
from amn_dist.report.curves import by_size
from amn_dist.report.grids import distinct
from amn_dist.report.image_scores import ImageScores, image_miou, select_images
from amn_dist.report.stage_metrics import read_stage_metrics, thinned
from amn_dist.report.tables import shown_classes

FINITE = st.floats(-1e12, 1e12)


@given(st.lists(FINITE, min_size=1, max_size=6), st.booleans())
def test_axes_hold_their_values_and_have_round_ticks(values: list[float], zero: bool) -> None:
    axis = fitted("x", values, zero=zero)
    slack = 1e-6 * (axis.high - axis.low)
    assert axis.low <= min(values) + slack and max(values) - slack <= axis.high and axis.low < axis.high
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 11 and all(axis.low - slack <= tick <= axis.high + slack for tick in ticks)
    chart = Chart("t", "d", axis, axis, (Line("l", [(value, value) for value in values]),))
    left, top, right, bottom = chart.frame
    for value in values:
        assert left - 1 <= chart.across(value) <= right + 1 and top - 1 <= chart.down(value) <= bottom + 1


def test_ticks_of_a_percent_axis() -> None:
    axis = Axis("mIoU", 0, 1, percent=True)
    assert [axis.text(tick) for tick in axis.ticks()] == ["0", "20", "40", "60", "80", "100"]


def test_the_last_value_of_a_repeated_step_counts(tmp_path: Path) -> None:
    records = [{"step": step, "steps": 9, "total": step, "b": 1, "lr": 1.0, "images_per_s": rate} for step, rate in
               ((1, 5), (2, 7), (3, 100), (2, 6))]  # fmt: skip
    records[-1]["total"] = 20
    lines = [*map(json.dumps, records), "", '{"done": true, "seconds": 3}', "nonsense", "[]"]
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    fit = read_stage_metrics(tmp_path / "m.jsonl", verb="fit")
    assert fit.losses == {"total": [(1, 1), (2, 20), (3, 3)], "b": [(1, 1), (2, 1), (3, 1)]}
    assert list(fit.losses) == ["total", "b"] and fit.seconds == 3 and fit.images_per_s == 6.5 and fit.damaged == 3
    assert read_stage_metrics(tmp_path / "m.jsonl", verb="map").images_per_s == 6
    assert read_stage_metrics(tmp_path / "none", verb="fit").damaged == 0


def test_thinning_keeps_both_ends() -> None:
    points = [(float(i), 0.0) for i in range(1000)]
    found = thinned(points, 30)
    assert len(found) == 30 and found[0] == points[0] and found[-1] == points[-1] and found == sorted(set(found))


def test_the_mean_iou_of_single_labels() -> None:
    truth = np.array([[0, 0, 1, 1, 255]], np.uint8)
    assert image_miou(np.array([[0, 2, 1, 255, 1]], np.uint8), truth, 3) == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert image_miou(truth, np.full_like(truth, 255), 3) is None


def test_images_are_chosen_from_all_three_orders() -> None:
    scores = [ImageScores(i, (), i / 100, ((i * 37) % 100) / 100) for i in range(100)]
    ordinals = [image.ordinal for image in select_images(scores, 9)]
    assert ordinals == [0, 99, 27, 1, 98, 54, 2, 97, 81] and select_images(scores[:4], 9) == scores[:4]


def test_of_many_classes_the_extremes_are_shown() -> None:
    values = [None, *np.random.default_rng(0).permutation(300) / 300, None]
    shown = shown_classes(values)
    assert len(shown) == 100 and shown == sorted(shown)
    assert {values[i] for i in shown} == {*(np.arange(50) / 300), *(np.arange(250, 300) / 300)}
    assert shown_classes([None] * 100) == list(range(100))


def test_equal_values_are_told_once() -> None:
    assert distinct([({"a": 1}, "x"), ({"a": 2}, "y"), ({"a": 1}, "z")]) == [({"a": 1}, ["x", "z"]), ({"a": 2}, ["y"])]


def test_a_part_that_would_lie_on_the_axis_has_a_chart_of_its_own() -> None:
    energy, total, classification = (
        [(1.0, -160.0), (2.0, -360.0)],
        [(1.0, -157.0), (2.0, -359.0)],
        [(1.0, 3.0), (2.0, 0.1)],
    )
    large = {"total": total, "bottom_up": energy}
    assert by_size({**large, "classification": classification}) == [large, {"classification": classification}]
    assert by_size(large) == [large] and by_size({"total": [(1.0, 0.0)]}) == [{"total": [(1.0, 0.0)]}]
