"""ICD against numbers of the published implementation, executed; tolerances are those of the fixtures."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from amn_dist.config import Discriminate
from amn_dist.loaders.crops import Crop, cut_image, cut_regions
from amn_dist.models.icd import Directions, IcdNet, top_down_weight
from amn_dist.models.icd_losses import bottom_up_part, classification_part, top_down_part
from amn_dist.models.official import load_icd
from amn_dist.models.running_statistics import FeatureNorm, SignStatistics
from amn_dist.ops.metrics.counts import confusion, mean_iou, scores
from amn_dist.ops.region_means import refine_scores
from amn_dist.ops.signed import label_unary, refine_labels, signed_labels
from amn_dist.ops.superpixel import compact
from amn_dist.training.optimiser import rate_factor
from data_shards.classes import VOC
from data_shards.voc_xml import read_labels
from tests.golden.make_weights import as_torch, make_weights

OURS = {
    "conv1_1": "backbone.features.0",
    "conv3_2": "backbone.features.12",
    "conv5_3": "backbone.features.28",
    "fc6": "cam.fc6",
    "fc7": "cam.fc7",
    "fc8": "cam.classifier",
    "fc6_ft": "top_down.fc6",
    "fc7_ft": "top_down.fc7",
    "conv_ft": "top_down.classifier",
}
SINGLE = {
    "feat_bn_beta": "norm.bias",
    "icd_bu_weight": "directions.weight",
    "feat_bn_moving_mean": "norm.running_mean",
    "feat_bn_moving_var": "norm.running_var",
    "icd_accum_resign_moving_mean": "sign.running",
}
"""Published names to ours, written out a second time."""


def load(golden: Path, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with np.load(golden / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files if key != "meta"}
        return arrays, json.loads(str(file["meta"]))


def tensors(arrays: dict[str, np.ndarray], *names: str) -> list[Tensor]:
    return [torch.from_numpy(arrays[name]) for name in names]


def close(values: Tensor | np.ndarray, expected: np.ndarray, *, relative: float = 0.0, absolute: float = 0.0) -> None:
    values = np.asarray(values.detach() if isinstance(values, Tensor) else values, np.float64)
    assert values.shape == expected.shape
    assert np.abs(values - expected).max() <= absolute + relative * np.abs(expected).max()


@cache
def published(golden: Path) -> dict[str, Tensor]:
    return as_torch(make_weights(golden / "keys" / "icd_vgg16_mxnet.json"))


@pytest.mark.parametrize("number", [0, 1])
def test_bottom_up_score_and_gradient(golden: Path, number: int) -> None:
    arrays, _ = load(golden, f"icd_bottomup_{number}")
    x, tags, weight = tensors(arrays, "in_x", "in_label", "in_weight")
    directions = Directions(weight.shape[1], len(weight))
    directions.weight = nn.Parameter(weight)
    score = directions(x.requires_grad_())
    close(score, arrays["out_score"], relative=1e-5)
    loss = bottom_up_part(score, tags)
    loss.backward()
    close(directions.weight.grad, arrays["out_grad_weight"], relative=1e-4)
    close(loss, arrays["ref64_own_loss"], relative=1e-5)
    assert x.grad is None and arrays["out_grad_x_absmax"] == 0


def test_sign_statistics(golden: Path) -> None:
    arrays, _ = load(golden, "icd_sign_ema_0")
    statistics = SignStatistics(len(arrays["in_state0"]))
    statistics.running.copy_(torch.from_numpy(arrays["in_state0"]))
    for step, training in enumerate(arrays["in_is_train"]):
        score, cam, tags = (part[step] for part in tensors(arrays, "in_score", "in_cam", "in_label"))
        statistics.train(bool(training))
        close(score * statistics(score, cam, tags)[:, None, None], arrays["out_score"][step], absolute=1e-6)
        statistics.end_step()
        close(statistics.running, arrays["out_state"][step], absolute=1e-6)


@pytest.mark.parametrize("number", [0, 1])
def test_superpixel_refinement(golden: Path, number: int) -> None:
    arrays, _ = load(golden, f"icd_sprefine_{number}")
    close(
        refine_scores(*tensors(arrays, "in_score", "in_label", "in_superpixel")), arrays["out_refined"], absolute=2e-5
    )


def test_top_down_gradient_with_warm_up(golden: Path) -> None:
    arrays, meta = load(golden, "icd_topdown_0")
    logits, target, tags = tensors(arrays, "in_logit", "in_target_score", "in_label")
    close(torch.sigmoid(logits), arrays["out_sigmoid"], absolute=1e-6)
    for step, expected in enumerate(arrays["out_grad"]):
        leaf = logits.clone().requires_grad_()
        weight = top_down_weight(torch.tensor(step), meta["warmup"]).float()
        loss = weight * top_down_part(leaf, target, tags)
        loss.backward()
        assert leaf.grad is not None
        close(leaf.grad, expected, relative=1e-6)
        close(loss, arrays["ref64_own_loss"][step], relative=1e-5)


def test_warm_up_and_rates(golden: Path) -> None:
    arrays, meta = load(golden, "icd_warmup_0")
    weights = [top_down_weight(torch.tensor(step), meta["warmup"]) for step in range(len(arrays["out_scale"]))]
    close(torch.stack(weights), arrays["out_scale"], relative=1e-12)
    section = Discriminate()
    rates = [section.lr * rate_factor(section, epoch * 330 + 329, 6600) for epoch in range(20)]
    close(np.array(rates), arrays["out_lr_per_epoch"], absolute=1e-15)
    assert section.warmup == meta["warmup"]


def test_classification_gradient(golden: Path) -> None:
    arrays, _ = load(golden, "icd_clsloss_0")
    logits, tags = tensors(arrays, "in_logit", "in_label")
    maps = logits[:, :, None, None].requires_grad_()
    loss = classification_part(maps, tags)
    loss.backward()
    assert maps.grad is not None
    close(maps.grad[:, :, 0, 0], arrays["out_grad"], absolute=1e-5)
    close(loss, arrays["ref64_own_loss"], relative=1e-5)


@pytest.mark.parametrize("number", [0, 1])
def test_feature_norm(golden: Path, number: int) -> None:
    arrays, meta = load(golden, f"icd_featbn_{number}")
    x, beta, mean, variance = tensors(arrays, "in_x", "in_beta", "in_moving_mean", "in_moving_var")
    norm = FeatureNorm(len(beta)).train(not meta["use_global_stats"])
    norm.bias = nn.Parameter(beta)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    y = norm(x.requires_grad_())
    y.backward(torch.from_numpy(arrays["in_out_grad"]))
    norm.end_step()
    close(y, arrays["out_y"], absolute=1e-5)
    close(norm.running_mean, arrays["out_moving_mean"], absolute=1e-6)
    close(norm.running_var, arrays["out_moving_var"], absolute=1e-6)
    assert x.grad is not None and norm.bias.grad is not None
    close(x.grad, arrays["out_grad_x"], absolute=1e-5)
    close(norm.bias.grad, arrays["out_grad_beta"], relative=1e-5)


def network(golden: Path, arrays: dict[str, np.ndarray]) -> tuple[IcdNet, list[Tensor]]:
    image, tags, regions = tensors(arrays, "in_image", "in_label", "in_superpixel")
    return load_icd(published(golden), 21), [image.float() - 127, tags, regions]


def test_network_inference(golden: Path) -> None:
    arrays, _ = load(golden, "icd_net_infer_0")
    net, inputs = network(golden, arrays)
    with torch.inference_mode():
        seen = net(*inputs)
        cam, signed = net.maps(inputs[0])
        refined = refine_scores(seen.score, *inputs[1:])
    for maps, name in ((seen.cam, "cam"), (seen.score, "icd_bu"), (refined, "icd_bu_sp"), (seen.logits, "icd_td")):
        close(maps, arrays[f"out_{name}"], relative=1e-5)
    assert torch.equal(cam, seen.cam) and torch.equal(signed, seen.logits)


def published_optimiser(net: IcdNet, lr: float) -> torch.optim.SGD:
    groups = []
    for name, parameter in net.named_parameters():
        decay = 5e-4 if name.endswith("weight") else 0.0
        groups.append({"params": [parameter], "lr": lr * (10 if "classifier" in name else 1), "weight_decay": decay})
    return torch.optim.SGD(groups, lr=lr, momentum=0.9)


def own_name(name: str) -> str:
    if name in SINGLE:
        return SINGLE[name]
    layer, _, part = name.rpartition("_")
    return f"{OURS[layer]}.{part}"


@pytest.mark.parametrize(("number", "tolerance"), [(1, 2e-3), (0, 5e-3)])
def test_network_training_steps(golden: Path, number: int, tolerance: float) -> None:
    arrays, meta = load(golden, f"icd_net_train_{number}")
    net, inputs = network(golden, arrays)
    net.train().cam.dropout = 0.0
    net.warmup = meta["num_sample"]
    optimiser = published_optimiser(net, meta["lr"])
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    first: dict[str, Tensor] = {}
    for step in range(meta["steps"]):
        seen = net(*inputs)
        target = refine_scores(seen.score.detach(), *inputs[1:])
        loss = classification_part(seen.cam, inputs[1]) + bottom_up_part(seen.score, inputs[1])
        loss = loss + seen.weight * top_down_part(seen.logits, target, inputs[1])
        optimiser.zero_grad()
        (loss / len(inputs[0])).backward()
        if step == 0:
            close(torch.sigmoid(seen.cam.mean((2, 3))), arrays["out_cls_prob"], absolute=1e-5)
            close(seen.score, arrays["out_icd_bu"], relative=2e-5)
            close(torch.sigmoid(seen.logits), arrays["out_icd_td_prob"], absolute=2e-5)
            # Published gradients are those of the sum over the batch.
            first = {name: len(inputs[0]) * p.grad for name, p in net.named_parameters() if p.grad is not None}
        optimiser.step()
        net.end_step()
    after = net.state_dict()
    for name, norm, change in zip(meta["names"], arrays["out_grad_norm"], arrays["out_param_change_norm"], strict=True):
        own = own_name(name)
        assert float(first[own].norm()) == pytest.approx(norm, rel=tolerance)
        assert float((after[own] - before[own]).norm()) == pytest.approx(change, rel=tolerance)
    for key in arrays:
        kind, _, name = key.partition(":")
        if kind == "out_grad":
            close(first[own_name(name)], arrays[key], relative=tolerance)
        elif kind in ("out_param_after", "out_aux_after"):
            close(after[own_name(name)], arrays[key], relative=tolerance)


@pytest.mark.parametrize("number", [0, 1])
def test_seed_before_and_after_the_crf(crf_golden: Path, number: int) -> None:
    arrays, meta = load(crf_golden, f"icd_seed_{number}")
    labels = signed_labels(*seed_maps(arrays, meta))
    assert np.array_equal(labels, arrays["out_seed_pre_crf"])
    expected = arrays["out_unary_values"]
    for value in np.unique(label_unary(labels, 21)):
        assert np.abs(expected - value).min() < 1e-5
    assert np.array_equal(refine_labels(arrays["in_image"], labels, 21), arrays["out_seed_crf"])


def seed_maps(arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    height, width = arrays["in_image"].shape[:2]
    side = meta["infer_size"]
    signed, cam = (
        functional.interpolate(maps[None], size=(side, side), mode="bilinear")[0, :, :height, :width].numpy()
        for maps in tensors(arrays, "in_icd", "in_cam")
    )
    return signed, cam, (arrays["in_classes"] + 1).astype(np.uint8)


@pytest.mark.parametrize("number", [0, 1])
def test_image_and_superpixels_are_cut_alike(golden: Path, number: int) -> None:
    arrays, meta = load(golden, f"icd_load_{number}")
    height, width = arrays["in_superpixel"].shape
    side = meta["target"]
    resized = tuple(int(length * meta["scale"] + 0.5) for length in (height, width))
    assert not meta["rand_crop"]  # these crops are centred
    source = tuple(max(length - side, 0) // 2 for length in resized)
    extent = tuple(min(length, side) for length in resized)
    crop = Crop((height, width), resized, meta["mirror"], source, (0, 0), extent)
    regions = cut_regions(arrays["in_superpixel"], crop, side)
    ids = np.where(regions < 0, regions.max() + 1, regions)
    assert np.array_equal(compact(ids), arrays["out_superpixel_canonical"])
    planes = torch.from_numpy(arrays["in_image"]).permute(2, 0, 1)[None].float()
    fine = functional.interpolate(planes, size=resized, mode="bilinear", align_corners=False)
    image = cut_image(fine[0].permute(1, 2, 0).numpy() - 127, crop, side) + 127
    # OpenCV interpolates 8-bit images in 11-bit fixed point.
    assert np.abs(image - arrays["out_image_rgb"]).max() < 1


def test_difficult_objects_count_where_there_are_no_others(golden: Path) -> None:
    for case in json.loads((golden / "icd_annotation.json").read_text())["cases"]:
        objects = "".join(
            f"<object><name>{name}</name><difficult>{mark}</difficult></object>" for name, mark in case["objects"]
        )
        tags = read_labels(f"<annotation>{objects}</annotation>".encode(), "a.xml", difficult=False)
        assert sorted({VOC.index(name) - 1 for name in tags}) == case["classes"]


def test_evaluation_leaves_undecided_pixels_out(golden: Path) -> None:
    arrays, meta = load(golden, "eval_0")
    truth, prediction = arrays["in_gt"], arrays["in_pred"]
    decided_truth = np.where(prediction == 255, 255, truth)
    class_iou = scores(confusion(prediction, decided_truth, meta["n_classes"]), "icd")
    close(class_iou, arrays["out_icd_iou"], absolute=1e-6)
    assert mean_iou(class_iou) == pytest.approx(float(arrays["out_icd_miou"]), abs=1e-6)
