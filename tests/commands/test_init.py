"""`amn init`: a configuration for a set of one's own, whatever its images are, that reads back and runs."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file

from amn_dist.commands.init import weights as weights_of
from amn_dist.commands.init.choices import Plan
from amn_dist.commands.init.command import run_name
from amn_dist.commands.init.facts import GIB, ImageFacts, MachineFacts, look_at_images, look_at_machine
from amn_dist.commands.init.reasons import cautions, reasons
from amn_dist.commands.init.text import config_text, flow
from amn_dist.commands.init.weights import FoundWeights, backbone_of, find_weights
from amn_dist.config import BackboneSection, Config, load_config, parse_config
from amn_dist.documents import read_yaml
from amn_dist.errors import ConfigError
from amn_dist.models.backbones.backbone import build_backbone
from amn_dist.runs.pipeline import Pipeline
from amn_dist.runs.run import Run
from amn_dist.shards.writer import index_all, write_shard
from amn_dist.storage.paths import path_of
from amn_dist.training.loop import count_pieces
from data_shards.synthetic import pack_synthetic

Say = Callable[..., Any]
NONE = FoundWeights({}, "nowhere")
SMALL = MachineFacts(cores=2, memory_gib=16.0, libraries=frozenset({"dali", "deepspeed", "ray"}))
GPUS = MachineFacts(cores=64, memory_gib=400.0, devices=8, device_gib=80.0)
PHOTOGRAPHS = ImageFacts("/data/train", 10_582, tuple(map(str, range(21))), 500, 375, 142, 500, 500)


def set_of(folder: Path, sizes: list[tuple[int, int]], *, classes: int = 2, mode: str = "RGB") -> Path:
    """A set of noise of these sizes (height, width), all tagged with their first class but every third."""
    rng, names = np.random.default_rng(0), ("background", *(f"class {n}" for n in range(1, classes + 1)))
    rows = []
    for number, (height, width) in enumerate(sizes):
        pixels, stream = rng.integers(0, 256, (height, width, 3), np.uint8), io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(stream, "PNG")
        tags = np.zeros(classes, np.uint8)
        tags[number % classes] = number % 3 > 0 or classes > 1
        rows.append((f"k{number:04d}", (height, width), {"png": stream.getvalue(), "tags": tags.tobytes()}))
    for number, row in enumerate(rows):
        write_shard(folder, number, [row])
    index_all(folder, kind="images", classes=names, count=len(rows))
    return folder


@pytest.fixture(autouse=True)
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights lie in the usual places, and this is the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


ODD = {
    "tiny": {"sizes": [(9, 12)] * 6},
    "thin": {"sizes": [(20, 700)] * 4},
    "huge": {"sizes": [(3000, 4000)]},
    "grey": {"sizes": [(64, 48)] * 5, "mode": "L"},
    "one class": {"sizes": [(40, 40)] * 6, "classes": 1},
    "81 classes": {"sizes": [(60, 80)] * 8, "classes": 81},
    "one image": {"sizes": [(50, 70)]},
    "many sizes": {"sizes": [(16 + n, 300 - 5 * n) for n in range(12)]},
}


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("method", ["amn", "icd"])
def test_odd_sets_get_a_configuration_that_reads_back(kind: str, method: str, amn: Say, tmp_path: Path) -> None:
    images = set_of(tmp_path / "odd set", **ODD[kind])
    done = amn("init", images, "--out", "my.yaml", "--method", method)
    assert done.code == 0, done.err
    assert "NO PRETRAINED WEIGHTS" in done.out and "next: amn plan my.yaml" in done.out
    config = load_config("my.yaml")
    assert (config.name, config.method, config.data.train, config.data.val) == ("my", method, str(images), None)
    planned = amn("plan", "my.yaml", "--no-measure")
    assert planned.code == 0 and "none:" not in planned.out, planned


@pytest.mark.parametrize(
    "kind", [{"sizes": [(9, 12), (40, 30), (20, 90)], "classes": 1, "mode": "L"}, {"sizes": [(50, 70)]}]
)
def test_what_it_writes_runs(kind: dict[str, Any], amn: Say, tmp_path: Path) -> None:
    images = set_of(tmp_path / "set", **kind)
    assert amn("init", images, "--val", images, "--out", "my.yaml").code == 0
    lengths = [f"{stage}.{key}=1" for stage in ("classify", "amn", "irn") for key in ("epochs",)]
    here = ("engine.name=torch", "farm.name=local", "loader.name=torchvision", "segment.steps=1")
    config = load_config("my.yaml", (*lengths, *here))
    pipeline = Pipeline(config, Run(tmp_path / "run"), tmp_path, console=Console(quiet=True))
    pipeline.execute()
    assert all(pipeline.state(stage) == "done" for stage in pipeline.stages)


def test_a_file_that_is_there_is_not_written_over(amn: Say, tmp_path: Path, mistake: Callable[..., str]) -> None:
    images = set_of(tmp_path / "set", [(40, 60)] * 8)
    (tmp_path / "my.yaml").write_text("mine\n")
    assert "my.yaml: is there already" in mistake("init", images, "--out", "my.yaml")
    assert (tmp_path / "my.yaml").read_text() == "mine\n"
    assert amn("init", images, "--out", "my.yaml", "--force").code == 0 and load_config("my.yaml").name == "my"


def test_mistakes_are_one_line(finished: Path, tmp_path: Path, mistake: Callable[..., str]) -> None:
    images = set_of(tmp_path / "set", [(40, 60)] * 2)
    other = set_of(tmp_path / "other", [(40, 60)] * 2, classes=3)
    assert "nowhere" in mistake("init", "nowhere", "--out", "a.yaml")
    assert "kind cam" in mistake("init", finished / "cam", "--out", "a.yaml")
    assert "--method refine: expected irn, amn" in mistake("init", images, "--out", "a.yaml", "--method", "refine")
    assert "ends with .yaml" in mistake("init", images, "--out", "a.txt")
    assert "its classes are not those" in mistake("init", images, "--val", other, "--out", "a.yaml")
    assert "found nothing" in mistake("init", images, "--out", "a.yaml", "--weights", "no")
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "a.pth").write_bytes(b"no weights")
    assert "found no weights that fit" in mistake("init", images, "--out", "a.yaml", "--weights", "w")
    assert not list(tmp_path.glob("*.yaml"))


def test_names_of_classes_are_no_settings(amn: Say, tmp_path: Path) -> None:
    images = set_of(tmp_path / "set", [(40, 60)] * 2)
    hostile = ("background", "a\nname: evil", "\x1b[2J# b")
    index_all(images, kind="images", classes=hostile, count=2)
    done = amn("init", images, "--out", "my.yaml")
    assert done.code == 0 and "\x1b[2J" not in done.out + Path("my.yaml").read_text()
    assert load_config("my.yaml").name == "my"


def test_sizes_are_read_from_a_sample(tmp_path: Path) -> None:
    pack_synthetic(tmp_path / "set", images=7, seed=0, classes=3, size=(40, 90), shard_size=2)
    facts = look_at_images(path_of(tmp_path / "set"))
    assert (facts.count, facts.looked, len(facts.classes)) == (7, 7, 4)
    assert 40 <= facts.least <= facts.short <= facts.long <= facts.most <= 90


def test_weights_are_known_by_what_they_fit(tmp_path: Path, amn: Say) -> None:
    section = BackboneSection(name="vgg16", stride=16)
    tensors = {name: tensor.half() for name, tensor in build_backbone(section).features.state_dict().items()}
    (tmp_path / "weights").mkdir()
    save_file(tensors, tmp_path / "weights" / "mine.safetensors")
    (tmp_path / "weights" / "notes.txt").write_text("no weights")
    path = tmp_path / "weights" / "mine.safetensors"
    assert backbone_of(path) == "vgg16"
    for named in (None, path, path.parent):
        assert find_weights(named).by_backbone == {"vgg16": str(path)}
    images = set_of(tmp_path / "set", [(300, 400)] * 8)
    done = amn("init", images, "--out", "my.yaml")
    assert done.code == 0 and "NO PRETRAINED" not in done.out
    config = load_config("my.yaml")
    assert config.initial_weights(config.classify.backbone) == str(path) == str(config.segment.backbone.weights)
    assert (config.classify.crop, config.segment.crop) == (240, 241)


def test_torchvision_counts_where_it_was_downloaded(tmp_path: Path) -> None:
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    assert find_weights(None).by_backbone == {}
    (folder / "resnet50-11ad3fa6.pth").touch()  # of another recipe
    assert not weights_of.is_cached("resnet50")
    (folder / "resnet50-0676ba61.pth").touch()
    assert find_weights(None).by_backbone == {"resnet50": "torchvision"}


def config_of(plan: Plan) -> Config:
    return parse_config(config_text(plan, "x"), where="x")


WEIGHTS = FoundWeights({"resnet50": "torchvision", "resnet101": "/w/deeplab.pth"}, "there")


def test_photographs_on_gpus_are_as_published() -> None:
    plan = Plan("amn", PHOTOGRAPHS, PHOTOGRAPHS, replace(GPUS, devices=1), WEIGHTS)
    config, published = config_of(plan), Config(name="x")
    for name in ("classify", "amn", "irn"):
        made, usual = getattr(config, name), getattr(published, name)
        assert (made.crop, made.batch, made.epochs, made.lr_head) == (512, usual.batch, usual.epochs, usual.lr_head)
        assert made.backbone == usual.backbone
    assert config.classify.long_side == (320, 640) and config.irn.radius == 10
    assert (config.segment.steps, config.segment.crop) == (20_000, 321)
    assert config.cam == published.cam and config.walk == published.walk.model_copy(update={"pad": None})
    assert config.segment.backbone.weights == "/w/deeplab.pth" and not config.segment.micro_batch
    assert len(cautions(plan)) == 0


@pytest.mark.parametrize("count", [1, 7, 40, 300, 100_000])
@pytest.mark.parametrize("machine", [SMALL, GPUS, replace(SMALL, memory_gib=2.0), replace(GPUS, device_gib=8.0)])
@pytest.mark.parametrize("found", [NONE, WEIGHTS, FoundWeights({"vgg16": "/w/v.pth"}, "there")])
@pytest.mark.parametrize("method", ["irn", "icd_amn"])
def test_every_choice_can_be_run(count: int, machine: MachineFacts, found: FoundWeights, method: str) -> None:
    plan = Plan(method, replace(PHOTOGRAPHS, count=count), None, machine, found)
    config = config_of(plan)
    processes = config.engine.processes or machine.devices
    for name in ("classify", "amn", "irn", "segment", "discriminate"):
        if f"\n{name}:" in config_text(plan, "x"):
            section = getattr(config, name)
            assert section.batch <= count and section.batch % processes == 0
            assert count_pieces(section, processes) >= 1
            held = section.micro_batch or section.batch // processes
            memory = held * section.crop**2 * 3_000
            assert held == 1 or memory <= (machine.device_gib or machine.memory_gib) * GIB
            assert section.crop % 8 in (0, 1)
    assert config.farm.workers <= machine.cores and len(list(reasons(plan))) >= 8


def test_small_sets_are_gone_over_more_often() -> None:
    for count, least in ((60, 100), (400, 100), (10_582, 3_000)):
        plan = Plan("amn", replace(PHOTOGRAPHS, count=count), None, SMALL, WEIGHTS)
        assert all(plan.steps(name) >= least for name in ("classify", "amn"))
    assert Plan("amn", replace(PHOTOGRAPHS, count=100_000), None, SMALL, WEIGHTS).epochs("classify") == 5


def test_a_value_on_one_line_reads_back() -> None:
    values = {"a": None, "b": [1e-6, 2.5e-4, 1.0], "c": "no", "d": "a: b # c", "e": "ä", "f": {"g": True}, "h": "small"}
    assert read_yaml(f"x: {flow(values)}") == {"x": values}
    assert flow({"name": "small", "weights": None}) == "{name: small, weights: null}"


@pytest.mark.parametrize(("file", "name"), [("my.yaml", "my"), ("a b/ü 1.yaml", "1"), ("___.yml", "own")])
def test_a_run_is_called_as_its_file(file: str, name: str) -> None:
    assert run_name(Path(file)) == name and Config(name=run_name(Path(file)))


def test_memory_is_what_may_be_had() -> None:
    assert 0.1 < look_at_machine().memory_gib < 10_000


def test_unknown_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="found nothing, expected weights of resnet50"):
        find_weights(tmp_path / "none.pth")
