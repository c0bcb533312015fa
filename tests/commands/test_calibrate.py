"""Thresholds from drawn masks, of a run that really ran, against its own scores and masks; mistakes in one line."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from amn_dist.commands.calibrate.drawn import calibrated, mask_notes
from amn_dist.commands.calibrate.maps import StoredMaps, WalkedMaps, count_maps, cut_maps, enlarged_planes
from amn_dist.commands.calibrate.masks import DrawnMask, read_masks
from amn_dist.commands.calibrate.next_images import changing_share, sampled, worth_drawing
from amn_dist.commands.calibrate.settings import settings_of
from amn_dist.config import Config, load_config
from amn_dist.ops.metrics.threshold_analysis import GRID
from amn_dist.ops.metrics.threshold_choice import miou_curves
from amn_dist.ops.resize import resize_label
from amn_dist.runs.pipeline import Pipeline, reopen
from amn_dist.runs.run import Run
from data_shards.synthetic import pack_synthetic
from tests.tiny import IRN

Say = Callable[..., Any]
Mistake = Callable[..., str]


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of method irn that came to its end, over twelve drawn scenes of three classes in `train` beside it."""
    root = tmp_path_factory.mktemp("ended")
    pack_synthetic(root / "train", images=12, seed=3, classes=3, size=(48, 64), shard_size=5)
    Pipeline(Config.model_validate(IRN), Run(root / "run"), root, console=Console(quiet=True)).execute()
    return root / "run"


@pytest.fixture(scope="module")
def pipeline(ended: Path) -> Pipeline:
    return reopen(ended)


def png(labels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(labels).save(stream, "PNG")
    return stream.getvalue()


def draw(pipeline: Pipeline, folder: Path, ordinals: Sequence[int]) -> Path:
    """The truth of some images as masks that somebody drew, named after the photographs."""
    images = pipeline.sets["train"]
    folder.mkdir(parents=True, exist_ok=True)
    for ordinal in ordinals:
        (folder / f"{images.entry(ordinal).key}.png").write_bytes(images.read(ordinal, "gt.png"))
    return folder


def test_masks_of_all_images_choose_by_the_curve_that_is_scored(
    ended: Path, pipeline: Pipeline, tmp_path: Path
) -> None:
    images = pipeline.sets["train"]
    masks = read_masks(draw(pipeline, tmp_path / "masks", range(12)), images)
    assert [mask.ordinal for mask in masks] == list(range(12))
    rows = calibrated(pipeline, cut_maps(pipeline), masks, seed=0)
    assert [row.maps.name for row in rows] == ["cam", "walk"]
    scored = json.loads((ended / "score" / "score.json").read_text())["sets"]["train"]["rows"]
    np.testing.assert_allclose(rows[0].choice.curve, scored["cam"]["miou"], rtol=1e-9)
    assert rows[1].choice.curve[rows[1].now] == pytest.approx(scored["walk"]["miou"], rel=1e-9)


def test_walked_maps_at_the_runs_background_are_its_masks(pipeline: Pipeline) -> None:
    images, walk = pipeline.sets["train"], pipeline.open("walk")
    order = [7, 0, 11, 3]
    for ordinal, maps in zip(order, WalkedMaps(pipeline).full_size(order), strict=True):
        classes = np.flatnonzero(images.load(ordinal, "tags")) + 1
        labels = np.where(maps.max(0) > np.float32(0.25), classes[maps.argmax(0)], 0)
        np.testing.assert_array_equal(labels, walk.load(ordinal, "mask.png"))


def test_maps_of_large_photographs_are_enlarged_as_their_labels_are() -> None:
    planes = np.random.default_rng(0).random((2, 7, 9), dtype=np.float32)
    grown = enlarged_planes(planes, (20, 31))
    np.testing.assert_array_equal(grown.argmax(0), resize_label(planes.argmax(0), (20, 31)))
    assert enlarged_planes(planes[:0], (20, 31)).shape == (0, 20, 31)


def test_with_masks_to_a_run_with_other_thresholds(
    ended: Path, pipeline: Pipeline, amn: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    draw(pipeline, tmp_path / "masks", range(0, 12, 2))
    done = amn("calibrate", ended, "--masks", "masks", "--write", "new.yaml", "--next", 3)
    assert done.code == 0, done.err
    again = amn("calibrate", ended, "--masks", "masks")
    assert done.out.splitlines()[:8] == again.out.splitlines()[:8], "the same masks say the same"
    assert "6 masks, VOC protocol" in done.out and "90% interval" in done.out
    config = load_config(tmp_path / "new.yaml")
    assert config.name == "new" and f"set walk: --set walk.background={config.walk.background:g}\n" in done.out
    assert config.model_copy(update={"name": "run", "walk": pipeline.config.walk}) == pipeline.config
    assert (tmp_path / "new.yaml").read_text().startswith(f"# Written by `amn calibrate {ended}`")
    command = done.out.splitlines()[-1]
    assert command == f"next: amn run new.yaml --data {ended.parent} --run {ended.parent / 'new'}"
    run = amn(*command.removeprefix("next: amn ").split(), "--until", "walk")
    assert run.code == 0, run.err
    assert all(f"{stage}: taken from run run" in run.err for stage in ("classify", "cam", "cam_seed", "irn"))
    shutil.rmtree(ended.parent / "new")


def test_the_settings_that_are_said_are_taken(ended: Path, pipeline: Pipeline, amn: Say, tmp_path: Path) -> None:
    done = amn("calibrate", ended, "--masks", draw(pipeline, tmp_path / "masks", range(6)), "--stage", "cam")
    (line,) = [line for line in done.out.splitlines() if line.startswith("set ")]
    words = line.removeprefix("set cam: ").split()
    config = load_config(ended / "config.yaml", tuple(words[1::2]))
    assert config.score.threshold == settings_of(config, "cam", config.score.threshold)["score.threshold"]
    assert config.cam_seed.background < config.score.threshold < config.cam_seed.foreground
    assert amn("score", ended, *words[-2:]).code == 0


def test_without_masks_an_estimate_that_is_called_one(ended: Path, amn: Say) -> None:
    done = amn("calibrate", ended, "--images", 6)
    assert done.code == 0, done.err
    assert "no masks, 6 images" in done.out and "set walk: --set walk.background=0." in done.out
    assert "an estimate" in done.out


def test_images_that_change_most_are_named(ended: Path, pipeline: Pipeline, amn: Say, tmp_path: Path) -> None:
    images, (cam, _) = pipeline.sets["train"], cut_maps(pipeline)
    assert isinstance(cam, StoredMaps)
    worth, seen = worth_drawing(cam, (0.2, 0.5), {0, 5}, count=4)
    shares = {}
    for ordinal in set(range(12)) - {0, 5}:
        strongest = pipeline.open("cam").load(ordinal, "activation.f16").astype(np.float32).max(0)
        shares[images.entry(ordinal).key] = ((strongest > np.float32(0.2)) != (strongest > np.float32(0.5))).mean()
    assert seen == 10 and [one.changing for one in worth] == sorted(shares.values(), reverse=True)[:4]
    assert all(shares[one.name] == one.changing for one in worth)
    done = amn("calibrate", ended, "--masks", draw(pipeline, tmp_path / "masks", range(5)), "--next", 2)
    named = [line for line in done.out.splitlines() if line.startswith("draw next: ")]
    assert len(named) == 1 and named[0].count("scene_3_") == 2 and "scene_3_000004" not in named[0]


def test_labels_change_where_the_ends_of_an_interval_lie_around_a_map() -> None:
    maps = np.array([[[0.1, 0.3, 0.5, 0.9]], [[0.2, 0.1, 0.6, 0.2]]], np.float16)
    assert changing_share(maps, (0.25, 0.7)) == 0.5 and changing_share(maps, (0.95, 0.97)) == 0
    assert changing_share(maps[:0], (0.1, 0.9)) == 0


def test_of_a_large_set_a_sample_is_looked_at() -> None:
    some = sampled(10_000, 50, 1, without={3, 4})
    assert len(some) == 50 == len(set(some)) and some == sorted(some) and not {3, 4} & set(some)
    assert some == sampled(10_000, 50, 1, without={3, 4}) != sampled(10_000, 50, 2, without={3, 4})
    assert sampled(5, 50, 1, without=[1]) == [0, 2, 3, 4]


@pytest.fixture
def masks(pipeline: Pipeline, tmp_path: Path) -> Path:
    """Six masks of the run's scenes."""
    return draw(pipeline, tmp_path / "masks", range(6))


def truth(masks: Path, number: int = 0) -> np.ndarray:
    with Image.open(masks / f"scene_3_{number:06d}.png") as picture:
        return np.array(picture)


@pytest.mark.parametrize(
    ("name", "spoil", "told"),
    [
        ("scene_3_000000", lambda ids: png(ids[:-1]), "scene_3_000000.png: is "),
        (
            "scene_3_000000",
            lambda ids: png(np.where(ids > 0, 9, 0).astype(np.uint8)),
            "holds id 9; expected 0 to 3, or 255",
        ),
        ("scene_3_000000", lambda ids: png(np.stack([ids] * 3, -1)), "scene_3_000000.png: is a 8-bit RGB PNG"),
        ("scene_3_000000", lambda ids: png(ids)[:60], "scene_3_000000.png: is a damaged PNG"),
        ("scene_3_000000", lambda ids: b"", "scene_3_000000.png: is empty"),
        ("scene_3_00000", lambda ids: png(ids), "scene_3_00000.png: "),
        ("scene_9", lambda ids: png(ids), "no sample 'scene_9'"),
    ],
)
def test_a_mask_that_cannot_be_used_is_named(
    ended: Path, masks: Path, mistake: Mistake, name: str, spoil: Callable[[np.ndarray], bytes], told: str
) -> None:
    (masks / f"{name}.png").write_bytes(spoil(truth(masks)))
    (masks / "nobody.png").write_bytes(b"text")
    said = mistake("calibrate", ended, "--masks", masks)
    assert told in said and "nobody.png: " in said


def test_a_second_mask_of_an_image_is_refused(ended: Path, pipeline: Pipeline, masks: Path, mistake: Mistake) -> None:
    key = pipeline.sets["train"].entry(0).key
    shutil.copy(masks / f"{key}.png", masks / f"{key}.PNG")
    assert f"{key}.png: a second mask of {key} beside {key}.PNG; keep one" in mistake(
        "calibrate", ended, "--masks", masks
    )


def test_folders_without_masks_are_refused(ended: Path, tmp_path: Path, mistake: Mistake) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.jpg").write_bytes(b"")
    assert "holds 1 files and no .png" in mistake("calibrate", ended, "--masks", tmp_path / "empty")
    assert "no such file" in mistake("calibrate", ended, "--masks", tmp_path / "nowhere")
    assert "not a directory" in mistake("calibrate", ended, "--masks", tmp_path / "empty" / "a.jpg")


def test_masks_of_background_alone_choose_nothing(ended: Path, masks: Path, mistake: Mistake) -> None:
    for number in range(6):
        (masks / f"scene_3_{number:06d}.png").write_bytes(png(truth(masks, number) * 0))
    assert "--masks: found no class in 6 masks" in mistake("calibrate", ended, "--masks", masks)


def test_what_makes_masks_worth_less_is_said(pipeline: Pipeline) -> None:
    images = pipeline.sets["train"]
    tags = [np.flatnonzero(images.load(ordinal, "tags")) + 1 for ordinal in range(12)]
    first = next(ordinal for ordinal in range(12) if len(tags[ordinal]) < 3)
    other = next(label for label in (1, 2, 3) if label not in tags[first])
    labels = np.full((images.entry(first).height, images.entry(first).width), other, np.uint8)
    said = list(mask_notes([DrawnMask("a.png", first, labels), DrawnMask("b.png", 1, labels * 0 + 255)], images))
    assert said[0].startswith("2 mask(s), expected 5 at least")
    assert said[1] == "255 throughout, and without a say: b.png"
    assert said[2].startswith(f"a.png holds {images.classes[other]}, which the tags of its image lack; another image?")
    absent = [images.classes[label] for label in (1, 2, 3) if label != other]
    assert said[3].startswith(f"no mask holds {', '.join(absent)}:") and "truth of its own" in said[4]


def test_classes_that_no_mask_holds_leave_the_others_their_threshold(pipeline: Pipeline) -> None:
    images, (cam, _) = pipeline.sets["train"], cut_maps(pipeline)
    ordinals = [o for o in range(12) if images.load(o, "tags")[0] and images.load(o, "gt.png").any()]
    truths = [np.where(images.load(o, "gt.png") == 1, 1, 0).astype(np.uint8) for o in ordinals]
    counts = count_maps(cam, images, ordinals, truths)
    curve = miou_curves(counts, np.ones((1, len(ordinals))))[0]
    assert np.isfinite(curve).all() and len(curve) == len(GRID)


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("--write", "a.txt"), 2, "--write a.txt: expected a name that ends with .yaml"),
        (("--write", "there.yaml"), 2, "--write there.yaml: is there already"),
        (("--stage", "amn_map"), 2, "--stage amn_map: found cam, walk in"),
        (("--within", "0"), 2, "within"),
        (("--masks",), 2, "masks"),
    ],
)
def test_mistakes(
    ended: Path, mistake: Mistake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: Any, code: int, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.yaml").write_text("mine\n")
    assert told in mistake("calibrate", ended, *words, code=code)
    assert (tmp_path / "there.yaml").read_text() == "mine\n"


def test_a_run_without_maps_says_how_to_make_some(ended: Path, tmp_path: Path, mistake: Mistake) -> None:
    for name in ("config.yaml", "data.json", "classes.json"):
        (tmp_path / "run").mkdir(exist_ok=True)
        shutil.copy(ended / name, tmp_path / "run" / name)
    assert "it has no finished map; `amn run` with --until cam" in mistake("calibrate", tmp_path / "run", code=1)
    assert "not a run" in mistake("calibrate", tmp_path)


AROUND = {"cam": "cam_seed", "icd_map": "icd_seed", "refine": "refine_seed", "amn_map": "amn_seed"}


@pytest.mark.parametrize(
    ("method", "name", "more", "keys"),
    [
        ("irn", "cam", {}, ["cam_seed.background", "cam_seed.foreground", "score.threshold"]),
        ("amn", "cam", {}, ["cam_seed.background", "cam_seed.foreground"]),
        ("amn", "amn_map", {}, ["amn_seed.background", "amn_seed.foreground", "score.threshold"]),
        ("icd", "icd_map", {}, ["score.threshold"]),
        (
            "icd",
            "icd_map",
            {"icd_seed": {"rule": "threshold"}},
            ["icd_seed.background", "icd_seed.foreground", "score.threshold"],
        ),
        ("clip_amn", "clip_map", {}, []),
        ("refine", "refine", {"refine": {"maps": "m"}}, ["refine_seed.background", "refine_seed.foreground"]),
        ("irn", "walk", {}, ["walk.background"]),
    ],
)
def test_what_a_threshold_is_a_setting_of(method: str, name: str, more: dict[str, Any], keys: list[str]) -> None:
    config = Config.model_validate({"name": "x", "method": method, **more})
    for threshold in (0.01, 0.25, 0.99):
        settings = settings_of(config, name, threshold)
        assert list(settings) == keys
        pair = [
            settings[key]
            for key in keys
            if key.endswith(("background", "foreground")) and key.startswith(AROUND.get(name, "-"))
        ]
        assert not pair or 0 < pair[0] < threshold < pair[1] < 1


def test_a_seed_around_its_own_middle_stays_as_it_is() -> None:
    config = Config.model_validate({"name": "x", "method": "irn", "cam_seed": {"background": 0.2, "foreground": 0.8}})
    settings = settings_of(config, "cam", 0.5)
    assert settings["cam_seed.background"] == 0.2 and settings["cam_seed.foreground"] == 0.8
