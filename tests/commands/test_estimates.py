"""What `amn plan` says a stage takes: rates of equal neighbours alone, else a trial of a few images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amn_dist.commands.estimates import memory, trial
from amn_dist.commands.estimates.cost import Cost, Measured, fit_cost, fullest, map_cost
from amn_dist.commands.plan import amount
from amn_dist.config import Config, load_config
from amn_dist.methods import stages
from amn_dist.models.precision import precision_name
from amn_dist.shards.sample import evenly, write_sample
from amn_dist.shards.shardset import ShardSet
from amn_dist.telemetry import METRICS
from data_shards.synthetic import pack_synthetic

Say = Callable[..., Any]
FITS, MAPS = {"classify", "irn"}, {"cam", "walk"}
OTHER = "fp32" if precision_name() == "bf16" else "bf16"
VGG = "{name: vgg16, stride: 16, weights: null, frozen_taps: 0}"


def rated(done: Any) -> set[str]:
    """Stages whose time is told from a neighbour's rate."""
    assert done.code == 0, done.err
    lines = [line.split("│") for line in done.out.splitlines() if line.startswith("│")]
    return {line[1].strip() for line in lines if "images/s" in line[6]}


@pytest.fixture
def planned(finished: Path, amn: Say) -> Callable[..., set[str]]:
    """Stages that a run beside the finished one, of its configuration under some settings, takes rates of."""

    def call(*settings: str, data: Path = finished.parent, run: Path = finished.parent / "other") -> set[str]:
        options = [word for setting in settings for word in ("--set", setting)]
        return rated(amn("plan", finished / "config.yaml", "--no-measure", "--data", data, "--run", run, *options))

    return call


def test_an_equal_neighbour_counts(planned: Callable[..., set[str]]) -> None:
    assert planned() == FITS | MAPS
    assert planned("classify.epochs=9", "classify.lr=0.3", "irn.steps=7", "cam_seed.foreground=0.5") == FITS | MAPS


@pytest.mark.parametrize(
    ("setting", "lost"),
    [
        ("classify.crop=64", {"classify"}),
        ("irn.batch=4", {"irn"}),
        (f"classify.backbone={VGG}", {"classify", "cam"}),
        ("classify.backbone.frozen_taps=2", {"classify"}),
        ("cam.scales=[1.0, 0.5]", {"cam"}),
        ("cam_seed.crf=pydensecrf", {"cam"}),
        ("walk.steps=8", {"walk"}),
        (f"engine.precision={OTHER}", FITS),
        (f"infer.precision={OTHER}", MAPS),
        ("engine.name=deepspeed", FITS),
        ("farm.threads=2", FITS | MAPS),
        ("loader.name=dali", FITS | MAPS),
    ],
)
def test_a_neighbour_that_did_other_work_does_not(
    setting: str, lost: set[str], planned: Callable[..., set[str]]
) -> None:
    assert planned(setting) == (FITS | MAPS) - lost


def test_a_map_over_images_of_another_size_does_not(planned: Callable[..., set[str]], tmp_path: Path) -> None:
    pack_synthetic(tmp_path / "train", images=4, seed=1, classes=2, size=(96, 128))
    assert planned(data=tmp_path) == FITS


@pytest.mark.parametrize("change", [{"cpu": "another"}, {"cores": 4096}, {"devices": ["a GPU"]}])
def test_a_neighbour_on_another_machine_does_not(
    change: dict[str, Any], finished: Path, planned: Callable[..., set[str]], tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "there")
    assert planned(run=tmp_path / "other") == FITS | MAPS
    path = tmp_path / "there" / "environment.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert planned(run=tmp_path / "other") == set()


@pytest.mark.slow
def test_a_trial_is_made_once(finished: Path, amn: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(trial, "LONG_S", 0.0)  # the second trial is as the first, of other sizes
    small = "segment={backbone: {name: small, stride: 8, weights: null, frozen_taps: 0}, batch: 2, steps: 9, crop: 48}"
    words = ("plan", finished / "config.yaml", "--data", finished.parent, "--run", tmp_path / "runs/x", "--set", small)
    first = amn(*words)
    assert "measuring on a few images" in first.err and "not measured" not in first.out
    assert " in all" in first.out.splitlines()[-1] and not (tmp_path / "runs").exists()
    again = amn(*words)
    assert again.out == first.out and "measuring" not in again.err
    longer = amn(*words, "--set", "irn.epochs=4000")
    assert not longer.err and longer.out != first.out
    (kept,) = (tmp_path / ".cache/amn/trials").iterdir()
    kept.write_text("{")
    monkeypatch.setattr(trial, "LIMIT_S", 0.2)
    refused = amn(*words)
    assert refused.code == 0 and "not measured: a trial of a few images took longer than 0 s" in refused.out


def test_a_trial_that_fails_is_told(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "trial.yaml").write_text("name: 7\n")
    with pytest.raises(Exception, match=r"a trial ended badly \(.*name: found 7"):
        trial.run_alone(tmp_path)


def test_what_decides_a_trial(finished: Path) -> None:
    sets = {"train": ShardSet.open(str(finished.parent / "train"))}
    keys = {}
    for setting in ("name=x", "classify.epochs=7", "irn.crop=64", "farm.workers=3", "score.threshold=0.5"):
        keys[setting] = memory.trial_key(load_config(finished / "config.yaml", (setting,)), sets)
    assert keys["name=x"] == keys["classify.epochs=7"] == keys["score.threshold=0.5"]
    assert len(set(keys.values())) == 3


@given(sizes=st.lists(st.integers(1, 70), min_size=1, max_size=12), chunk=st.integers(1, 40), workers=st.integers(1, 5))
def test_the_fullest_worker(sizes: list[int], chunk: int, workers: int) -> None:
    chunks = [min(chunk, size - start) for size in sizes for start in range(0, size, chunk)]
    loads = [0] * workers
    for images in chunks:
        loads[loads.index(min(loads))] += images
    assert fullest(sizes, chunk, workers) == max(loads) >= sum(sizes) / workers


def test_costs_from_records() -> None:
    steps = [{"step": n, "time": 50.0 + s, "images_per_s": 1.0} for n, s in ((1, 9.0), (2, 9.5), (3, 10.0), (4, 11.0))]
    cost = fit_cost([*steps, {"done": True, "seconds": 12.0}], batch=2)
    assert cost == Cost(12.0, 8, 1.5 / 2 / 2) and cost.of(16) == 12.0 + 8 * cost.each
    assert fit_cost([steps[0], {"done": True, "seconds": 9.5}], batch=2) == Cost(9.5, 2, 1.0)
    shards = [{"step": n, "time": 100.0 + s, "images_per_s": 1.0} for n, s in ((2, 7.0), (4, 8.0), (8, 10.0))]
    over = map_cost([*shards, {"done": True, "seconds": 11.0}], warm=4, images=4, workers=2)
    assert over == Cost(11.0, 4, 2 * 2.0 / 4) and over.of(10) == 11.0 + 6 * 1.0
    alone = map_cost([shards[0], {"done": True, "seconds": 8.0}], warm=2, images=2, workers=1)
    assert alone.each == 1.0


@pytest.mark.parametrize("lines", [[], [{"done": True, "seconds": 2.0}], None])
def test_a_stage_that_went_through_nothing_has_no_cost(tmp_path: Path, lines: list[dict[str, Any]] | None) -> None:
    (tmp_path / "run" / "score").mkdir(parents=True)
    if lines is not None:
        (tmp_path / "run" / "score" / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert trial.records_of(tmp_path, stages(Config.model_validate({"name": "x", "data": {"train": "t"}}))[-1]) == []


def test_more_is_tried_where_it_is_fast(finished: Path) -> None:
    config = load_config(finished / "config.yaml", ("classify.batch=16", "irn.batch=16", "segment.batch=10"))
    names = ("classify", "cam", "irn", "walk", "segment", "score")
    for each, images, batch, steps in ((1e-4, 96, 16, 12), (0.25, 80, 13, 3), (30.0, 2, 2, 3)):
        costs = Measured(dict.fromkeys(names, Cost(1.0, 2, each)), 1.0)
        sample = trial.second_sample(config, costs, 500, 1, 20)
        assert (sample.images, sample.batches["classify"], sample.steps["classify"]) == (images, batch, steps)
        assert sample.shard == min(images // 2, 20) and sample.batches["segment"] <= 10


def test_a_trial_finds_every_set_from_outside_under_its_setting(finished: Path) -> None:
    config = load_config(
        finished / "config.yaml",
        ("method=refine", "refine.maps=s3://x/maps", "vote.labels=first_seed", "vote.proposals=/there/masks"),
    )
    images = ShardSet.open(str(finished.parent / "train"))
    sample = trial.first_sample(config, 1)
    small = trial.trial_config(config, sample, {"train": images}, {"maps": images, "proposals": images})
    assert (small.refine.maps, small.vote.proposals, small.data.val) == ("maps", "proposals", None)
    assert small.vote.labels == "first_seed"


def test_a_sample_holds_what_its_images_held(finished: Path, tmp_path: Path) -> None:
    images = ShardSet.open(str(finished.parent / "train"))
    write_sample(images, tmp_path / "few", count=3, shard_size=2)
    few = ShardSet.open(str(tmp_path / "few"))
    assert few.shard_sizes == (2, 1) and few.classes == images.classes and few.fields == images.fields
    for place, ordinal in enumerate(evenly(len(images), 3)):
        assert few.entry(place).key == images.entry(ordinal).key
        assert all(few.read(place, field) == images.read(ordinal, field) for field in images.entry(ordinal).fields)
    assert evenly(3, 10) == [0, 1, 2] and evenly(1000, 4) == [0, 250, 500, 750]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "about 0 s"),
        (89, "about 89 s"),
        (600, "about 10 min"),
        (12_000, "about 3.3 h"),
        (864_000, "about 10.0 days"),
    ],
)
def test_times_as_people_say_them(seconds: float, said: str) -> None:
    assert amount(seconds) == said
