"""Networks and losses against the golden data: weights of make_weights.py, numbers of the published code.

Multi-scale assembling lies in stages/ and is compared there; here every scale is compared by itself.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from amn_dist import config
from amn_dist.models.amn import pixel_loss, pixel_loss_parts
from amn_dist.models.backbones.backbone import build_backbone
from amn_dist.models.irn import affinity_loss_parts, affinity_losses, pair_counts
from amn_dist.models.official import load_amn, load_cam, load_deeplab, load_irn
from amn_dist.models.weights import load_backbone_weights
from amn_dist.ops.resize import sample_labels
from tests.golden.make_weights import as_torch, make_weights

SCALES = (1.0, 0.5, 1.5, 2.0)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CAFFE_MEAN = (104.008, 116.669, 122.675)
GROUPS_1X, GROUPS_NONE = 104, 208


def fixture(golden: Path, name: str) -> tuple[dict[str, np.ndarray], dict]:
    with np.load(golden / f"{name}.npz") as arrays:
        fields = dict(arrays)
    return fields, json.loads(str(fields.pop("meta")))


@lru_cache(maxsize=1)
def published(golden: Path, keys: str) -> dict[str, Tensor]:
    return as_torch(make_weights(golden / keys))


def imagenet(image: np.ndarray) -> Tensor:
    x = (image.astype(np.float64) / 255 - MEAN) / DEVIATION
    return torch.from_numpy(x.astype(np.float32)).permute(2, 0, 1)


def both_flips(image: np.ndarray, scale: float = 1.0) -> Tensor:
    height, width = (int(np.round(side * scale)) for side in image.shape[:2])
    resized = image if scale == 1 else np.asarray(Image.fromarray(image).resize((width, height), Image.BICUBIC))
    x = imagenet(resized)
    return torch.stack([x, x.flip(-1)])


def unflip(maps: Tensor) -> Tensor:
    return maps[0] + maps[1].flip(-1)


def close(values: Tensor | np.ndarray, expected: np.ndarray, *, relative: float = 0.0, absolute: float = 0.0) -> None:
    values = np.asarray(values.detach() if isinstance(values, Tensor) else values, np.float64)
    assert values.shape == expected.shape
    assert np.abs(values - expected).max() <= absolute + relative * np.abs(expected).max()


@pytest.mark.parametrize(("name", "num_classes"), [("voc_0", 21), ("voc_1", 21), ("coco_0", 81)])
def test_cam_maps(golden: Path, name: str, num_classes: int) -> None:
    arrays, meta = fixture(golden, f"cam_forward_{name}")
    model = load_cam(published(golden, meta["keys"]), num_classes)
    with torch.inference_mode():
        for scale in SCALES:
            maps = unflip(model.maps(both_flips(arrays["in_image"], scale)))
            close(maps, arrays[f"out_scale_{scale}"], relative=1e-5)


@pytest.mark.parametrize(("name", "num_classes"), [("voc_0", 21), ("voc_1", 21), ("coco_0", 81)])
def test_amn_logits(golden: Path, name: str, num_classes: int) -> None:
    arrays, meta = fixture(golden, f"amn_forward_{name}")
    model = load_amn(published(golden, meta["keys"]), num_classes)
    tags = torch.from_numpy(arrays["in_label"]).expand(2, -1)
    with torch.inference_mode():
        for scale in SCALES:
            logits = model(both_flips(arrays["in_image"], scale), tags, dropout=False)
            close(unflip(logits) / 2, arrays[f"out_scale_{scale}"], relative=1e-5)


@pytest.mark.parametrize("name", ["voc_0", "coco_0"])
def test_irn_edge(golden: Path, name: str) -> None:
    arrays, meta = fixture(golden, f"irn_forward_{name}")
    model = load_irn(published(golden, meta["keys"]), 21)
    height, width = arrays["in_image"].shape[:2]
    x, side = both_flips(arrays["in_image"]), meta["crop_size"]
    if side is not None:
        x = functional.pad(x, (0, side - width, 0, side - height))
    with torch.inference_mode():
        edge = model(x)
    rows, columns = arrays["out_edge"].shape[1:]
    edge = edge[..., :rows, :columns]
    close(torch.sigmoid(unflip(edge) / 2), arrays["out_edge"], absolute=1e-5)


def test_irn_training_step(golden: Path) -> None:
    arrays, meta = fixture(golden, "irn_train_voc_0")
    model = load_irn(published(golden, meta["keys"]), meta["n_classes"]).train()
    images = torch.stack([imagenet(image) for image in arrays["in_images"]])
    labels = sample_labels(torch.from_numpy(arrays["in_label_map"]), (24, 24))
    edge = model(images)
    close(edge, arrays["out_edge_logit"], absolute=5e-5)

    positive, negative = affinity_losses(edge, labels, meta["radius"], meta["n_classes"])
    close(torch.stack([positive, negative]), arrays["out_losses"][:2], absolute=1e-5)

    # The published total adds losses of the displacement branch, which shares no trained parameter with the edge.
    ((positive + negative) / 2).backward()
    for name, parameter in IRN_PARAMETERS.items():
        gradient = model.get_parameter(parameter).grad
        assert gradient is not None
        close(gradient, arrays[f"out_grad:{name}"], relative=1e-4)
    assert set(IRN_PARAMETERS) == {name for name in arrays["in_grad_names"] if name.startswith("fc_edge")}
    touched = sum(parameter.grad is not None for parameter in model.backbone.parameters())
    assert touched == int(arrays["out_backbone_params_with_grad"]) == 0


IRN_PARAMETERS = {
    "fc_edge1.0.weight": "edge.units.0.conv.weight",
    "fc_edge1.1.weight": "edge.units.0.norm.weight",
    "fc_edge3.0.weight": "edge.units.2.conv.weight",
    "fc_edge5.1.bias": "edge.units.4.norm.bias",
    "fc_edge6.weight": "edge.fuse.weight",
    "fc_edge6.bias": "edge.fuse.bias",
}


@pytest.mark.parametrize("name", ["voc_0", "voc_1"])
def test_irn_losses_and_gradients(golden: Path, name: str) -> None:
    arrays, meta = fixture(golden, f"irn_loss_{name}")
    radius, classes = meta["radius"], meta["n_classes"]
    edge = torch.from_numpy(arrays["in_edge_logit"]).requires_grad_()
    labels = sample_labels(torch.from_numpy(arrays["in_label_map"]), tuple(edge.shape[-2:]))
    assert np.array_equal(labels, arrays["out_reduced_label"])

    counts = pair_counts(labels, radius, classes)
    assert [int(count) for count in counts] == [
        int(arrays[f"out_{kind}"].sum()) for kind in ("bg_pos", "fg_pos", "neg")
    ]
    positive, negative = affinity_losses(edge, labels, radius, classes)
    sums = affinity_loss_parts(edge, labels, radius, classes)
    background, foreground, _ = (part / (count + 1e-5) for part, count in zip(sums, counts, strict=True))
    losses = torch.stack([background, foreground, positive, negative])
    close(losses, arrays["out_losses"][:4], absolute=1e-5)

    ((positive + negative) / 2).backward()
    assert edge.grad is not None
    close(edge.grad, arrays["out_grad_edge_logit"], relative=1e-5)


@pytest.mark.parametrize("name", ["pcl_loss_0", "pcl_loss_1"])
def test_pixel_loss_and_gradient(golden: Path, name: str) -> None:
    arrays, meta = fixture(golden, name)
    logits = torch.from_numpy(arrays["in_logits"]).requires_grad_()
    labels = torch.from_numpy(arrays["in_label"])
    small = sample_labels(labels, tuple(logits.shape[-2:]))
    assert np.array_equal(small, arrays["out_label_small"])

    loss = pixel_loss(logits, small, meta["eps"])
    assert torch.equal(pixel_loss(logits, labels, meta["eps"]), loss)
    close(loss, arrays["out_loss"], absolute=1e-5)
    background, foreground = pixel_loss_parts(logits, small, meta["eps"])
    pooled = (background / meta["counts"]["bg"] + foreground / meta["counts"]["fg"]) / 2
    close(pooled, arrays["ref64_loss"], absolute=1e-5)
    loss.backward()
    assert logits.grad is not None
    close(logits.grad, arrays["out_grad"], relative=1e-5)


def caffe(images: np.ndarray) -> Tensor:
    x = images[..., ::-1].astype(np.float64) - CAFFE_MEAN
    return torch.from_numpy(x.astype(np.float32)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("name", ["deeplab_forward_0", "deeplab_forward_1"])
def test_deeplab_logits_losses_and_gradients(golden: Path, name: str) -> None:
    arrays, meta = fixture(golden, name)
    model = load_deeplab(published(golden, meta["keys"]), meta["n_classes"])
    x = caffe(arrays["in_image_rgb"])
    with torch.inference_mode():
        close(model(x), arrays["out_eval"], absolute=1e-4)

    gain = "backbone.features.layer5.block3.increase.bn.weight"
    model.get_parameter(gain).requires_grad_()
    outputs = model.train()(x)
    for output, branch in zip(outputs, ("1x", "0.5x", "0.75x", "max"), strict=True):
        close(output, arrays[f"out_train_{branch}"], absolute=1e-4)
    if "in_label" not in arrays:
        return

    labels = torch.from_numpy(arrays["in_label"])
    losses = [
        functional.cross_entropy(output, sample_labels(labels, tuple(output.shape[-2:])).long(), ignore_index=255)
        for output in outputs
    ]
    close(torch.stack(losses), arrays["out_ce_per_logit"], relative=1e-5)
    sum(losses).backward()
    for theirs, tolerance in zip(meta["grads"], (1e-5, 1e-5, 5e-3), strict=True):
        gradient = model.get_parameter(deeplab_name(theirs)).grad
        close(gradient, arrays[f"out_grad:{theirs}"], relative=tolerance)
    norms = [model.get_parameter(deeplab_name(theirs)).grad.norm() for theirs in meta["grad_norm_names"]]
    assert np.allclose(norms, arrays["out_grad_norms"], rtol=1e-3, atol=0)


def deeplab_name(theirs: str) -> str:
    if theirs.startswith("base.aspp.c"):
        return theirs.replace("base.aspp.c", "aspp.convs.")
    return theirs.replace("base.", "backbone.features.")


def test_deeplab_trains_what_the_published_optimiser_holds(golden: Path) -> None:
    groups = json.loads((golden / "keys" / "deeplab_param_groups.json").read_text())
    model = load_deeplab(published(golden, "keys/deeplabv2_resnet101_msc_21.json"), 21)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {deeplab_name(name) for group in ("1x", "10x", "20x") for name in groups[group]}
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen == {deeplab_name(name) for name in groups["in_no_group"]}
    assert (len(groups["1x"]), len(frozen)) == (GROUPS_1X, GROUPS_NONE)


def test_deeplab_initial_weights_by_their_published_names(golden: Path, tmp_path: Path) -> None:
    weights = published(golden, "keys/deeplab_init_model_expected.json")
    file = tmp_path / "deeplabv1_resnet101-imagenet.pth"
    torch.save(weights | {"fc.weight": torch.zeros(1)}, file)
    backbone = build_backbone(config.BackboneSection(name="resnet101", stride=8, frozen_taps=0))
    load_backbone_weights(backbone, str(file))
    own = {name.removeprefix("features."): tensor for name, tensor in backbone.state_dict().items()}
    assert own.keys() == {name for name in weights if not name.endswith("num_batches_tracked")}
    assert all(torch.equal(tensor, weights[name]) for name, tensor in own.items())
