"""The methods: small graphs over the same stages. Read this page first.

| stage     | verb | reads                              | yields                         |
|-----------|------|------------------------------------|--------------------------------|
| classify  | fit  | images, tags                       | classifier                     |
| cam       | map  | images, classifier                 | stride-4 activation            |
| cam_seed  | map  | images, full-size maps of cam      | labels with 255                |
| superpixel | map | images                             | regions of like colour         |
| discriminate | fit | images, tags, superpixel        | ICD network                    |
| icd_map   | map  | images, ICD network                | stride-4 activation            |
| icd_seed  | map  | images, full-size maps of icd_map  | labels, with 255 without CRF   |
| refine    | map  | images, maps from outside the run  | stride-4 activation            |
| refine_seed | map | images, full-size maps of refine  | labels with 255                |
| amn       | fit  | images, tags, the first seed       | AMN network                    |
| amn_map   | map  | images, AMN network, first seed    | stride-4 activation            |
| amn_seed  | map  | images, full-size maps of amn_map  | labels with 255                |
| irn       | fit  | images, the last seed              | edge network                   |
| walk      | map  | images, edge network, activation   | pseudo-masks                   |
| segment   | fit  | images, pseudo-masks               | segmentation network           |
| predict   | map  | validation images, that network    | labels, raw and after a CRF    |
| score     | map  | all of it, truth                   | IoU and threshold curves       |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from amn_dist.config import Config
from amn_dist.interfaces import Fit, Map
from amn_dist.shards.format import kind_of
from amn_dist.stages.amn import AmnFit, AmnMap
from amn_dist.stages.classify import CamMap, ClassifyFit
from amn_dist.stages.icd import IcdFit, IcdMap, icd_colour
from amn_dist.stages.icd_seed import IcdSeedMap
from amn_dist.stages.irn import IrnFit, WalkMap
from amn_dist.stages.refine import RefineMap
from amn_dist.stages.seed import SeedMap
from amn_dist.stages.segment import PredictMap, SegmentFit
from amn_dist.stages.superpixel import SuperpixelMap


@dataclass(frozen=True)
class Stage:
    """One node of a method.

    name: also its config section, its folder in the run, its command-line argument and its log prefix.
    label: stage and field a Fit learns from. checkpoint: the Fit a Map runs. joins: stages (and fields) a Map reads
    beside the images. follows: the Map whose full-size maps it takes from memory, in the same stream. given: the
    setting of its section that names a shard set from outside the run, and the field it reads there.
    """

    name: str
    verb: Literal["fit", "map", "score"]
    over: Literal["train", "val"] = "train"
    label: tuple[str, str] | None = None
    checkpoint: str | None = None
    joins: tuple[tuple[str, str], ...] = ()
    follows: str | None = None
    given: tuple[str, str] | None = None
    fit: Callable[[Config, int], Fit] | None = None
    map: Callable[[Config, int, str], Map] | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the stages whose artefacts it depends on."""
        label = (self.label[0],) if self.label else ()
        checkpoint = (self.checkpoint,) if self.checkpoint else ()
        follows = (self.follows,) if self.follows else ()
        return (*label, *checkpoint, *(name for name, _ in self.joins), *follows)

    def module(self, config: Config) -> str:
        """The module that says how it works, as a dotted name below the package."""
        work = self.fit(config, 2) if self.fit else self.map(config, 2, "") if self.map else None
        return "stages.score" if work is None else type(work).__module__.partition(".")[2]


ACTIVATION = "activation.f16"
"""The field of stride-4 maps of an image's classes."""

CLASSIFY = Stage("classify", "fit", fit=ClassifyFit)
CAM = Stage("cam", "map", checkpoint="classify", map=CamMap)
CAM_SEED = Stage("cam_seed", "map", follows="cam", map=lambda c, n, w: SeedMap("cam_seed", c.cam_seed))
SUPERPIXEL = Stage("superpixel", "map", map=lambda c, n, w: SuperpixelMap(c.superpixel))
DISCRIMINATE = Stage("discriminate", "fit", label=("superpixel", "superpixel.u16.png"), fit=IcdFit)
ICD_MAP = Stage("icd_map", "map", checkpoint="discriminate", map=IcdMap)
ICD_SEED = Stage("icd_seed", "map", follows="icd_map", map=lambda c, n, w: IcdSeedMap(c.icd_seed, n))
REFINE = Stage("refine", "map", given=("maps", "activation.f16"), map=lambda c, n, w: RefineMap())
REFINE_SEED = Stage("refine_seed", "map", follows="refine", map=lambda c, n, w: SeedMap("refine_seed", c.refine_seed))
AMN_SEED = Stage("amn_seed", "map", follows="amn_map", map=lambda c, n, w: SeedMap("amn_seed", c.amn_seed))


def stages(config: Config) -> tuple[Stage, ...]:
    """The stages of the configured method, each after everything it reads."""
    head: tuple[Stage, ...] = (CLASSIFY, CAM, CAM_SEED)
    activation, seed = "cam", "cam_seed"
    if config.method in ("icd", "icd_amn"):
        icd_colour(config)  # what cannot be is refused before anything is made
        head = (SUPERPIXEL, DISCRIMINATE, ICD_MAP, ICD_SEED)
        activation, seed = "icd_map", "icd_seed"
    if config.method == "refine":
        head, activation, seed = (REFINE, REFINE_SEED), "refine", "refine_seed"
    if config.method in ("amn", "icd_amn", "refine"):
        head += _amn(seed)
        activation, seed = "amn_map", "amn_seed"
    mask = (seed, "seed.png")
    if config.pseudo_mask == "walk":
        head += _walk(activation, seed)
        mask = ("walk", "mask.png")
    head += (Stage("segment", "fit", label=mask, fit=SegmentFit),)
    if config.data.val is not None:
        head += (Stage("predict", "map", over="val", checkpoint="segment", map=PredictMap),)
    return (*head, Stage("score", "score"))


def _amn(seed: str) -> tuple[Stage, ...]:
    """AMN on the seed of an earlier stage."""
    label = (seed, "seed.png")
    return (
        Stage("amn", "fit", label=label, fit=AmnFit),
        Stage("amn_map", "map", checkpoint="amn", joins=(label,), map=lambda c, n, w: AmnMap(c, n, w, seed)),
        AMN_SEED,
    )


def _walk(activation: str, seed: str) -> tuple[Stage, ...]:
    """IRN on a seed, and its walk from an activation."""
    return (
        Stage("irn", "fit", label=(seed, "seed.png"), fit=IrnFit),
        Stage(
            "walk",
            "map",
            checkpoint="irn",
            joins=((activation, "activation.f16"),),
            map=lambda c, n, w: WalkMap(c, n, w, activation),
        ),
    )


def scored(config: Config) -> dict[str, tuple[str, str, str]]:
    """What score looks at, every activation and all labels: name -> (stage, field, set it lies over)."""
    found: dict[str, tuple[str, str, str]] = {}
    for stage in stages(config):
        fields = stage.map(config, 0, "").fields if stage.map is not None else ()
        for field in sorted(filter(is_scored, fields), key=lambda field: field != "raw.png"):
            plain = field != "raw.png" and stage.name not in found
            name = stage.name if plain else f"{stage.name}_{field.partition('.')[0]}"
            found[name] = (stage.name, field, stage.over)
    return found


def is_scored(field: str) -> bool:
    """Whether a field can be compared with a truth."""
    return field == ACTIVATION or is_labels(field)


def is_labels(field: str) -> bool:
    """Whether a field holds a class for every pixel; regions (16 bits) are none."""
    return kind_of(field) == "labels"
