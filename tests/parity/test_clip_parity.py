"""CLIP-ES against numbers of the published code, executed (clip 1 to 6)."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from amn_dist.config import load_config
from amn_dist.models.clip.last_block import last_pass
from amn_dist.models.clip.network import ClipNet, position_table, text_features
from amn_dist.models.clip.relevance import relevances
from amn_dist.models.clip.texts import words_of
from amn_dist.models.clip.weights import load_clip
from amn_dist.ops.clip.patches import patch_size, resized
from amn_dist.ops.clip.refine import balance, box_masks, positive_maps, spread, stretched
from amn_dist.ops.clip.seed import confident_labels, energies_of, largest_labels, scores_of, with_background
from amn_dist.ops.crf.dense import Backend, _bgr
from amn_dist.ops.normalise import CLIP_DEVIATION, CLIP_MEAN, input_batch
from data_shards.classes import VOC
from tests.golden.make_weights import as_torch, make_weights

FORWARD = (
    *(f"voc_{number}" for number in range(5)),
    *(f"coco_{number}" for number in range(3)),
    *("vitb16_0", "vitb16_1", "allneg_0", "allpos_0", "edge_0", "weak_0", "sharp_0"),
)
PRECISE = ("attn_mean", "feature", "logits", "probs", "weights", "raw", "cam", "refined")
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FINE = ("out_cam_highres", "out_refined_highres")


@pytest.fixture(scope="module")
def networks(clip_golden: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, ClipNet]:
    """The networks of the fixtures by their list of names."""
    return {}


def network_of(networks: dict[str, ClipNet], golden: Path, keys: str, folder: Path) -> ClipNet:
    if keys not in networks:
        entries = json.loads((golden / keys).read_text())["entries"]
        kinds = {entry["name"]: entry.get("dtype", "float32") for entry in entries}
        arrays = {name: one.astype(kinds[name]) for name, one in make_weights(golden / keys).items()}
        save_file(as_torch(arrays), folder / "weights.safetensors")
        networks[keys] = load_clip(folder / "weights.safetensors")
    return networks[keys]


def read(golden: Path, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    if not (golden / f"{name}.npz").is_file():
        pytest.skip(f"{name}.npz is absent ({golden}); smaller ones of its kind are tested")
    with np.load(golden / f"{name}.npz") as arrays:
        return json.loads(str(arrays["meta"])), {key: arrays[key] for key in arrays.files if key != "meta"}


def near(value: Tensor | np.ndarray, expected: np.ndarray, tolerance: dict[str, float]) -> None:
    value = value.numpy() if isinstance(value, Tensor) else value
    within = tolerance.get("abs", tolerance.get("rel_to_max", 0) * np.abs(expected).max())
    assert value.shape == expected.shape
    assert np.abs(value - expected.astype(np.float64)).max() <= within


def texts_of(golden: Path, meta: dict[str, Any], network: ClipNet) -> tuple[Tensor, Tensor]:
    """Unit rows of classes and background words, from the ids of the published tokeniser."""
    kind = "vitb16" if "vitb16" in meta["weights"] else meta["dataset"]
    ids = read(golden, f"clip_text_{kind}_0")[1]
    fg, bg = (torch.from_numpy(ids[name].astype(np.int64)) for name in ("out_tokens_fg", "out_tokens_bg"))
    return text_features(network, fg[:, None]), text_features(network, bg[:, None])


@pytest.mark.parametrize("case", FORWARD)
@pytest.mark.parametrize("precise", [False, True], ids=["float32", "float64"])
def test_a_picture_through_the_whole_script(
    clip_golden: Path, networks: dict[str, ClipNet], tmp_path: Path, case: str, precise: bool
) -> None:
    meta, arrays = read(clip_golden, f"clip_forward_{case}")
    network, tolerance = network_of(networks, clip_golden, meta["weights"], tmp_path), meta["tol"]
    scale = network.logit_scale.clone()
    if "logit_scale" in meta["override"]:
        network.logit_scale.fill_(meta["override"]["logit_scale"])
    reference = "ref64" if precise or case == "sharp_0" else "out"
    image, grid = arrays["in_image"], patch_size(arrays["in_image"].shape[:2])
    image = np.stack([image] * 3, -1) if image.ndim == 2 else image
    pixels = resized([image], torch.device("cpu"))
    assert np.array_equal(pixels[0].permute(2, 0, 1), arrays.get("out_resized_u8", pixels[0].permute(2, 0, 1)))
    try:
        x = input_batch(pixels, "clip")
        if precise:
            network.double()
            # The published code normalises in float32, whatever the network computes in.
            x = ((pixels / 255 - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_DEVIATION)).double()
            x, tolerance = (
                x.permute(0, 3, 1, 2),
                {**tolerance, **dict.fromkeys(PRECISE, tolerance["float64_implementation"])},
            )
        fg, bg = texts_of(clip_golden, meta, network)
        tokens, total = network.visual.tokens(x)
        seen = last_pass(network, tokens)
        total += seen.weights[:, :, 1:, 1:].sum(1)
        keys = arrays["out_keys"]
        (relevance,) = relevances(network, seen, [torch.cat([fg[keys], bg])], [len(keys)])
    finally:
        network.float().logit_scale.copy_(scale)
    blocks = len(network.visual.transformer.resblocks)
    mean = total[0] / (min(8, blocks) * network.visual.last.attn.heads)
    near(tokens[0], arrays["out_tokens"], tolerance["tokens"])
    height, width = (side // 16 for side in grid)
    cam = positive_maps(relevance.maps)
    for name, value in {
        "attn_mean": mean,
        "feature": seen.feature[0],
        "logits": relevance.logits,
        "probs": relevance.probabilities,
        "weights": relevance.channels,
        "raw": relevance.maps.unflatten(1, (height, width)),
        "cam": cam.unflatten(1, (height, width)),
    }.items():
        held = reference if f"{reference}_{name}" in arrays else "out"
        near(value, arrays[f"{held}_{name}"], (tolerance if held == reference else meta["tol"])[name])
    boxes = box_masks(cam.float().unflatten(1, (height, width)).numpy(), meta["box_threshold"])
    assert np.array_equal(boxes, arrays["out_mask"].astype(bool))
    rows, columns = balance(mean)
    balanced = rows[:, None] * mean * columns
    if "out_T" in arrays:
        near((balanced + balanced.T) / 2, arrays["out_T"], tolerance["T"])
    refined = spread(mean, cam, torch.from_numpy(boxes).flatten(1)).unflatten(1, (height, width))
    near(refined, arrays[f"{reference}_refined"], tolerance["refined"])
    size = arrays["in_image"].shape[:2]
    both = cam.view_as(refined), stretched(refined.flatten(1)).view_as(refined)
    fine = [functional.interpolate(maps[None], size=size, mode="bilinear")[0] for maps in both]
    for name, value in zip(FINE, fine, strict=True):
        if name in arrays and reference == "out":
            near(value, arrays[name], tolerance[name.removeprefix("out_")])
    # The published float32 gradient cancels where a tag is nearly sure.
    near(fine[1].half(), arrays["out_attn_highres"], {"abs": 0.05} if meta["saturated"] else tolerance["attn_highres"])


@pytest.mark.parametrize("case", ["voc_0", "coco_1"])
def test_float16_factors_move_no_box(
    clip_golden: Path, networks: dict[str, ClipNet], tmp_path: Path, case: str
) -> None:
    meta, arrays = read(clip_golden, f"clip_forward_{case}")
    network = copy.deepcopy(network_of(networks, clip_golden, meta["weights"], tmp_path))
    network.visual.lower(torch.float16)
    image, keys = arrays["in_image"], arrays["out_keys"]
    fg, bg = texts_of(clip_golden, meta, network)
    tokens, _ = network.visual.tokens(input_batch(resized([image], torch.device("cpu")), "clip"))
    (relevance,) = relevances(network, last_pass(network, tokens), [torch.cat([fg[keys], bg])], [len(keys)])
    cam = positive_maps(relevance.maps).view(arrays["out_cam"].shape)
    near(cam, arrays["out_cam"], {"abs": 5e-3})
    assert np.array_equal(box_masks(cam.numpy(), meta["box_threshold"]), arrays["out_mask"].astype(bool))


@pytest.mark.parametrize("kind", ["voc", "coco", "vitb16"])
def test_texts(clip_golden: Path, networks: dict[str, ClipNet], tmp_path: Path, kind: str) -> None:
    meta, arrays = read(clip_golden, f"clip_text_{kind}_0")
    network = network_of(networks, clip_golden, meta["weights"], tmp_path)
    for part in ("fg", "bg"):
        ids = torch.from_numpy(arrays[f"out_tokens_{part}"].astype(np.int64))
        features = text_features(network, ids[:, None])
        near(features, arrays[f"out_{part}"], {"abs": 2e-6})


@pytest.mark.parametrize("number", range(3))
def test_preparation(clip_golden: Path, number: int) -> None:
    _, arrays = read(clip_golden, f"clip_prep_{number}")
    image = arrays["in_image"]
    pixels = resized([np.stack([image] * 3, -1) if image.ndim == 2 else image], torch.device("cpu"))
    assert np.array_equal(pixels[0].permute(2, 0, 1), arrays["out_u8_1"])
    near(input_batch(pixels, "clip")[0], arrays["out_1"], {"abs": 1e-6})


@pytest.mark.parametrize("number", range(2))
def test_positions(clip_golden: Path, networks: dict[str, ClipNet], tmp_path: Path, number: int) -> None:
    meta, arrays = read(clip_golden, f"clip_posemb_{number}")
    network = network_of(networks, clip_golden, meta["weights"], tmp_path)
    for height, width in meta["sizes"]:
        expected = arrays[f"out_{height}x{width}"]
        table = position_table(network.visual.positional_embedding, network.visual.grid, (height, width)).half().numpy()
        table = table if meta["channels"] == "all" else np.ascontiguousarray(table[:, meta["channels"]])
        steps = np.abs(table.view(np.int16).astype(int) - expected.view(np.int16))
        assert steps.max() <= 1 and (steps > 0).mean() <= 0.005


def test_boxes(clip_golden: Path) -> None:
    _, arrays = read(clip_golden, "clip_box_0")
    names = sorted(name for name in arrays if name.startswith("out_mask"))
    assert len(names) == 28
    for name in names:
        _, _, number, threshold = name.split("_")
        boxes = box_masks(arrays[f"in_map_{number}"][None], float(threshold))
        assert np.array_equal(boxes[0], arrays[name].astype(bool)), name


@pytest.mark.parametrize("number", range(3))
def test_refinement_alone(clip_golden: Path, number: int) -> None:
    meta, arrays = read(clip_golden, f"clip_caa_{number}")
    tolerance = meta["tol"]
    blocks = [*arrays["in_attn"][: meta["n_blocks"] - 1], arrays["in_attn"][-1]][-8:]
    mean = torch.from_numpy(np.mean(blocks, 0)[1:, 1:])
    maps = torch.from_numpy(arrays["in_cam"])
    boxes = box_masks(arrays["in_cam"], meta["box_threshold"])
    assert np.array_equal(boxes, arrays["out_mask"].astype(bool))
    rows, columns = balance(mean)
    balanced = rows[:, None] * mean * columns
    if "out_T" in arrays:
        near((balanced + balanced.T) / 2, arrays["out_T"], tolerance["T"])
    refined = spread(mean, maps.flatten(1), torch.from_numpy(boxes).flatten(1)).view_as(maps)
    near(refined, arrays["out_refined"], tolerance["refined"])
    stored = stretched(refined.flatten(1)).view_as(refined)
    fine = functional.interpolate(stored[None], size=tuple(meta["size"]), mode="bilinear")[0]
    near(fine.half(), arrays["out_attn_highres"], tolerance["attn_highres"])


@pytest.mark.parametrize("kind", ["voc", "coco"])
def test_evaluation_is_a_threshold_of_one_half(clip_golden: Path, kind: str) -> None:
    _, arrays = read(clip_golden, f"clip_eval_{kind}_0")
    for number in range(3):
        maps, classes = torch.from_numpy(arrays[f"in_attn_highres_{number}"]), arrays[f"in_keys_{number}"] + 1
        named = torch.from_numpy(with_background(classes))
        expected = arrays[f"out_label_1_{number}"]
        assert np.array_equal(largest_labels(maps, named, half=True), expected)
        for threshold in ("0.3", "0.45"):
            scores = torch.cat([torch.full_like(maps[:1], float(threshold)), maps])
            assert np.array_equal(named[scores.argmax(0)], arrays[f"out_label_{threshold}_{number}"])
        fixed = torch.cat([torch.full_like(maps[:1], 0.5), maps])
        assert np.array_equal(named[fixed.argmax(0)], expected)


@pytest.mark.parametrize("kind", ["voc", "coco"])
@pytest.mark.parametrize("backend", ["pydensecrf", "cpu"])
def test_confident_labels(clip_golden: Path, kind: str, backend: Backend) -> None:
    _, arrays = read(clip_golden, f"clip_mask_{kind}_0")
    for number in range(3):
        image, maps = arrays[f"in_image_{number}"], arrays[f"in_attn_highres_{number}"]
        classes = (arrays[f"in_keys_{number}"] + 1).astype(np.uint8)
        assert np.array_equal(_bgr(torch.from_numpy(image), True), arrays[f"out_crf_image_{number}"])
        unary = energies_of(scores_of(torch.from_numpy(maps), half=True))
        assert np.array_equal(unary.flatten(1), arrays[f"out_unary_{number}"])
        seed = confident_labels(image, maps.astype(np.float32), classes, backend=backend)
        expected = arrays[f"out_mask_{number}"]
        assert (seed != expected).mean() <= (0 if backend == "pydensecrf" else 0.01)
        sure = confident_labels(image, maps.astype(np.float32), classes, confidence=0, backend=backend)
        assert (sure != arrays[f"out_label_{number}"]).mean() <= (0 if backend == "pydensecrf" else 0.01)


@pytest.mark.parametrize("kind", ["voc", "coco"])
def test_configurations_hold_the_published_words(clip_golden: Path, kind: str) -> None:
    section = load_config(CONFIGS / f"{'voc12' if kind == 'voc' else 'coco14'}_clip.yaml").clip_map
    meta, _ = read(clip_golden, f"clip_text_{kind}_0")
    published = meta["fg_prompts_of"]
    assert list(section.background) == meta["bg_prompts_of"] and section.templates == (meta["template"],)
    assert set(section.names.values()) <= set(published) and not set(section.names) & set(published)
    if kind == "voc":
        assert list(words_of(VOC[1:], section.names)) == published
    else:
        also = load_config(CONFIGS / "coco14_clip_amn.yaml").clip_map
        assert also == section and len(section.names) == 18
