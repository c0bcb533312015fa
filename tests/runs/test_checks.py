"""What a run would stumble over hours later is told before it works, all of it at once; plan tells the same."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import nn

from amn_dist.config import BackboneSection, Config, Irn
from amn_dist.errors import AmnError, ConfigFaults
from amn_dist.models.backbones.architectures import ARCHITECTURES
from amn_dist.models.backbones.backbone import Backbone, build_backbone
from amn_dist.models.weights import save_network, torchvision_cache
from amn_dist.ops.affinity import window
from amn_dist.records import grid_size
from amn_dist.runs import room
from amn_dist.runs.estimates import look_at
from amn_dist.runs.pipeline import Pipeline
from amn_dist.runs.run import Run
from amn_dist.shards.shardset import ShardSet
from amn_dist.stages.irn import least_crop
from data_shards.synthetic import pack_synthetic
from tests.tiny import FIT, IRN, SMALL

TREE: dict[str, Any] = {**IRN, "irn": {**FIT, "radius": 4}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five drawn scenes of about 64x48 pixels."""
    folder = tmp_path_factory.mktemp("data")
    pack_synthetic(folder / "train", images=5, seed=0, classes=2, size=(48, 64), shard_size=3)
    return folder


@pytest.fixture
def told(data: Path, tmp_path: Path) -> Callable[..., tuple[list[str], list[str]]]:
    """Faults and notes of a run with other settings; nothing may have been written."""

    def run(changes: Mapping[str, Any] = {}, *, folder: Path | None = None, **more: Any) -> tuple[list[str], list[str]]:
        said, folder = io.StringIO(), folder or tmp_path / "run"
        config = Config.model_validate({**TREE, "weights": str(tmp_path), **changed(changes)})
        line = Pipeline(config, Run(folder), data, console=Console(file=said, width=4000), **more)
        faults: tuple[str, ...] = ()
        try:
            line.check(line.stages)
        except ConfigFaults as error:
            faults = error.args
        except AmnError as error:
            faults = (str(error),)
        assert not (folder / "config.yaml").exists()
        return list(faults), said.getvalue().splitlines()

    return run


def changed(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Sections with some keys replaced, by `section.key` or whole."""
    sections: dict[str, Any] = {}
    for path, value in changes.items():
        name, _, key = path.partition(".")
        sections[name] = {**sections.get(name, TREE.get(name, {})), key: value} if key else value
    return sections


def test_a_sound_run_is_told_nothing(told: Any) -> None:
    assert told() == ([], [])


def test_batches_that_cannot_be_made_up_are_told_at_once(told: Any) -> None:
    changes = {"irn.batch": 16, "segment.batch": 6, "engine.processes": 3, "engine.launcher": "torchrun"}
    faults, _ = told({**changes, "classify.micro_batch": 1, "classify.batch": 4})
    assert faults == [
        "classify.micro_batch 1: shares of 1 and 2 images need different numbers of micro-batches; make batch 4 a "
        "multiple of the 3 processes, or set micro_batch to 0",
        "irn.batch 16: the training set has 5 images; set a smaller batch",
        "segment.batch 6: the training set has 5 images; set a smaller batch",
    ]
    faults, _ = told({"classify.batch": 2, "engine.processes": 3, "engine.launcher": "torchrun"})
    assert faults[0].startswith("classify.batch 2: 3 processes need one image each")


def test_several_faults_are_a_line_each_on_the_command_line(data: Path, tmp_path: Path, amn: Any) -> None:
    Path(tmp_path / "c.yaml").write_text(repr(TREE).replace("None", "null"))
    asked = ("--set", "irn.batch=16", "--set", "segment.backbone.weights=none_there.pth")
    for command in ("plan", "run"):
        done = amn(command, tmp_path / "c.yaml", "--data", data, "--run", tmp_path / "r", *asked)
        lines = done.err.splitlines()
        assert done.code == 2 and len(lines) == 2 and all(line.startswith("error: ") for line in lines), done
        assert "segment.backbone.weights: weights/none_there.pth: no such weights file" in lines[0]
        assert "irn.batch 16" in lines[1] and ("classify" in done.out) == (command == "plan")
        assert not (tmp_path / "r").exists()


def test_stages_that_are_done_are_not_checked(told: Any, tmp_path: Path) -> None:
    (tmp_path / "run" / "irn").mkdir(parents=True)
    (tmp_path / "run" / "irn" / "done.json").write_text("{}")
    assert told({"irn.batch": 16}) == ([], [])


def test_what_is_to_be_made_again_is_checked_before_it_is_dropped(data: Path, tmp_path: Path) -> None:
    last = tmp_path / "run" / "irn" / "done.json"
    last.parent.mkdir(parents=True)
    last.write_text("{}")
    config = Config.model_validate({**TREE, **changed({"irn.batch": 16})})
    line = Pipeline(config, Run(tmp_path / "run"), data, console=Console(quiet=True))
    with pytest.raises(AmnError, match=r"irn\.batch 16"):
        line.execute(redo="irn")
    assert last.exists()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A folder with weights of the small network, good and bad."""
    file = tmp_path / "good.safetensors"
    save_network(build_backbone(BackboneSection(**SMALL)).features, file)
    tensors = load_file(file)
    torch.save(tensors, tmp_path / "good.pth")
    torch.save({"state_dict": tensors, "epoch": 3}, tmp_path / "wrapped.ckpt")
    name = next(name for name in tensors if name.startswith("block5"))
    save_file({**tensors, name: torch.zeros(3, 3)}, tmp_path / "shape.safetensors")
    save_file({key: one for key, one in tensors.items() if key != name}, tmp_path / "depth.safetensors")
    torch.save({**tensors, name: tensors[name] * torch.nan}, tmp_path / "nan.pth")
    for whole in ("good.safetensors", "good.pth"):
        content = (tmp_path / whole).read_bytes()
        (tmp_path / f"cut_{whole}").write_bytes(content[: len(content) // 2])
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "text.txt").write_text("x")
    return tmp_path


@pytest.mark.parametrize("file", ["good.safetensors", "good.pth", "wrapped.ckpt"])
def test_weights_that_fit_pass(told: Any, weights: Path, file: str) -> None:
    assert told({"segment.backbone": {**SMALL, "weights": file}}) == ([], [])


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("shape.safetensors", "the weights do not fit; misshapen: block5"),
        ("depth.safetensors", "the weights do not fit; missing: block5"),
        ("nan.pth", "the weights do not fit; not finite: block5"),
        ("cut_good.safetensors", "cannot be read as weights, expected tensors by name"),
        ("cut_good.pth", "cannot be read as weights, expected tensors by name"),
        ("folder.pth", "a folder, not a weights file; give a .pth or .safetensors path"),
        ("text.txt", "found the ending '.txt', expected weights as .safetensors"),
        ("none.pth", "no such weights file; give a .pth or .safetensors path"),
        ("https://host/a.pth", "found the URL https://host/a.pth, expected a file; download it and give its path"),
    ],
)
def test_weights_that_could_not_be_used_are_told(told: Any, weights: Path, file: str, said: str) -> None:
    (fault,), notes = told({"segment.backbone": {**SMALL, "weights": file}})
    assert fault.startswith("segment.backbone.weights: ") and said in fault and not notes


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind this user")
def test_weights_that_may_not_be_read_are_told(told: Any, weights: Path) -> None:
    (weights / "good.pth").chmod(0)
    (fault,), _ = told({"segment.backbone": {**SMALL, "weights": "good.pth"}})
    assert "cannot be read as weights" in fault and "ermission denied" in fault


def test_one_file_of_several_stages_is_told_once_with_their_keys(told: Any) -> None:
    bad = {**SMALL, "weights": "none.pth"}
    (fault,), _ = told({"classify.backbone": bad, "irn.backbone": {**bad, "frozen_taps": 5}})
    assert fault.startswith("classify.backbone.weights, irn.backbone.weights: ")


def test_a_stride_that_a_backbone_lacks_is_told(told: Any) -> None:
    (fault,), _ = told({"segment.backbone": {**SMALL, "stride": 16}})
    assert fault.startswith("segment.backbone: found small with stride 16, expected stride 8")


def test_weights_of_torchvision(told: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    backbone = {"name": "vgg16", "stride": 16, "weights": "torchvision", "frozen_taps": 0}
    faults, notes = told({"segment.backbone": backbone})
    assert not faults and notes[0].startswith("note: segment.backbone.weights: torchvision's weights for vgg16 are not")
    (fault,), _ = told({"segment.backbone": {**backbone, "name": "resnet101", "stride": 8}})
    assert fault.startswith("segment.backbone.weights: torchvision has no weights for resnet101")
    file = torchvision_cache("vgg16")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"cut")
    (fault,), _ = told({"segment.backbone": backbone})
    assert f"segment.backbone.weights: {file}: cannot be read as weights" in fault


def test_torchvisions_files_have_the_names_it_gives_them() -> None:
    import torchvision

    for name, known in ((name, one.torchvision) for name, one in ARCHITECTURES.items() if one.torchvision):
        weights = torchvision.models.get_weight(f"{known[0]}.IMAGENET1K_V1")
        assert weights.url.rpartition("/")[2] == torchvision_cache(name).name


@pytest.mark.parametrize(("name", "stride"), [(name, one.strides[0]) for name, one in ARCHITECTURES.items()])
def test_the_widest_convolution_of_a_backbone_is_known(name: str, stride: int) -> None:
    with torch.device("meta"):
        backbone = Backbone(name, ARCHITECTURES[name].build(stride))
        image = torch.zeros(1, 3, 513, 513)
    seen: list[float] = []

    def see(layer: nn.Module, given: Any, made: Any) -> None:
        seen.append((given[0].numel() + made.numel()) / 513**2)

    for layer in backbone.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(see)
    with torch.no_grad():
        backbone(image)
    assert max(seen) == pytest.approx(ARCHITECTURES[name].widest, rel=0.04)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_devices_that_are_not_there_are_told_together(told: Any) -> None:
    faults, notes = told({"cam_seed": {"crf": "gpu"}, "engine.device": "gpu", "loader": {"device": "gpu"}})
    assert [fault.partition(":")[0].partition(" ")[0] for fault in faults] == ["cam_seed.crf", "engine.device"]
    _, notes = told({"engine.processes": 64, "engine.launcher": "torchrun", "classify.batch": 4})
    assert "note: engine.processes: found 64, this machine has" in notes[0]


def test_libraries_that_are_not_installed_are_told(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amn_dist.runs.machine.find_spec", lambda name: None)
    faults, _ = told({"engine.name": "deepspeed", "cam_seed": {"crf": "pydensecrf"}, "loader.name": "dali"})
    assert [fault.partition(",")[0] for fault in faults] == [
        "engine.name: found deepspeed",
        "loader.name: found dali",
        "cam_seed.crf: found pydensecrf",
    ]


def test_crops_with_little_or_no_pairs_are_noted(told: Any) -> None:
    faults, notes = told({"irn.radius": 10, "segment.crop": 321, "segment.scales": [1.0]})
    assert not faults and len(notes) == 2
    assert notes[0].startswith("note: irn.crop: found 48 pixels, expected 73 at least")
    assert "segment.crop: found 321 pixels, of which photographs of the training set fill 3 % at most" in notes[1]


@pytest.mark.parametrize("radius", [2, 5, 10])
def test_the_least_crop_has_a_pair_and_no_smaller_one(radius: int) -> None:
    side = least_crop(Irn(radius=radius))
    for crop, some in ((side, True), (side - 1, False)):
        assert bool(window(torch.zeros(grid_size(crop, crop)), (0, 0), radius).numel()) == some


def test_a_folder_for_the_run_that_is_none_is_told(told: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (fault,), _ = told(folder=tmp_path / "file")
    assert fault == f"{tmp_path / 'file'}: found a file, expected a folder for the run; choose another --run"
    (fault,), _ = told(folder=Path("/proc/self/run"))
    assert fault.startswith("/proc/self/run: found a place that cannot be written")


def test_a_folder_of_sockets_that_is_too_long_is_told(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "long" * 20)
    (fault,), _ = told({"farm.name": "ray"})
    assert fault.startswith("RAY_TMPDIR: /tmp/long") and "sockets need a folder of at most" in fault


def test_data_that_is_not_there_is_told_beside_the_rest(data: Path, tmp_path: Path) -> None:
    config = Config.model_validate({**TREE, **changed({"segment.backbone": {**SMALL, "weights": "none.pth"}})})
    line = Pipeline(config, Run(tmp_path / "run"), tmp_path / "nowhere", console=Console(quiet=True))
    with pytest.raises(ConfigFaults) as told:
        line.check(line.stages)
    assert [str(fault).partition(":")[0] for fault in told.value.args] == [
        "segment.backbone.weights",
        str(tmp_path / "nowhere" / "train"),
    ]


def test_a_disk_that_cannot_hold_the_run_is_told(
    told: Any, tmp_path: Path, small_disk: Callable[[Path, str], Path]
) -> None:
    disk = small_disk(tmp_path / "disk", "100m")
    large = {"name": "resnet101", "stride": 8, "weights": None, "frozen_taps": 0}
    (fault,), _ = told({"segment.backbone": large}, folder=disk / "run")
    assert fault.startswith(f"{disk / 'run'}: found 100 MiB free, expected 0.") and "(segment 0." in fault
    (tmp_path / "disk" / "beside" / "segment").mkdir(parents=True)  # a neighbour's may be taken over without space
    (tmp_path / "disk" / "beside" / "segment" / "done.json").write_text("{}")
    faults, (note,) = told({"segment.backbone": large}, folder=disk / "run")
    assert not faults and "may become full" in note
    assert told({"segment.backbone": large}, folder=disk / "run", reuse=False)[0]
    small_disk(tmp_path / "larger", "1500m")
    _, (note,) = told({"segment.backbone": large}, folder=tmp_path / "larger" / "run")
    assert "may become full" in note


def test_memory_that_cannot_hold_the_largest_photograph_is_told(told: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "memory_here", lambda: (2**20, 2**20))
    faults, _ = told({"cam.scales": [1.0, 4.0]})
    assert [fault.partition(":")[0] for fault in faults] == ["cam.scales"]
    assert " pixels) at scale 4 takes" in faults[0] and "has 1 MiB" in faults[0]
    monkeypatch.setattr(room, "memory_here", lambda: (2**30, 2**20))
    assert "1 worker(s) have 1 MiB" in told({"cam.scales": [1.0, 4.0]})[1][0]


def test_a_large_set_is_looked_at_in_part(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = ShardSet.open(str(data / "train"))
    whole = look_at(images)
    assert (len(whole.entries), whole.images) == (5, 5) and whole.tags >= 1
    assert whole.pixels == sum(entry.height * entry.width for entry in whole.entries)
    monkeypatch.setattr("amn_dist.runs.estimates.REPORTS", 1)
    part = look_at(images)
    assert (len(part.entries), part.images) == (3, 5) and part.largest in whole.entries
