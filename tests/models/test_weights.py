"""Weights files: what is taken, what is refused and how the refusal reads; our own files there and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file

from amn_dist import config
from amn_dist.errors import ConfigError
from amn_dist.models.amn import AmnNet
from amn_dist.models.backbones.backbone import Backbone, build_backbone
from amn_dist.models.cam import CamNet
from amn_dist.models.inference import load_for_inference
from amn_dist.models.irn import EdgeNet
from amn_dist.models.weights import (
    load_backbone_weights,
    load_network,
    read_tensors,
    save_network,
)


def backbone(name: str = "small", stride: int = 8, seed: int = 0) -> Backbone:
    torch.manual_seed(seed)
    return build_backbone(config.BackboneSection(name=name, stride=stride, weights=None, frozen_taps=0))


def same(network: torch.nn.Module, other: torch.nn.Module) -> bool:
    other = other.state_dict()
    return all(torch.equal(tensor, other[name]) for name, tensor in network.state_dict().items())


def test_without_weights_a_backbone_keeps_its_own() -> None:
    network = backbone()
    load_backbone_weights(network, None)
    assert same(network, backbone())


def test_half_precision_safetensors_are_widened(tmp_path: Path) -> None:
    halves = {name: tensor.half() for name, tensor in backbone("vgg16", 16, seed=1).state_dict().items()}
    save_file(halves, tmp_path / "half.safetensors")
    check_widened(tmp_path / "half.safetensors")


def test_features_of_imagenet_are_widened(shared_data: Path) -> None:
    check_widened(shared_data / "weights" / "vgg16_imagenet_features.fp16.safetensors")


def check_widened(file: Path) -> None:
    network = backbone("vgg16", 16)
    load_backbone_weights(network, str(file))
    theirs = load_file(file)
    own = network.state_dict()
    assert own.keys() == theirs.keys()
    assert all(own[n].dtype == torch.float32 and torch.equal(own[n], t.float()) for n, t in theirs.items())


def test_a_full_torchvision_model_fills_a_backbone(tmp_path: Path) -> None:
    theirs = torchvision.models.resnet50(weights=None).state_dict()
    torch.save(theirs, tmp_path / "resnet50.pth")
    network = backbone("resnet50", 16)
    load_backbone_weights(network, str(tmp_path / "resnet50.pth"))
    assert all(torch.equal(t, theirs[n.removeprefix("features.")]) for n, t in network.state_dict().items())


def test_bare_features_fill_a_backbone(tmp_path: Path) -> None:
    source = backbone("vgg16", 16, seed=1)
    bare = {name.removeprefix("features."): tensor for name, tensor in source.state_dict().items()}
    save_file(bare, tmp_path / "bare.safetensors")
    network = backbone("vgg16", 8)
    load_backbone_weights(network, str(tmp_path / "bare.safetensors"))
    assert same(network, source)


def test_torchvision_weights_come_from_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    theirs = torchvision.models.resnet50(weights=None).state_dict()
    cached = tmp_path / "hub" / "checkpoints" / "resnet50-0676ba61.pth"
    cached.parent.mkdir(parents=True)
    torch.save(theirs, cached)
    network = backbone("resnet50", 16)
    load_backbone_weights(network, "torchvision")
    assert torch.equal(network.features["conv1"].weight, theirs["conv1.weight"])

    cached.write_bytes(cached.read_bytes()[:1000])
    with pytest.raises(ConfigError, match=r"resnet50 could not be had .* give the path"):
        load_backbone_weights(network, "torchvision")


@pytest.mark.parametrize("name", ["resnet101", "small"])
def test_architectures_torchvision_lacks_ask_for_a_path(name: str) -> None:
    with pytest.raises(ConfigError, match=f"torchvision has no weights for {name}; give a .pth or .safetensors path"):
        load_backbone_weights(backbone(name), "torchvision")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda t: t | {"features.0.weight": torch.zeros(64, 1, 3, 3)},
            r"misshapen: 0.weight \[64, 1, 3, 3\] instead of",
        ),
        (lambda t: {n: v for n, v in t.items() if n != "features.28.bias"}, "missing: 28.bias"),
        (lambda t: t | {"features.30.weight": torch.zeros(1)}, "unknown: 30.weight"),
        (
            lambda t: t | {"features.28.bias": torch.zeros(512, dtype=torch.int64)},
            r"of another kind: 28.bias torch.int64 instead of torch.float32",
        ),
        (lambda t: t | {"features.28.bias": torch.zeros(512, dtype=torch.bool)}, "of another kind: 28.bias torch.bool"),
        (
            lambda t: t | {"features.28.bias": torch.zeros(512, dtype=torch.complex64)},
            "of another kind: 28.bias torch.complex64",
        ),
        (lambda t: t | {"features.28.bias": torch.full((512,), torch.nan)}, "not finite: 28.bias"),
        (lambda t: t | {"features.28.bias": torch.full((512,), 1e300, dtype=torch.float64)}, "not finite: 28.bias"),
    ],
)
def test_weights_that_do_not_fit_are_named(tmp_path: Path, change, told: str) -> None:
    network = backbone("vgg16", 16)
    file = tmp_path / "vgg.pth"
    torch.save(change(network.state_dict()), file)
    with pytest.raises(ConfigError, match=rf"vgg.pth \(for vgg16\): the weights do not fit; {told}") as caught:
        load_backbone_weights(network, str(file))
    assert "\n" not in str(caught.value)


def test_weights_of_another_architecture_give_one_short_line(tmp_path: Path) -> None:
    save_file(backbone("vgg16", 16).state_dict(), tmp_path / "vgg.safetensors")
    with pytest.raises(ConfigError, match=r"missing: .* and \d+ more; unknown: .* and \d+ more") as caught:
        load_backbone_weights(backbone("resnet50", 16), str(tmp_path / "vgg.safetensors"))
    assert len(str(caught.value)) < 600


def test_a_pickle_with_code_is_refused_and_not_run(bad: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"weights.pth: cannot be read as weights") as caught:
        load_backbone_weights(backbone("vgg16", 16), str(bad / "pickle" / "weights.pth"))
    assert not list(tmp_path.iterdir())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", [".pth", ".pt", ".safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"\x80", b"\x80\x02}q\x00.", b"PK\x03\x04" + bytes(40), bytes(range(256)) * 9]
)
def test_files_that_hold_no_weights_are_refused(tmp_path: Path, ending: str, content: bytes) -> None:
    file = tmp_path / f"broken{ending}"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"broken\{ending}"):
        load_backbone_weights(backbone(), str(file))


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, ending: str) -> None:
    with pytest.raises(ConfigError, match=rf"absent\{ending}: cannot be read"):
        read_tensors(tmp_path / f"absent{ending}")


def test_an_unknown_ending_and_a_nested_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"found the ending '.npy', expected weights as"):
        read_tensors(tmp_path / "cam.npy")
    torch.save({"epoch": 3, "state": {}}, tmp_path / "training.pth")
    with pytest.raises(ConfigError, match="something else than tensors by name"):
        read_tensors(tmp_path / "training.pth")


def tensors_of(file: Path, tree: object) -> dict[str, torch.Tensor]:
    torch.save(tree, file)
    return read_tensors(file)


@pytest.mark.parametrize("ending", [".pth", ".ckpt", ".pth.tar", ".bin"])
def test_weights_are_found_in_what_training_programs_save(tmp_path: Path, ending: str) -> None:
    ours = {"fc.weight": torch.ones(2, 3), "fc.bias": torch.arange(2)}
    file = tmp_path / f"x{ending}"
    inside = {f"module.{name}": tensor for name, tensor in ours.items()}
    for tree in (
        ours,
        inside,
        {"state_dict": ours, "epoch": 3, "optimizer": {"state": {}}},
        {"model": inside, "best": np.float64(0.5), "step": np.int32(3), "args": "x"},
        {"state_dict": {f"model.{name}": tensor for name, tensor in inside.items()}, "pytorch-lightning_version": "2"},
        {"state_dict": ours, "optimizer": torch.ones(1)},
    ):
        found = tensors_of(file, tree)
        assert found.keys() == ours.keys() and all(torch.equal(found[name], ours[name]) for name in ours)


def test_what_could_mean_two_networks_is_refused(tmp_path: Path) -> None:
    ours = {"fc.weight": torch.ones(2, 3)}
    for tree in ({"state_dict": ours, "ema": ours, "epoch": 1}, {"generator": ours}, [ours["fc.weight"]], 3):
        with pytest.raises(ConfigError, match=r"something else than tensors by name \(.*\); save the network's"):
            tensors_of(tmp_path / "x.pth", tree)


def test_a_whole_module_is_not_run_and_the_way_out_is_told(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pth")
    told = r"it names torch\.nn\.modules\.linear\.Linear; nothing of it was run; load it where it was made"
    with pytest.raises(ConfigError, match=told):
        read_tensors(tmp_path / "x.pth")


def test_networks_survive_the_way_to_disk_and_back(tmp_path: Path) -> None:
    for build in (
        lambda seed: CamNet(backbone(seed=seed), 4),
        lambda seed: AmnNet(backbone(seed=seed), 4),
        lambda seed: EdgeNet(backbone(seed=seed)),
    ):
        network = build(0).to(memory_format=torch.channels_last)
        save_network(network, tmp_path / "model.safetensors")
        other = build(1)
        assert not same(other, network)
        assert load_network(other, tmp_path / "model.safetensors") is other
        assert same(other, network)
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_a_checkpoint_of_other_classes_is_refused(tmp_path: Path) -> None:
    save_network(CamNet(backbone(), 4), tmp_path / "model.safetensors")
    with pytest.raises(
        ConfigError, match=r"model.safetensors: .* misshapen: classifier.weight \[3, 160, 1, 1\] instead"
    ):
        load_network(CamNet(backbone(), 5), tmp_path / "model.safetensors")


def test_a_failed_save_leaves_the_old_file_and_no_scraps(tmp_path: Path) -> None:
    network = CamNet(backbone(), 4)
    save_network(network, tmp_path / "model.safetensors")
    before = (tmp_path / "model.safetensors").read_bytes()
    network.twin = network.classifier  # two names for one tensor: safetensors refuses
    with pytest.raises(RuntimeError):
        save_network(network, tmp_path / "model.safetensors")
    assert (tmp_path / "model.safetensors").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_saving_again_swaps_the_file_under_its_readers(tmp_path: Path) -> None:
    save_network(CamNet(backbone(), 4), tmp_path / "model.safetensors")
    before = (tmp_path / "model.safetensors").read_bytes()
    with open(tmp_path / "model.safetensors", "rb") as reader:
        save_network(CamNet(backbone(seed=1), 4), tmp_path / "model.safetensors")
        assert reader.read() == before
    assert (tmp_path / "model.safetensors").read_bytes() != before


def test_inference_networks_are_frozen_and_in_evaluation(tmp_path: Path) -> None:
    source = CamNet(backbone(), 4)
    save_network(source, tmp_path / "model.safetensors")
    network = load_for_inference(CamNet(backbone(seed=1), 4).train(), tmp_path / "model.safetensors")
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    x = torch.randn(1, 3, 32, 32)
    device = next(network.parameters()).device
    with torch.inference_mode():
        assert torch.allclose(network(x.to(device)).cpu(), source(x), atol=1e-4)
