"""Tensor operations against numbers from the published implementations; tolerances are those of the fixtures."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from amn_dist.ops.affinity import pair_affinity, pair_labels, path_directions, window
from amn_dist.ops.cam import merge_amn, merge_cam
from amn_dist.ops.crf.dense import Backend, deeplab_crf, dense_crf, hard_label_unary
from amn_dist.ops.metrics.counts import confusion, iou, mean_iou, scores, void_predictions
from amn_dist.ops.metrics.thresholds import STEPS, THRESHOLDS, sweep, threshold_confusions
from amn_dist.ops.paths import path_cells
from amn_dist.ops.resize import resize_label, sample_labels
from amn_dist.ops.seeds import confident_seed, refined_labels, threshold_labels
from amn_dist.ops.walk.walk import pseudo_mask, random_walk, walk_scores

Fixture = tuple[dict[str, np.ndarray], dict[str, Any]]
SCALES = ("1.0", "0.5", "1.5", "2.0")


def load(golden: Path, name: str) -> Fixture:
    """Arrays and parameters of one fixture."""
    with np.load(golden / f"{name}.npz") as file:
        arrays = {key: file[key] for key in file.files if key != "meta"}
        return arrays, json.loads(str(file["meta"]))


def present(keys: np.ndarray) -> np.ndarray:
    """Fixtures number foreground classes from 0, the package from 1."""
    return (keys + 1).astype(np.uint8)


@pytest.mark.parametrize("radius", [5, 10])
def test_paths(golden: Path, radius: int) -> None:
    arrays, meta = load(golden, f"path_index_r{radius}")
    directions = path_directions(radius)
    assert np.array_equal(directions, arrays["out_search_dst"])
    groups = [arrays[name] for name in sorted(arrays) if name.startswith("out_search_paths_")]
    paths = [path for group in groups for path in group.tolist()]
    assert [[list(cell) for cell in path_cells(direction)] for direction in directions] == paths
    height, width = meta["size"]
    cells = torch.arange(height * width).reshape(height, width)
    assert np.array_equal(window(cells, (0, 0), radius).flatten(), arrays["out_src_indices"])
    ends = torch.stack([window(cells, direction, radius).flatten() for direction in directions])
    assert np.array_equal(ends, arrays["out_dst_indices"])
    walked = [window(cells, c, radius).flatten() for direction in directions for c in path_cells(direction)]
    assert np.array_equal(torch.cat(walked), arrays["out_path_indices_flat"])


@pytest.mark.parametrize("name", ["irn_loss_voc_0", "irn_loss_voc_1"])
def test_pairs(golden: Path, name: str) -> None:
    arrays, meta = load(golden, name)
    grid = arrays["out_reduced_label"].shape[1:]
    labels = sample_labels(torch.from_numpy(arrays["in_label_map"]), grid)
    assert np.array_equal(labels, arrays["out_reduced_label"])
    kinds = pair_labels(labels, meta["radius"], meta["n_classes"])
    for pairs_of_kind, kind in zip(kinds, ("bg_pos", "fg_pos", "neg"), strict=True):
        assert pairs_of_kind.any() and np.array_equal(pairs_of_kind, arrays[f"out_{kind}"])
    edge = torch.sigmoid(torch.from_numpy(arrays["in_edge_logit"])[:, 0])
    np.testing.assert_allclose(pair_affinity(edge, meta["radius"]), arrays["out_affinity"], atol=1e-6)


@pytest.mark.parametrize("name", ["pcl_loss_0", "pcl_loss_1"])
def test_label_resizing(golden: Path, name: str) -> None:
    arrays, _ = load(golden, name)
    grid = arrays["out_label_small"].shape[1:]
    assert np.array_equal(sample_labels(torch.from_numpy(arrays["in_label"]), grid), arrays["out_label_small"])
    assert np.array_equal([resize_label(label, grid) for label in arrays["in_label"]], arrays["out_label_small"])


@pytest.mark.parametrize("name", ["random_walk_0", "random_walk_1"])
def test_random_walk(golden: Path, name: str) -> None:
    arrays, meta = load(golden, name)
    steps = 2 ** meta["exp_times"]
    walked = random_walk(arrays["in_x"], arrays["in_edge"][0], radius=meta["radius"], beta=meta["beta"], steps=steps)
    expected = arrays["ref64_rw"][:, 0]
    assert np.abs(walked - expected).max() < 2e-5 * expected.max()


@pytest.mark.parametrize("name", ["pseudo_mask_voc_0", "pseudo_mask_coco_0"])
def test_pseudo_mask(golden: Path, name: str) -> None:
    arrays, meta = load(golden, name)
    size = tuple(arrays["in_size"].tolist())
    activation, edge = arrays["in_cam"][1:], arrays["in_edge"][0]
    walked = random_walk(activation ** meta["power"], edge)
    np.testing.assert_allclose(walked, arrays["out_rw"][:, 0], atol=1e-4 * arrays["out_rw"].max())
    planes = walk_scores(torch.from_numpy(walked), size, background=meta["bg_thres"])
    np.testing.assert_allclose(planes, arrays["out_scores"], atol=1e-4)
    classes = present(arrays["in_keys"])
    mask = pseudo_mask(activation, edge, classes, size, background=meta["bg_thres"], power=meta["power"])
    first, second = np.sort(arrays["out_scores"], axis=0)[:-3:-1]
    assert np.array_equal(mask[first - second > 1e-3], arrays["out_label"][first - second > 1e-3])


def test_pseudo_mask_from_an_edge_network(golden: Path) -> None:
    arrays, meta = load(golden, "e2e_mask_voc_0")
    activation, _ = load(golden, Path(meta["inputs_from"]).stem)
    classes, size = present(activation["out_keys"]), arrays["out_label"].shape
    mask = pseudo_mask(activation["out_cam"][1:], arrays["out_edge"][0], classes, size, background=meta["bg_thres"])
    clear = ~arrays["out_margin_below_1e-3"]
    assert np.array_equal(mask[clear], arrays["out_label"][clear])


@pytest.mark.parametrize(("backend", "tolerance"), [("pydensecrf", 1e-6), ("cpu", 1e-4)])
@pytest.mark.parametrize("iterations", [1, 5, 10])
def test_crf_marginals(crf_golden: Path, iterations: int, backend: Backend, tolerance: float) -> None:
    arrays, meta = load(crf_golden, "crf_raw_q_0")
    unary = hard_label_unary(arrays["in_labels"], meta["n_labels"])
    assert np.array_equal(unary.reshape(arrays["out_unary"].shape), arrays["out_unary"])
    kernels: dict[str, Any] = {"gaussian": (3, 3), "bilateral": (50, 5, 10)}
    marginals = dense_crf(arrays["in_image"], unary, **kernels, iterations=iterations, backend=backend)
    np.testing.assert_allclose(marginals, arrays[f"out_q_t{iterations}"], atol=tolerance)


@pytest.mark.parametrize("backend", ["pydensecrf", "cpu"])
@pytest.mark.parametrize("name", ["crf_seed_0", "crf_seed_1"])
def test_seed(crf_golden: Path, name: str, backend: Backend) -> None:
    arrays, meta = load(crf_golden, name)
    maps = arrays["in_maps_u8"].astype(np.float32) / np.float32(255)
    maps = maps[1:] if meta["kind"] == "amn" else maps
    classes = present(arrays["in_keys"])
    for kind in ("fg", "bg"):
        labels = threshold_labels(maps, meta[f"t_{kind}"])
        assert np.array_equal(labels, arrays[f"out_{kind}_argmax"])
        refined = refined_labels(arrays["in_image"], labels, len(classes) + 1, backend)
        assert np.array_equal(refined, arrays[f"out_{kind}_crf"])
    seed = confident_seed(
        arrays["in_image"], maps, classes, foreground=meta["t_fg"], background=meta["t_bg"], backend=backend
    )
    assert np.array_equal(seed, arrays["out_seed"])


@pytest.mark.parametrize(("backend", "tolerance"), [("pydensecrf", 1e-5), ("cpu", 1e-4)])
@pytest.mark.parametrize("kind", ["wrapped", "plain_bgr"])
def test_deeplab_crf(crf_golden: Path, kind: str, backend: Backend, tolerance: float) -> None:
    arrays, _ = load(crf_golden, "deeplab_crf_0")
    image, wrapped = arrays["in_image_rgb"], kind == "wrapped"
    logits = torch.from_numpy(arrays["in_logit"])[None]
    fine = torch.nn.functional.interpolate(logits, size=image.shape[:2], mode="bilinear", align_corners=False)
    marginals = deeplab_crf(image, fine[0].softmax(0).numpy(), wrap_image=wrapped, backend=backend)
    assert np.array_equal(marginals.argmax(0), arrays[f"out_label_{kind}"])
    if wrapped:
        np.testing.assert_allclose(marginals, arrays["out_q_wrapped"], atol=tolerance)


@pytest.mark.parametrize("name", ["cam_forward_voc_0", "cam_forward_voc_1", "cam_forward_coco_0"])
def test_cam_merging(golden: Path, name: str) -> None:
    arrays, _ = load(golden, name)
    per_scale = [arrays[f"out_scale_{scale}"] for scale in SCALES]
    classes, coarse, fine = merge_cam(per_scale, arrays["in_label"], arrays["in_image"].shape[:2])
    assert np.array_equal(classes, present(arrays["out_keys"]))
    np.testing.assert_allclose(coarse, arrays["out_cam"], atol=1e-6)
    np.testing.assert_allclose(fine, arrays["out_high_res"], atol=1e-6)


@pytest.mark.parametrize("name", ["amn_forward_voc_0", "amn_forward_voc_1", "amn_forward_coco_0"])
def test_amn_merging(golden: Path, name: str) -> None:
    arrays, _ = load(golden, name)
    per_scale = [arrays[f"out_scale_{scale}"] for scale in SCALES]
    classes, coarse, fine = merge_amn(
        per_scale, arrays["in_label"], arrays["in_ir_label"], arrays["in_image"].shape[:2]
    )
    assert np.array_equal(classes, present(arrays["out_keys"]))
    np.testing.assert_allclose(coarse, arrays["out_cam"][1:], atol=5e-6)
    np.testing.assert_allclose(fine, arrays["out_high_res"][1:], atol=5e-6)


def test_evaluation_of_labels(golden: Path) -> None:
    arrays, meta = load(golden, "eval_0")
    truth, prediction, count = arrays["in_gt"], arrays["in_pred"], meta["n_classes"]
    counts = confusion(prediction, truth, count)
    seen = len(arrays["out_voc_confusion"])
    assert np.array_equal(counts[:seen, :seen], arrays["out_voc_confusion"]) and not counts[seen:].any()
    void = void_predictions(np.where(prediction == 255, 0, prediction), truth, count)
    coco = arrays["out_coco_iou"]
    for class_iou, expected, mean in (
        (scores(counts, "voc")[:seen], arrays["out_voc_iou"], arrays["out_voc_miou"]),
        (scores(counts, "deeplab"), arrays["out_deeplab_iou"], arrays["out_deeplab_miou"]),
        (scores(counts, "coco", void=void), np.append(coco[:count], coco[-1]), arrays["out_coco_miou"]),
    ):
        np.testing.assert_allclose(class_iou, expected, atol=1e-9)
        assert abs(mean_iou(class_iou) - mean) < 1e-9


def test_evaluation_of_maps(golden: Path) -> None:
    arrays, meta = load(golden, "eval_0")
    classes = present(arrays["in_cam_keys"])
    histogram = np.zeros((meta["n_classes"], meta["n_classes"], STEPS), np.int64)
    for maps, truth in zip(arrays["in_cam_maps"], arrays["in_gt"], strict=True):
        sweep(maps, classes, truth, meta["n_classes"]).add_to(histogram)
    curve = threshold_confusions(histogram)
    for threshold in meta["cam_eval_thres"]:
        class_iou = iou(curve[np.flatnonzero(np.isclose(THRESHOLDS, threshold))[0]])
        expected = arrays[f"out_cam_{threshold}_iou"]
        np.testing.assert_allclose(class_iou[: len(expected)], expected, atol=1e-9)
        assert abs(mean_iou(class_iou) - arrays[f"out_cam_{threshold}_miou"]) < 1e-9
