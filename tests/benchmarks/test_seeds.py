"""Means over seeds are those of the runs that were given, and of nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from benchmarks.seeds import grouped, markdown, protocols, spread


def run(folder: Path, *, name: str = "a", seed: int = 0, crop: int = 64, best: float = 0.5, mask: float = 0.6) -> Path:
    (folder / "score").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"name": name, "seed": seed, "classify": {"crop": crop}}))
    rows = {"cam": {"best_miou": best, "width_2": 0.1, "miou": [0.1, 0.2]}, "walk": {"miou": mask, "decided": 1.0}}
    (folder / "score" / "score.json").write_text(json.dumps({"sets": {"train": {"images": 3, "rows": rows}}}))
    return folder


def test_mean_and_deviation_of_every_figure(tmp_path: Path) -> None:
    runs = [run(tmp_path / str(s), seed=s, best=best, mask=0.6) for s, best in enumerate((0.4, 0.5, 0.6))]
    found = spread(runs)
    assert found["train cam"]["best_miou"] == {"mean": 0.5, "deviation": 0.1, "values": [0.4, 0.5, 0.6]}
    assert found["train walk"]["miou"]["deviation"] == 0.0
    assert "miou" not in found["train cam"]
    table = markdown("a", found, 3, protocols(runs))
    assert "| train cam | voc |  | 50.0 ± 10.0 |" in table and "0.10 ± 0.00" in table


def test_scores_by_different_protocols_have_no_mean(tmp_path: Path) -> None:
    runs = [run(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    assert protocols(runs) == {"train cam": "voc", "train walk": "voc"}
    path = runs[1] / "score" / "score.json"
    scores = json.loads(path.read_text())
    scores["sets"]["train"]["rows"]["walk"]["protocol"] = "coco"
    path.write_text(json.dumps(scores))
    with pytest.raises(ValueError, match="found train walk by the protocol coco, expected voc"):
        protocols(runs)


def test_runs_are_told_apart_by_configuration(tmp_path: Path) -> None:
    runs = [run(tmp_path / f"{name}{s}", name=name, seed=s) for s in (0, 1) for name in ("a", "b")]
    assert grouped(runs) == {"a": {0: runs[0], 1: runs[2]}, "b": {0: runs[1], 1: runs[3]}}


def test_what_one_run_alone_has_scored_is_told_as_such(tmp_path: Path) -> None:
    runs = [run(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    path = runs[1] / "score" / "score.json"
    scores = json.loads(path.read_text())
    scores["sets"]["train"]["rows"]["made_up"] = {"miou": 0.3, "decided": 1.0}
    scores["sets"]["val"] = {"images": 2, "rows": {"predict": {"miou": None, "decided": 0.0}}}
    scores["sets"]["train"]["rows"]["cam"]["best_miou"] = None
    path.write_text(json.dumps(scores))
    found = spread(runs)
    assert found["train made_up"]["miou"]["values"] == [0.3] and found["train cam"]["best_miou"]["values"] == [0.5]
    assert found["val predict"] == {"decided": {"mean": 0.0, "deviation": 0.0, "values": [0.0]}}
    table = markdown("a", found, 2, protocols(runs))
    assert "| train made_up |" in table and "30.0 (n = 1)" in table and "60.0 ± 0.0 |" in table


@pytest.mark.parametrize(
    ("other", "said"), [({"seed": 0}, "found seed 0 twice"), ({"seed": 1, "crop": 32}, "found other settings")]
)
def test_what_is_no_other_seed_is_refused(tmp_path: Path, other: dict[str, int], said: str) -> None:
    runs = [run(tmp_path / "first"), run(tmp_path / "second", **other)]
    with pytest.raises(ValueError, match=said):
        grouped(runs)
    with pytest.raises(ValueError, match="found seed 0 twice"):
        grouped([runs[0], runs[0]])
