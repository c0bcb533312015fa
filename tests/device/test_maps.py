"""Every Map of every method as a GPU would be given it: nothing mixes devices, and the host waits for it once a group.

The tensors have no values (benchmarks/device/fake_cuda.py). A group is three photographs of one size, of one, two and
no classes; what is remembered by size (matrices, tables) is there already, as it is after the first group of a size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from amn_dist.config import Config
from amn_dist.interfaces import Context, Map, parts_of
from amn_dist.methods import STAGES, Stage
from amn_dist.models.clip.network import ClipNet
from amn_dist.models.clip.texts import TextRows
from amn_dist.models.inference import prepare
from amn_dist.records import Evidence, Sample
from amn_dist.stages.amn import amn_network
from amn_dist.stages.classify import cam_network
from amn_dist.stages.clip import ClipWorker
from amn_dist.stages.icd import icd_network
from amn_dist.stages.irn import edge_network
from amn_dist.stages.predict import segment_network
from benchmarks.device.fake_cuda import Seen, fake_cuda
from tests.drawn.clip import SMALL

NAMES = tuple(f"class {number}" for number in range(21))
SIZE, GRID = (96, 128), (24, 32)
NETWORKS = {
    "cam": cam_network,
    "amn_map": amn_network,
    "icd_map": icd_network,
    "walk": lambda config, classes: edge_network(config),
    "predict": segment_network,
    "predict_logits": segment_network,
}


def configured(backbone: str) -> Config:
    sections = ("classify", "amn", "irn", "segment")
    chosen = {"name": backbone, "stride": 8 if backbone in ("small", "resnet101") else 16, "weights": None}
    own = {name: {"backbone": {**chosen, "frozen_taps": 0}} for name in sections}
    icd = {"backbone": {**chosen, "stride": 8, "name": "vgg16_deeplab", "frozen_taps": 0}, "width": 16}
    two = {"scales": [1.0, 0.5]}
    return Config.model_validate(
        {
            "name": "x",
            **own,
            "discriminate": icd,
            **dict.fromkeys(("cam", "amn_map"), two),
            "icd_map": {**two, "flip": True},
        }
    )


def group() -> Iterator[Sample]:
    """Three samples with all that any Map reads."""
    for number, classes in enumerate(([1], [1, 4], [])):
        tags = np.zeros(len(NAMES) - 1, np.uint8)
        tags[classes] = 1
        image, count = np.zeros((*SIZE, 3), np.uint8), len(classes)
        maps = np.zeros((count, *GRID), np.float16)
        joined = {"seed": np.zeros(SIZE, np.uint8), "activation": maps, "maps": maps}
        yield Sample(str(number), number, image, tags, joined)


def with_evidence(samples: Iterator[Sample]) -> Iterator[Sample]:
    """Samples as a network's Map leaves them: fine maps on the device."""
    for sample in samples:
        count = int(sample.tags.sum())
        fine = torch.zeros(count, *SIZE, device="cuda")
        decided = np.zeros(SIZE, np.uint8)
        names = (np.flatnonzero(sample.tags) + 1).astype(np.uint8)
        sample.evidence = Evidence(names, np.zeros((count, *GRID), np.float32), fine, decided)
        yield sample


def works(stage: Stage, config: Config) -> list[tuple[Map, Callable[[], Any]]]:
    """Maps of a stage that lie beside a GPU, and what opens each there, without weights."""
    assert stage.map is not None
    parts = parts_of(stage.map(Context(config, NAMES, "", accelerated=True)))
    return [(part, partial(opened, part.name, config)) for part in parts if part.needs == "network"]


def opened(name: str, config: Config) -> Any:
    if name == "clip_map":
        rows = torch.zeros(len(NAMES) - 1, SMALL.embed, device="cuda")
        network = ClipNet(SMALL).to("cuda").requires_grad_(False)
        network.visual.lower(torch.float16)
        return ClipWorker(network, TextRows(rows, rows[:3]))
    if name not in NETWORKS:
        return torch.device("cuda")
    return prepare(NETWORKS[name](config, len(NAMES)), "cuda", precision=torch.bfloat16)


def second_group(step: Map, open_: Callable[[], Any]) -> Seen:
    """What a second group of a size makes the host and the device do."""
    with fake_cuda() as seen:
        ready = open_()
        for _ in range(2):
            seen.forget()
            samples = with_evidence(group()) if step.name.endswith("_seed") else group()
            assert all(step.name in sample.made or sample.logits is not None for sample in step.run(ready, samples))
    return seen


SETTINGS: dict[str, dict[str, Any]] = {
    "": {},
    "raw": {"predict": {"crf": "off"}},
    "cores": {"predict": {"crf": "cpu"}},
    "threshold": {"icd_seed": {"rule": "threshold"}},
}
CHECKED = {
    "cam": (2, 0),
    "cam_seed": (6, 1),
    "amn_map": (4, 0),
    "icd_map": (3, 0),
    "icd_seed": (8, 1),
    "icd_seed threshold": (6, 1),
    "clip_map": (3, 0),
    "clip_seed": (9, 1),
    "refine": (0, 0),
    "walk": (5, 0),
    "predict": (7, 1),
    "predict raw": (1, 0),
    "predict cores": (1, 0),
}
"""Copies to the device that a group of three takes, none of which is waited for; and times that the host waits for what
only the device knows of a batch of CRFs, the number of lattice points or the labels that compete. They may only fall.
Seeds are made alike after any Map."""


LANDINGS = {"refine": 0, "clip_map": 2}
"""Waits for results of a group where it is not one: CLIP's boxes are found on the host (docs/architecture.md)."""


@pytest.mark.parametrize("case", CHECKED)
def test_a_group_is_one_visit_to_the_device(case: str) -> None:
    name, _, setting = case.partition(" ")
    stage = next(stage for stage in STAGES if stage.name == name)
    tree = {**configured("small").model_dump(exclude_unset=True), **SETTINGS[setting]}
    ((step, open_),) = works(stage, Config.model_validate(tree))
    seen = second_group(step, open_)
    copies, asked = CHECKED[case]
    sent = sum(count for line, count in seen.unwaited.items() if line.startswith("to the device"))
    assert not seen.mixed and all("ops/crf" in line for line in (*seen.blocking, *seen.waits)), seen
    assert sum(seen.landings.values()) == LANDINGS.get(step.name, 1)
    assert sent <= copies, seen.unwaited
    assert sum(seen.waits.values()) + sum(seen.blocking.values()) <= asked, seen
