"""Published checkpoints: one name of three is enough, structure is skipped, the rest is exact."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from amn_dist.errors import ConfigError
from amn_dist.models.official import load_amn, load_cam, load_deeplab, load_irn
from amn_dist.models.published import DISPLACEMENT

Loader = Callable[[dict[str, Tensor], int], nn.Module]

FILES: dict[str, tuple[str, Loader, int]] = {
    "cam": ("amn_cam_net_voc", load_cam, 21),
    "amn": ("amn_amn_net_coco", load_amn, 81),
    "irn": ("irn_affinity_displacement_loss", load_irn, 21),
    "deeplab": ("deeplabv2_resnet101_msc_81", load_deeplab, 81),
}


def checkpoint(golden: Path, name: str) -> dict[str, Tensor]:
    """A published file in names and shapes, each tensor filled with a number of its own."""
    tensors: dict[str, Tensor] = {}
    for number, entry in enumerate(json.loads((golden / "keys" / f"{FILES[name][0]}.json").read_text())["entries"]):
        if entry.get("alias_of"):
            tensors[entry["name"]] = tensors[entry["alias_of"]]
        else:
            shape = [1] if entry.get("kind") == "structural" else entry["shape"]
            tensors[entry["name"]] = torch.tensor(1.0 + number).expand(shape)
    return tensors


def values(network: nn.Module) -> dict[str, float]:
    return {name: float(tensor.flatten()[0]) for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("name", list(FILES))
def test_every_tensor_of_the_network_comes_from_the_file_once(golden: Path, name: str) -> None:
    _, load, classes = FILES[name]
    tensors = checkpoint(golden, name)
    network = load(tensors, classes)
    filled = list(values(network).values())
    assert len(set(filled)) == len(filled) and min(filled) >= 1
    assert not network.training


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("cam", ("resnet50.", "classifier.")),
        ("cam", ("stage", "newly_added.")),
        ("amn", ("backbone.", "newly_added.")),
        ("amn", ("stage", "classifier.", "label_enc.")),
        ("irn", ("resnet50.", "fc_edge")),
        ("irn", ("stage", "edge_layers.")),
        ("irn", ("backbone.", "edge_layers.")),
    ],
)
def test_any_family_of_names_is_enough(golden: Path, name: str, family: tuple[str, ...]) -> None:
    _, load, classes = FILES[name]
    tensors = checkpoint(golden, name)
    part = {key: tensor for key, tensor in tensors.items() if key.startswith(family)}
    assert len(part) < len(tensors) / 2
    assert values(load(part, classes)) == values(load(tensors, classes))


def test_a_displacement_branch_is_ignored_whatever_it_holds(golden: Path) -> None:
    tensors = checkpoint(golden, "irn")
    branch = {name: tensor for name, tensor in tensors.items() if name.startswith(DISPLACEMENT)}
    assert branch.keys() >= {"fc_dp7.3.weight", "dp_layers.5.1.bias", "mean_shift.running_mean"}
    bare = values(load_irn({name: tensor for name, tensor in tensors.items() if name not in branch}, 21))
    damaged = {name: torch.full_like(tensor, torch.nan)[..., None] for name, tensor in branch.items()}
    assert values(load_irn(tensors, 21)) == values(load_irn(tensors | damaged, 21)) == bare
    assert {name.split(".")[0] for name in bare} == {"backbone", "edge"}


@pytest.mark.parametrize("name", list(FILES))
def test_odd_keys_are_named_as_published(golden: Path, name: str) -> None:
    _, load, classes = FILES[name]
    tensors = checkpoint(golden, name)
    victim = {
        "cam": "classifier.weight",
        "amn": "label_enc.bias",
        "irn": "fc_edge3.1.weight",
        "deeplab": "base.aspp.c2.bias",
    }[name]
    twins = {key for key, tensor in tensors.items() if tensor is tensors[victim]}
    missing = {key: tensor for key, tensor in tensors.items() if key not in twins}
    cases = {
        rf"missing: {victim}": missing,
        rf"misshapen: {victim} \[3\] instead of": missing | {victim: torch.zeros(3)},
        "unknown: resnet50.fc.weight": tensors | {"resnet50.fc.weight": torch.zeros(1)},
    }
    for told, broken in cases.items():
        with pytest.raises(ConfigError, match=told):
            load(broken, classes)


def test_another_number_of_classes_is_refused(golden: Path) -> None:
    with pytest.raises(ConfigError, match=r"misshapen: classifier.weight \[20, 2048, 1, 1\] instead of \[80,"):
        load_cam(checkpoint(golden, "cam"), 81)


def test_aliases_that_disagree_are_refused(golden: Path) -> None:
    tensors = checkpoint(golden, "cam")
    tensors["stage1.0.weight"] = tensors["stage1.0.weight"] + 1
    with pytest.raises(ConfigError, match=r"stage1\.0\.weight differs from resnet50.conv1.weight"):
        load_cam(tensors, 21)
