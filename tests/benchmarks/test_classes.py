"""Figures over some of the classes are those of score.json's curves and of nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from benchmarks.classes import above, joined, markdown, plateau, read_scores, summary

NAMES = ("background", "cat", "cow", "sofa")
IMAGES = {"own_mean": 0.2, "near": 0.4, "miou_default": 0.5, "miou_best": 0.52, "miou_own": 0.6, "own": [3]}
GRID = [round(0.01 * step, 2) for step in range(1, 100)]


def run(folder: Path, seed: int, curves: dict[str, np.ndarray], mask: list[float | None]) -> Path:
    """A finished run with maps by their curves f64[99, 4], and masks."""
    (folder / "score").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"name": "a", "seed": seed}))
    rows: dict[str, dict[str, Any]] = {
        name: {"iou": curve.tolist(), "thresholds": GRID, "images": IMAGES} for name, curve in curves.items()
    }
    rows["walk"] = {"iou": mask}
    scores = {"classes": NAMES, "sets": {"train": {"images": 3, "rows": rows}}}
    (folder / "score" / "score.json").write_text(json.dumps(scores))
    return folder


def curves(seed: int) -> dict[str, np.ndarray]:
    drawn = np.random.default_rng(seed).uniform(0.2, 0.9, (99, 4))
    return {"cam": drawn, "amn_map": drawn + 0.05}


def test_means_are_over_the_classes_asked_for(tmp_path: Path) -> None:
    of_seed = [curves(seed) for seed in (0, 1)]
    runs = [run(tmp_path / str(seed), seed, of_seed[seed], [0.8, 0.6, 0.4, None]) for seed in (0, 1)]
    found = summary(dict(enumerate(runs)), ["cat", "cow"], ["background"])
    cam = found["rows"]["train cam"]
    wanted = [maps["cam"][:, 1:3].mean(1) for maps in of_seed]
    assert cam["mean"]["values"] == pytest.approx([curve[GRID.index(0.25)] for curve in wanted])
    assert cam["best_mean"]["values"] == pytest.approx([curve.max() for curve in wanted])
    assert cam["best_threshold"]["values"] == [GRID[int(curve.argmax())] for curve in wanted]
    assert cam["width_2"]["values"] == [round(sum(curve >= curve.max() - 0.02) / 100, 2) for curve in wanted]
    assert found["rows"]["train walk"]["mean"]["mean"] == pytest.approx(0.5)
    table = markdown("a", found, ["cat", "cow"], ["background"])
    assert "| pseudo-mask (train) | 60.0 ± 0.0 | 40.0 ± 0.0 | 50.0 ± 0.0 | 80.0 ± 0.0 |" in table
    assert "| CAM (train) | 0.20 ± 0.00 | 40.0 ± 0.0 | 50.0 ± 0.0 | 52.0 ± 0.0 | 60.0 ± 0.0 |" in table
    assert table.count("AMN (train) over the first map, 0.15 to 0.6: +5.0 to +5.0, at every threshold") == 2


def test_runs_of_an_earlier_result_count_as_if_given(tmp_path: Path) -> None:
    runs = [run(tmp_path / str(seed), seed, curves(seed), [0.8, 0.6 - 0.1 * seed, 0.4, None]) for seed in range(3)]
    earlier = tmp_path / "earlier.json"
    by_seed = dict(enumerate(runs))
    first, late, whole = (
        {"a": summary({seed: by_seed[seed] for seed in seeds}, ["cat", "cow"], [])}
        for seeds in ([0], [1, 2], [0, 1, 2])
    )
    earlier.write_text(json.dumps({"classes": ["cat", "cow"], "groups": first}))
    assert joined(late, earlier, ["cat", "cow"]) == whole
    del late["a"]["rows"]["train walk"]  # of runs that are not at their end
    of_first = joined(late, earlier, ["cat", "cow"])["a"]
    assert of_first["rows"]["train walk"]["mean"]["values"] == [0.5]
    assert "| pseudo-mask (train) | 60.0 (n = 1) | 40.0 (n = 1) |" in markdown("a", of_first, ["cat", "cow"], [])
    assert joined({"b": late["a"]}, earlier, ["cat", "cow"]).keys() == {"a", "b"}
    with pytest.raises(ValueError, match="found seed 0 of a, expected runs of other seeds"):
        joined(first, earlier, ["cat", "cow"])
    with pytest.raises(ValueError, match="found classes"):
        joined(late, earlier, ["cat"])


def test_where_one_map_is_not_above_is_told(tmp_path: Path) -> None:
    maps = curves(0)
    maps["amn_map"][GRID.index(0.3) : GRID.index(0.4), 1:3] -= 0.2
    maps["amn_map"][GRID.index(0.7) :, 1:3] -= 0.2  # outside of what is compared
    table = read_scores(run(tmp_path / "x", 0, maps, [0.5] * 4))
    found = above(table["train amn_map"], table["train cam"], ["cat", "cow"])
    assert found["not_above_at"] == pytest.approx([round(0.3 + 0.01 * step, 2) for step in range(10)])
    assert (found["least"], found["most"]) == pytest.approx((-0.15, 0.05))


def test_a_plateau_counts_every_threshold_within_the_loss() -> None:
    curve = np.full(99, 0.5)
    curve[10:30], curve[50] = 0.59, 0.6
    assert plateau(curve, 0.005) == 0.01 and plateau(curve, 0.02) == 0.21


def test_runs_without_scores_are_refused(tmp_path: Path) -> None:
    folder = run(tmp_path / "x", 0, curves(0), [0.5] * 4)
    with pytest.raises(ValueError, match="found no class 'dog', expected one of background, cat"):
        read_scores(folder, ["cat", "dog"])
    (folder / "score" / "score.json").write_text('{"classes": []}')
    with pytest.raises(ValueError, match="found no scores"):
        read_scores(folder)
