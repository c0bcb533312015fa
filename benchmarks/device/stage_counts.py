"""What the stages of AMN on COCO ask of a device, counted without one: a training step, a group of a Map."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from amn_dist.config import Config, EngineSection, load_config
from amn_dist.interfaces import Fit, Map
from amn_dist.models.clip.network import ClipNet, ClipShape
from amn_dist.models.clip.texts import TextRows
from amn_dist.models.inference import ACCELERATOR_PIXELS, prepare
from amn_dist.records import Batch, Evidence, Sample, grid_size
from amn_dist.stages.amn import AmnFit, AmnMap, amn_network
from amn_dist.stages.classify import CamMap, ClassifyFit, cam_network
from amn_dist.stages.clip import ClipMap, ClipWorker
from amn_dist.stages.irn import IrnFit, WalkMap, edge_network, images_edge
from amn_dist.stages.predict import PredictMap, segment_network
from amn_dist.stages.seed import SeedMap
from amn_dist.stages.segment import SegmentFit
from amn_dist.training.engines.torch import TorchEngine
from amn_dist.training.ledger import Ledger
from amn_dist.training.loop import FitContext, _step
from benchmarks.device.counting import Counts, Patches, counting
from benchmarks.device.fake_cuda import fake_cuda
from benchmarks.device.recorder import META, MetaWorld, pretend_device, recording

CLASSES, TAGS = 81, 3
BACKGROUND = 23
"""Words of the background that CLIP's tags compete with."""
SIZE = (480, 640)
FITS: dict[str, Callable[[Config, int], Fit]] = {
    "classify": ClassifyFit,
    "amn": AmnFit,
    "irn": IrnFit,
    "segment": SegmentFit,
}
GROUP = ACCELERATOR_PIXELS // (SIZE[0] * SIZE[1])
"""Photographs of 640x480 in a group."""
CRF_GROUP = 32


@dataclass(frozen=True)
class Pair:
    """Counts of one unit and of `number` units together: between and beyond the two they grow as a line."""

    one: Counts
    many: Counts
    number: int


def published() -> Config:
    """configs/coco14_amn.yaml with random weights."""
    path = Path(__file__).resolve().parents[2] / "configs" / "coco14_amn.yaml"
    return load_config(path, tuple(f"{section}.backbone.weights=null" for section in FITS))


def step_counts(stage: str, config: Config) -> Pair:
    """A training step of one image, and of the published batch, in bf16 on the torch engine."""
    number = getattr(config, stage).batch
    return Pair(_step_of(stage, config, 1), _step_of(stage, config, number), number)


def _step_of(stage: str, config: Config, number: int) -> Counts:
    fit, world, section = FITS[stage](config, CLASSES), MetaWorld(), EngineSection(name="torch", precision="bf16")
    with Patches() as patches, tempfile.TemporaryDirectory() as folder:
        pretend_device(patches)
        with META:
            engine = TorchEngine(fit, section, world)
        context = FitContext(fit, Path(folder), section, world, 0, 10, 1, print, print)
        ledger, batch = Ledger(fit.name, world), _batch(fit, number)
        with recording():
            _step(context, engine, batch, 0, lambda: False, ledger)  # tables of indices go to the device once
            with counting() as counts:
                _step(context, engine, batch, 1, lambda: False, ledger)
    return counts


def _batch(fit: Fit, number: int) -> Batch:
    side, keys = fit.rule.size, tuple(map(str, range(number)))
    image, tags = torch.zeros(number, 3, side, side), torch.zeros(number, CLASSES - 1)
    return Batch(keys, tuple(range(number)), image, tags, torch.zeros(number, side, side, dtype=torch.uint8))


def map_counts(name: str, config: Config, *, size: tuple[int, int] = SIZE, group: int = GROUP) -> Pair:
    """One photograph (height, width), and a group of them, through a Map whose tables of that size lie on the device.

    predict: without its CRF. cam_seed stands for both seeds; its bytes are not those of its kernels, which are counted
    by `crfs.moved_bytes`.
    """
    with fake_cuda():
        work = _works(config, size)[name]()
        _counted(work, group)  # counted already: else layers would learn that cuDNN's fused forms are missing here
        return Pair(_counted(work, 1), _counted(work, group), group)


def _counted(work: Callable[[int], None], number: int) -> Counts:
    with counting() as counts:
        work(number)
    return counts


def _works(config: Config, size: tuple[int, int]) -> dict[str, Callable[[], Callable[[int], None]]]:
    """What opens each Map and passes samples through it."""
    raw = config.model_copy(update={"predict": config.predict.model_copy(update={"crf": "off"})})

    def through(step: Map, network: Any) -> Callable[[int], None]:
        return lambda number: _drain(step, network, _samples(number, size))

    def ready(network: Any) -> Any:
        return prepare(network, "cuda", precision=torch.bfloat16)

    def edges() -> Callable[[int], None]:
        network, image = ready(edge_network(config)), np.zeros((*size, 3), np.uint8)
        return lambda number: images_edge(network, [image] * number, pad=None) and None

    seeds = SeedMap("cam_seed", config.cam_seed, needs="network")
    return {
        "cam": lambda: through(CamMap(config, CLASSES, ""), ready(cam_network(config, CLASSES))),
        "amn_map": lambda: through(AmnMap(config, CLASSES, ""), ready(amn_network(config, CLASSES))),
        "edges": edges,
        "clip_map": lambda: through(ClipMap(config, ("background",)), clip_worker()),
        "walk": lambda: through(WalkMap(config, CLASSES, "", "amn_map"), ready(edge_network(config))),
        "cam_seed": lambda: through(seeds, torch.device("cuda")),
        "predict": lambda: through(PredictMap(raw, CLASSES, "", True), ready(segment_network(config, CLASSES))),
        "predict with its CRF": lambda: through(
            PredictMap(config, CLASSES, "", True), ready(segment_network(config, CLASSES))
        ),
    }


def clip_worker() -> ClipWorker:
    """ViT-B/16 without values, with the words of COCO; inside `fake_cuda`."""
    shape = ClipShape(text_depth=1, vocabulary=1024)
    rows = torch.zeros(CLASSES - 1 + BACKGROUND, shape.embed, device="cuda")
    network = ClipNet(shape).to("cuda").requires_grad_(False)
    network.visual.lower(torch.float16)
    return ClipWorker(network, TextRows(rows[: CLASSES - 1], rows[CLASSES - 1 :]))


def _drain(step: Map, network: Any, samples: Iterator[Sample]) -> None:
    for _ in step.run(network, samples):
        pass


def _samples(number: int, size: tuple[int, int]) -> Iterator[Sample]:
    """Photographs of three classes with all that a Map reads."""
    tags, image = np.zeros(CLASSES - 1, np.uint8), np.zeros((*size, 3), np.uint8)
    tags[:TAGS] = 1
    grid = grid_size(*size)
    maps, names = np.zeros((TAGS, *grid), np.float16), np.arange(1, TAGS + 1, dtype=np.uint8)
    for place in range(number):
        sample = Sample(
            str(place), place, image, tags, {"seed": np.zeros(size, np.uint8), "activation": maps, "maps": maps}
        )
        fine = torch.zeros(TAGS, *size, device="cuda")
        sample.evidence = Evidence(names, maps.astype(np.float32), fine, np.zeros(size, np.uint8))
        yield sample
