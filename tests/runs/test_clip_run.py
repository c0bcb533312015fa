"""CLIP's maps through seeds, AMN and IRN to masks, small, in this process; and plain CLIP-ES beside it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from amn_dist.config import load_config
from amn_dist.errors import ConfigError
from amn_dist.ops.clip.seed import confident_labels
from amn_dist.records import IGNORE, Sample, grid_size
from amn_dist.runs.pipeline import Pipeline
from amn_dist.runs.run import Run
from amn_dist.shards.format import decode, encode
from amn_dist.shards.shardset import ShardSet
from amn_dist.stages.clip import ClipMap, tensors_clip
from data_shards.synthetic import pack_synthetic
from tests.drawn.clip import write_clip

CONFIG = """
name: {method}
method: {method}
weights: {weights}
pseudo_mask: {mask}
clip_map:
  weights: clip.safetensors
  vocabulary: merges.txt.gz
  templates: ["{{}}"]
  names: {{{first}: "cat dog"}}
  background: [sky, sea]
clip_seed: {{confidence: 0.6}}
amn: &fit
  backbone: {{name: small, stride: 8, weights: null, frozen_taps: 0}}
  optimiser: adam
  lr: 1.0e-3
  lr_head: 1.0e-3
  batch: 8
  steps: 2
  crop: 65
amn_map: {{scales: [1.0]}}
irn: *fit
walk: {{pad: null, steps: 16}}
segment: {{<<: *fit, loss: confidence}}
predict: {{crf: "off"}}
farm: {{name: local}}
engine: {{name: torch}}
loader: {{name: torchvision}}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clip")
    pack_synthetic(root / "data" / "train", images=9, seed=0, classes=2, shard_size=3)
    pack_synthetic(root / "data" / "val", images=2, seed=9, classes=2, shard_size=2)
    write_clip(root / "weights")
    return root


def pipeline(root: Path, method: str, mask: str, name: str, *settings: str) -> Pipeline:
    first = ShardSet.open(str(root / "data" / "train")).classes[1]
    file = root / f"{name}.yaml"
    file.write_text(CONFIG.format(method=method, weights=root / "weights", mask=mask, first=first))
    return Pipeline(load_config(file, settings), Run(root / "runs" / name), root / "data", reuse=False)


def digest(folder: Path) -> str:
    return str(json.loads((folder / "index.json").read_text())["digest"])


def scores(folder: Path) -> dict[str, dict[str, object]]:
    rows: dict[str, dict[str, object]] = json.loads((folder / "score" / "score.json").read_text())["sets"]["train"][
        "rows"
    ]
    return rows


def test_a_run_goes_to_its_end_is_scored_and_resumes(root: Path) -> None:
    run = pipeline(root, "clip", "seed", "plain")
    run.execute()
    folder = root / "runs" / "plain"
    assert set(scores(folder)) == {"clip_map", "clip_seed"} and len(scores(folder)["clip_map"]["miou"]) == 99  # type: ignore[arg-type]
    before = {name: digest(folder / name) for name in ("clip_map", "clip_seed")}
    for name in before:  # as after a stop: two shards are there, the last is not
        (folder / name / "index.json").unlink()
        for file in sorted((folder / name).glob("*000002*")):
            file.unlink()
    pipeline(root, "clip", "seed", "plain").execute(until="clip_seed")
    assert {name: digest(folder / name) for name in before} == before


def test_the_words_and_their_features_are_kept(root: Path) -> None:
    run = pipeline(root, "clip", "seed", "words")
    run.console = Console(file=(said := io.StringIO()), width=200)
    run.execute(until="clip_seed")
    assert "clip_map: 2 classes, 2 words of the background, in {} (prompts.json)" in said.getvalue()
    folder = root / "runs" / "words" / "clip_map"
    names = ShardSet.open(str(root / "data" / "train")).classes
    kept = json.loads((folder / "prompts.json").read_text())
    assert kept["classes"] == {names[1]: "cat dog", names[2]: names[2]} and kept["background"] == ["sky", "sea"]
    rows = load_file(folder / "text.safetensors")
    assert rows["classes"].shape == (2, 24) and torch.allclose(rows["background"].norm(dim=1), torch.ones(2))
    origin = json.loads((folder / "origin.json").read_text())
    assert {"clip weights", "clip vocabulary"} < origin["inputs"].keys()


def test_its_seeds_go_through_amn_and_the_walk(root: Path) -> None:
    pipeline(root, "clip_amn", "walk", "with_amn").execute()
    assert set(scores(root / "runs" / "with_amn")) == {"clip_map", "clip_seed", "amn_map", "amn_seed", "walk"}


def test_what_is_missing_is_said(root: Path) -> None:
    absent = pipeline(root, "clip", "seed", "absent", "clip_map.weights=none.pt")
    with pytest.raises(ConfigError, match=r"clip_map.weights: .*none.pt: no such file; download OpenAI's ViT-B-16.pt"):
        absent.execute()
    absent = pipeline(root, "clip", "seed", "absent", "clip_map.vocabulary=none.gz")
    with pytest.raises(ConfigError, match=r"clip_map.vocabulary: .*none.gz: no such file; download OpenAI's bpe_simpl"):
        absent.execute()


def test_photographs_of_one_grid_go_together(root: Path) -> None:
    images = [np.random.default_rng(n).integers(0, 256, size, np.uint8) for n, size in enumerate(SIZES)]
    tags = [np.array(one, np.uint8) for one in ((1, 0), (0, 0), (1, 1), (0, 1))]
    step = ClipMap(pipeline(root, "clip", "seed", "group").config, ("background", "a", "b"))
    step.config.clip_map.names.clear()
    opened = step.open()
    together = tensors_clip(opened, images, tags, step.config.clip_map)
    for image, of_image, (classes, coarse, fine) in zip(images, tags, together, strict=True):
        size = image.shape[0], image.shape[1]
        ((alone, small, large),) = tensors_clip(opened, [image], [of_image], step.config.clip_map)
        assert np.array_equal(classes, np.flatnonzero(of_image) + 1) and np.array_equal(classes, alone)
        assert coarse.shape[1:] == grid_size(*size) and fine.shape[1:] == size
        assert torch.allclose(coarse, small, atol=1e-4) and torch.allclose(fine, large, atol=1e-4)
    samples = [Sample(str(n), n, image, tags[n]) for n, image in enumerate(images)]
    assert [sample.key for sample in step.run(opened, iter(samples))] == ["0", "1", "2", "3"]
    assert all("activation.f16" in sample.made["clip_map"] for sample in samples)
    for sample in samples:  # stored as the patches', read as the stride-4 grid
        stored = sample.made["clip_map"]["activation.f16"]
        assert sample.evidence is not None and stored.values.shape[1:] < stored.size
        read = decode("activation.f16", encode("activation.f16", stored))
        assert read.shape[1:] == grid_size(*sample.image.shape[:2])
        assert np.abs(read - sample.evidence.coarse).max(initial=0) <= 2**-10


SIZES = ((40, 60, 3), (48, 64, 3), (33, 49, 3), (47, 50, 3))


def test_labels_without_tags_are_background_and_doubt_is_ignored() -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 15, 3), np.uint8)
    none = confident_labels(image, np.zeros((0, 12, 15), np.float32), np.zeros(0, np.uint8))
    assert not none.any()
    maps = np.full((1, 12, 15), 0.5, np.float32)
    maps[0, :, :5] = 1
    for wrap in (True, False):
        seed = confident_labels(image, maps, np.array([3], np.uint8), confidence=1, wrap_image=wrap, backend="cpu")
        assert set(np.unique(seed)) <= {0, 3, IGNORE} and (seed == IGNORE).any()
    rough = confident_labels(image, maps, np.array([3], np.uint8), backend=None)
    assert (rough[:, :5] == 3).all() and not rough[:, 5:].any()
