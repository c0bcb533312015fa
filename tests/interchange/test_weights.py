"""Checkpoints in and out: every published name, and stages that say where their weights come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from amn_dist.commands.plan import progress
from amn_dist.config import Config
from amn_dist.errors import ConfigError, StageError
from amn_dist.interchange.weights import adopt_weights, convert_weights, export_weights, untrained_network
from amn_dist.models.official import load_published, published_state
from amn_dist.models.published import Kind
from amn_dist.models.weights import save_network
from amn_dist.runs.neighbours import reuse
from amn_dist.runs.pipeline import Pipeline, reopen
from amn_dist.runs.run import Run, read_json
from data_shards.synthetic import pack_synthetic
from tests.tiny import SMALL

LISTS: dict[Kind, str] = {
    "cam": "amn_cam_net_voc",
    "amn": "amn_amn_net_voc",
    "irn": "irn_affinity_displacement_loss",
    "deeplab": "deeplabv2_resnet101_msc_21",
    "icd": "icd_vgg16_mxnet",
}


def entries(golden: Path, kind: Kind) -> list[dict[str, object]]:
    return json.loads((golden / "keys" / f"{LISTS[kind]}.json").read_text())["entries"]


def checkpoint(golden: Path, kind: Kind) -> dict[str, Tensor]:
    """A published file in names and shapes, a number of its own in every tensor; aliases share one."""
    tensors: dict[str, Tensor] = {}
    for number, entry in enumerate(entries(golden, kind)):
        name, alias, form = str(entry["name"]), entry.get("alias_of"), entry.get("kind")
        if alias:
            tensors[name] = tensors[str(alias)]
        elif form == "zero":
            dtype = getattr(torch, str(entry.get("dtype", "float32")))
            tensors[name] = torch.zeros(entry["shape"], dtype=dtype)  # type: ignore[call-overload]
        elif form != "structural":
            value = 1.0 if name == "feat_bn_gamma" else 1.0 + number
            tensors[name] = torch.tensor(value).expand(entry["shape"])  # type: ignore[arg-type]
    return tensors


@pytest.mark.parametrize("kind", ["cam", "amn", "irn", "deeplab", "icd"])
def test_our_weights_bear_every_published_name_again(golden: Path, kind: Kind) -> None:
    published = checkpoint(golden, kind)
    network, classes = load_published(kind, published)
    assert classes == (0 if kind == "irn" else 21)
    back = published_state(kind, network.state_dict(), aliases=True)
    left_out = {name for name in published if name.startswith(("fc_dp", "dp_layers.", "mean_shift."))}
    assert back.keys() == published.keys() - left_out
    for name, tensor in back.items():
        assert tensor.shape == published[name].shape and tensor.dtype == published[name].dtype, name
        assert not tensor.numel() or float(tensor.flatten()[0]) == float(published[name].flatten()[0]), name
    short = published_state(kind, network.state_dict(), aliases=False)
    assert short.keys() <= back.keys() and load_published(kind, short)[1] == classes


def test_a_published_file_is_converted_whole_or_refused(golden: Path, tmp_path: Path) -> None:
    tensors = checkpoint(golden, "cam")
    torch.save({f"module.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "cam.pth")
    made = convert_weights(tmp_path / "cam.pth", "cam", tmp_path / "out" / "cam.safetensors")
    assert (made.classes, made.keys) == (21, len(tensors))
    ours = load_file(made.path)
    assert len(ours) == made.tensors and float(ours["classifier.weight"].flatten()[0]) >= 1
    del tensors["classifier.weight"], tensors["newly_added.0.weight"]
    torch.save(tensors, tmp_path / "short.pth")
    with pytest.raises(ConfigError, match=r"short\.pth: .*found no classifier\.weight"):
        convert_weights(tmp_path / "short.pth", "cam", tmp_path / "short.safetensors")
    with pytest.raises(ConfigError, match=r"short\.pth: IRN checkpoint: .* is it of this network"):
        convert_weights(tmp_path / "short.pth", "irn", tmp_path / "short.safetensors")
    assert {path.name for path in tmp_path.iterdir()} == {"cam.pth", "short.pth", "out"}


def test_a_checkpoint_that_runs_code_is_refused(bad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"weights\.pth: .* names io\.open; nothing of it was run"):
        convert_weights(bad / "pickle" / "weights.pth", "cam", tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    pack_synthetic(root / "train", images=4, seed=0, classes=2, shard_size=2)
    return root


def line_of(data: Path, folder: Path, **classify: object) -> Pipeline:
    tree = {"name": "x", "method": "irn", "data": {"val": None}, "classify": {"backbone": SMALL, **classify}}
    return Pipeline(Config.model_validate(tree), Run(folder), data)


def weights_for(line: Pipeline, file: Path) -> Path:
    save_network(untrained_network(line, line.stage("classify")), file)
    return file


def test_an_imported_stage_is_done_and_says_where_it_comes_from(data: Path, tmp_path: Path) -> None:
    line = line_of(data, tmp_path / "runs" / "a")
    file = weights_for(line, tmp_path / "theirs.safetensors")
    adopt_weights(line, "classify", file)
    again = reopen(tmp_path / "runs" / "a")
    stage = again.stage("classify")
    assert again.state(stage) == "done" and progress(again, stage) == "imported"
    assert read_json(again.run.stage("classify") / "done.json")["imported"] == "theirs.safetensors"
    assert again.run.origin("classify") == again.origin(stage).as_json()
    assert again.run.checkpoint("classify").read_bytes() == file.read_bytes()
    again.execute(only="classify")
    with pytest.raises(StageError, match="its own classify already"):
        adopt_weights(again, "classify", file)


def test_an_imported_stage_never_passes_for_a_trained_one(data: Path, tmp_path: Path) -> None:
    line = line_of(data, tmp_path / "runs" / "a")
    adopt_weights(line, "classify", weights_for(line, tmp_path / "theirs.safetensors"))
    other = line_of(data, tmp_path / "runs" / "b")
    other.run.folder.mkdir()
    stage = other.stage("classify")
    assert reuse(other.run, stage, other.origin(stage)) is None


def test_an_import_that_was_killed_counts_for_nothing(data: Path, tmp_path: Path) -> None:
    line = line_of(data, tmp_path / "a")
    file = weights_for(line, tmp_path / "theirs.safetensors")
    adopt_weights(line, "classify", file)
    (line.run.stage("classify") / "done.json").unlink()
    assert "imported" not in line.origin(line.stage("classify")).settings
    adopt_weights(line, "classify", file)
    assert line.run.is_done(line.stage("classify"))


def test_a_network_configured_anew_is_told_from_the_imported_one(data: Path, tmp_path: Path) -> None:
    line = line_of(data, tmp_path / "a")
    adopt_weights(line, "classify", weights_for(line, tmp_path / "theirs.safetensors"))
    line_of(data, tmp_path / "a", epochs=9).execute(only="classify")  # how it would be trained does not matter
    vgg = {**SMALL, "name": "vgg16"}
    with pytest.raises(ConfigError, match=r"classify\.backbone\.name small, now vgg16"):
        line_of(data, tmp_path / "a", backbone=vgg).execute(only="classify")


def test_weights_of_another_network_are_refused_and_nothing_is_left(data: Path, tmp_path: Path) -> None:
    line = line_of(data, tmp_path / "a")
    file = weights_for(line, tmp_path / "theirs.safetensors")
    tensors = load_file(file)
    tensors["classifier.weight"] = tensors["classifier.weight"][:1].clone()
    save_file(tensors, tmp_path / "one.safetensors")
    with pytest.raises(ConfigError, match=r"one\.safetensors \(for classify\).*misshapen: classifier\.weight"):
        adopt_weights(line, "classify", tmp_path / "one.safetensors")
    with pytest.raises(ConfigError, match=r"cam: is a map; weights belong to classify, irn, segment"):
        adopt_weights(line, "cam", file)
    assert not line.run.folder.exists()


def test_weights_leave_a_run_under_our_names_where_no_published_network_is_theirs(data: Path, tmp_path: Path) -> None:
    line = line_of(data, tmp_path / "a")
    file = weights_for(line, tmp_path / "theirs.safetensors")
    with pytest.raises(StageError, match="not finished"):
        export_weights(line, "classify", tmp_path / "out.pth")
    adopt_weights(line, "classify", file)
    assert export_weights(line, "classify", tmp_path / "out.pth") is False
    out, ours = torch.load(tmp_path / "out.pth", weights_only=True), load_file(file)
    assert out.keys() == ours.keys() and all(torch.equal(out[name], ours[name]) for name in ours)
    with pytest.raises(ConfigError, match=r"found the ending '\.npz'"):
        export_weights(line, "classify", tmp_path / "out.npz")


@pytest.mark.parametrize(("colour", "told"), [("imagenet", "set discriminate.colour=centred"), ("centred", "")])
def test_weights_under_published_names_are_fed_as_published_or_told(
    data: Path, tmp_path: Path, colour: str, told: str
) -> None:
    random = {"backbone": {"weights": None}, "colour": colour}
    tree = {"name": "x", "method": "icd", "data": {"val": None}, "discriminate": random}
    line = Pipeline(Config.model_validate(tree), Run(tmp_path / "a"), data)
    ours = untrained_network(line, line.stage("discriminate")).state_dict()
    save_file(published_state("icd", ours, aliases=False), tmp_path / "icd.safetensors")
    note = adopt_weights(line, "discriminate", tmp_path / "icd.safetensors").note
    assert told in note and bool(note) == bool(told)
