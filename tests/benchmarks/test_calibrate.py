"""What masks drawn by chance lose is computed against the whole set; its picture is one that browsers read."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from amn_dist.errors import ConfigError
from amn_dist.ops.metrics.threshold_analysis import GRID
from amn_dist.ops.metrics.threshold_choice import ThresholdCounts, image_counts, together
from amn_dist.ops.metrics.thresholds import sweep
from benchmarks.calibrate import chart, drawn, figures, regret_at, titles, whole_curve
from benchmarks.chart_svg import charts_svg


@pytest.fixture(scope="module")
def counts() -> ThresholdCounts:
    """Thirty images of two classes; odd ones want another threshold than even ones."""
    random, images = np.random.default_rng(0), []
    for number in range(30):
        truth = (random.random((20, 20)) < 0.4) * (1 + number % 3 // 2)
        cut = 0.3 + 0.3 * (number % 2)
        maps = np.where(truth > 0, random.uniform(cut - 0.1, 1, truth.shape), random.uniform(0, cut + 0.1, truth.shape))
        classes = np.array([1 + number % 3 // 2], np.uint8)
        images.append(image_counts(sweep(maps[None].astype(np.float32), classes, truth.astype(np.uint8), 3), 3))
    return together(images)


def test_regret_is_against_the_best_of_the_whole_set(counts: ThresholdCounts) -> None:
    curve = whole_curve(counts, "voc")
    choices, peaks = drawn(counts, "voc", 6, 12, 50)
    row = figures(curve, choices, peaks)
    regrets = [100 * (curve.max() - curve[choice.best]) for choice in choices]
    assert row["draws"] == 12 and row["regret"]["mean"] == pytest.approx(np.mean(regrets), abs=1e-4)
    assert row["regret"]["p90"] == pytest.approx(np.quantile(regrets, 0.9), abs=1e-4) and min(regrets) >= 0
    assert row["threshold"]["mean"] == pytest.approx(np.mean([choice.threshold for choice in choices]), abs=1e-4)
    held = np.mean([choice.low <= curve.argmax() <= choice.high for choice in choices])
    assert row["interval"]["holds_best"] == pytest.approx(held, abs=1e-4)
    assert regret_at(curve, GRID[int(curve.argmax())])["regret"] == 0
    again, _ = drawn(counts, "voc", 6, 12, 50)
    assert [choice.best for choice in again] == [choice.best for choice in choices]


def test_all_images_lose_nothing_but_by_resampling(counts: ThresholdCounts) -> None:
    curve = whole_curve(counts, "voc")
    few, many = (figures(curve, *drawn(counts, "voc", number, 15, 50))["regret"]["mean"] for number in (3, 30))
    assert many <= few


def test_the_picture_is_drawn(counts: ThresholdCounts) -> None:
    curve = whole_curve(counts, "voc")
    row = {
        "images": 30,
        "best": {"threshold": GRID[int(curve.argmax())], "miou": 100 * float(curve.max())},
        "now": regret_at(curve, 0.25),
        "estimate": {"contours": regret_at(curve, 0.4)},
        "masks": {str(number): figures(curve, *drawn(counts, "voc", number, 4, 20)) for number in (3, 6)},
    }
    picture = ElementTree.fromstring(charts_svg([chart("<a> & b", row), chart("c", row), chart("d", row)]))
    texts = [element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert "<a> & b" in texts and "masks, mean" in texts and "the run's threshold (0.25)" in texts
    assert len(list(picture.iter("{http://www.w3.org/2000/svg}polyline"))) == 12


def test_runs_of_one_name_stay_apart(tmp_path: Path) -> None:
    """A row of one would else stand for both."""
    one, two, three = tmp_path / "0" / "amn", tmp_path / "1" / "amn", tmp_path / "1" / "irn"
    assert titles([one, three]) == ["amn", "irn"]
    assert titles([one, two, three]) == ["0/amn", "1/amn", "1/irn"]
    with pytest.raises(ConfigError, match="named twice"):
        titles([one, tmp_path / "1" / ".." / "0" / "amn"])
